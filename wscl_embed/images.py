"""`decode_image`: one image file, of whatever kind, as 8-bit RGB - or a short reason why it cannot be had."""

from __future__ import annotations

import hashlib
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

from wscl_embed.errors import InputError
from wscl_embed.pixels import to_rgb, upright

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 29  # of a file: some formats are read whole, and so are all for their content hash
MAX_SCANS = 64  # of a progressive JPEG: each may cost a pass over all pixels for a few bytes; usual are 10


class BadImageError(InputError):
    """An image that cannot be used.

    ``reason`` is a few words for a person; what varies from file to file stands in parentheses at its end, so that
    reasons can be counted.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def decode_image(source: bytes | str | Path, *, max_pixels: int = MAX_PIXELS, draft_size: int | None = None) -> Image:
    """Decode a JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF (where the Pillow has it) to RGB, turned upright.

    Transparency is laid over white, deeper images are scaled to 8 bit (see `wscl_embed.pixels.to_eight_bit`), and of
    an animation the first frame is taken. Colour profiles are not applied. Safe to call from several threads.

    Args:
        source: the content of a file, or the path of one.
        max_pixels: larger images are refused by what their header says, before anything is decoded. Pillow's own
            limit (twice ``PIL.Image.MAX_IMAGE_PIXELS``) holds beside it.
        draft_size: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as its short side
            stays at least this long. Much faster for large photos that are shrunk afterwards anyway.

    Raises:
        BadImageError: no image to be had, with its reason.

    >>> decode_image(b"<!DOCTYPE html><p>404")
    Traceback (most recent call last):
    ...
    wscl_embed.images.BadImageError: an HTML page, not an image
    """
    with ExitStack() as stack:
        if isinstance(source, bytes):
            check_size(len(source))
            handle: IO[bytes] = BytesIO(source)
        else:
            handle = stack.enter_context(open_file(Path(source)))
        stack.enter_context(strict_pillow())
        image = stack.enter_context(open_image(handle, max_pixels))
        try:
            if draft_size is not None:
                image.draft(None, (draft_size, draft_size))
            image.load()
            return to_rgb(upright(image))
        except BadImageError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever their parser stumbled over.
            raise BadImageError(damage(error, "data")) from error


def read_source(source: bytes | Path) -> bytes:
    """The whole content of an image.

    Raises:
        BadImageError: it cannot be read.
    """
    if isinstance(source, bytes):
        return source
    try:
        with open_file(source) as handle:
            return handle.read()
    except OSError as error:
        raise BadImageError(f"file cannot be read ({describe(error)})") from error


def content_hash(content: bytes) -> bytes:
    """16 bytes of BLAKE2b that tell one image file from another.

    >>> content_hash(b"one") == content_hash(b"other")
    False
    """
    return hashlib.blake2b(content, digest_size=16).digest()


def open_file(path: Path) -> IO[bytes]:
    """Open ``path`` for reading, if it is a regular file."""
    try:
        if path.is_dir():
            raise BadImageError("a folder, not a file")
        if not path.exists():
            raise BadImageError("file does not exist")
        if not path.is_file():
            # A pipe or a device could block for ever, or never end.
            raise BadImageError("not a regular file")
        check_size(path.stat().st_size)
        return path.open("rb")
    except (OSError, ValueError) as error:
        raise BadImageError(f"file cannot be read ({describe(error)})") from error


def check_size(size: int) -> None:
    """See that a file is not too long."""
    if size > MAX_BYTES:
        raise BadImageError(f"file too large ({size:,} bytes, more than {MAX_BYTES:,})")


def open_image(handle: IO[bytes], max_pixels: int) -> Image:
    """Read the header only, and refuse what is no image or too large a one."""
    from PIL import Image, UnidentifiedImageError

    head = handle.read(512)
    if not head:
        raise BadImageError("empty file")
    handle.seek(0)
    try:
        image: Image.Image = Image.open(handle, formats=allowed_formats())
    except Image.DecompressionBombError as error:
        raise BadImageError(f"too many pixels (more than {max_pixels:,})") from error
    except UnidentifiedImageError as error:
        start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
        if start.startswith((b"<!doctype html", b"<html")):
            raise BadImageError("an HTML page, not an image") from error
        raise BadImageError(f"not an image that can be read (it must be one of {', '.join(FORMATS)})") from error
    except Exception as error:  # As above: plugins raise many kinds on a damaged header.
        raise BadImageError(damage(error, "header")) from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise BadImageError(f"too many pixels ({width} x {height}, more than {max_pixels:,})")
    if width < 1 or height < 1:
        image.close()
        raise BadImageError("an image without pixels")
    if "progressive" in image.info and has_many_scans(handle):
        image.close()
        raise BadImageError(f"too many scans (more than {MAX_SCANS})")
    return image


# A marker of a JPEG: not the stuffed zero after an FF of the data, a restart (D0 to D7), or an FF that fills.
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
SCAN, END = 0xDA, 0xD9


def has_many_scans(handle: IO[bytes]) -> bool:
    """Whether a JPEG has more than `MAX_SCANS` scans; the handle stays where it is."""
    here = handle.tell()
    handle.seek(0)
    content = handle.read()
    handle.seek(here)
    scans, place = 0, 2
    while scans <= MAX_SCANS and (found := MARKER.search(content, place)):
        marker, place = content[found.start() + 1], found.end()
        if marker == END:
            return False
        scans += marker == SCAN
        place += int.from_bytes(content[place : place + 2], "big")  # behind the segment's own bytes
    return scans > MAX_SCANS


@cache
def allowed_formats() -> tuple[str, ...]:
    """Those of `FORMATS` this Pillow knows: its other plugins (EPS, PSD, ...) are never run on a stranger's file."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


class StrictPillow:
    """Pillow without warnings and with truncated files refused, for as long as any thread is inside.

    Both are settings of the whole process. `warnings.catch_warnings` used by two threads that overlap can leave its
    filter behind for good; hence the count: the first thread in sets them, the last one out restores them.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside = 0
        self.restore = ExitStack()

    def enter(self) -> None:
        from PIL import ImageFile

        with self.lock:
            self.inside += 1
            if self.inside == 1:
                self.restore.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self.restore.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
                # Set by other libraries in the same process, it would turn half a photo into half a photo on grey.
                ImageFile.LOAD_TRUNCATED_IMAGES = False

    def leave(self) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.restore.close()


STRICT_PILLOW = StrictPillow()


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Hold `STRICT_PILLOW` for the duration of a ``with`` block."""
    STRICT_PILLOW.enter()
    try:
        yield
    finally:
        STRICT_PILLOW.leave()


def damage(error: Exception, part: str) -> str:
    """The reason that an error of Pillow's amounts to; ``part`` is what was being read."""
    if "truncated" in str(error).lower():
        return "truncated image file"
    return f"damaged image {part} ({describe(error)})"


def describe(error: Exception) -> str:
    """What an exception says, in one line; its type where it says nothing."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:120] or type(error).__name__
