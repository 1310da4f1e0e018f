"""The images of a run as small pictures, and the images people search by, each within bounds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import BoundedSemaphore, Lock

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError
from wscl_embed.images import BadImageError, content_hash, decode_image
from wscl_embed.report.thumbnails import webp
from wscl_embed.searching import Searcher
from wscl_embed.serving.sides import Side

SIZES = {"small": 192, "large": 512}  # pixels, the longer side
KEPT = {"small": 4096, "large": 64}  # some 5 kB and 40 kB each
DECODED_AT_ONCE = 2
UPLOAD_PIXELS = 50_000_000
DRAFT_SIZE = 1024  # a JPEG may be decoded smaller, to no less than this; encoders see 224 to 512
KEPT_UPLOADS = 32


class Pictures:
    """The images of a run as WebP, made when asked for, of rows and sizes alone: nobody names a path.

    Args:
        searcher: whose dataset has them.
    """

    def __init__(self, searcher: Searcher) -> None:
        self._searcher = searcher
        self._room = BoundedSemaphore(DECODED_AT_ONCE)
        self._made: dict[str, Callable[[int], bytes]] = {
            size: lru_cache(KEPT[size])(self._maker(side)) for size, side in SIZES.items()
        }

    def get(self, row: int, size: str) -> bytes:
        """The picture of a row of the embedding file.

        Raises:
            BadImageError: there is no such row or size, or its image cannot be had.
        """
        if size not in self._made or not 0 <= row < len(self._searcher):
            raise BadImageError("no such picture")
        return self._made[size](row)

    def _maker(self, side: int) -> Callable[[int], bytes]:
        def make(row: int) -> bytes:
            with self._room:
                return webp(decode_image(self._searcher.columns.image(row), draft_size=side), side)

        return make


@dataclass(frozen=True)
class Upload:
    """An image somebody searches by: its ``picture``, a WebP, and its embedding (D,) of each side that has one."""

    picture: bytes
    vectors: dict[str, NDArray[np.float32]]


class Uploads:
    """The last images that were searched by, as small pictures and embeddings; the files are not kept.

    Args:
        sides: that embed them.
    """

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = sides
        self._kept: OrderedDict[str, Upload] = OrderedDict()
        self._lock, self._one_at_a_time = Lock(), Lock()

    def add(self, content: bytes) -> str:
        """Embed an image file; the key by which it is found again.

        Raises:
            InputError: an image that cannot be decoded, or has too many pixels.
        """
        with self._one_at_a_time:  # decoding may take hundreds of megabytes
            try:
                image = decode_image(content, max_pixels=UPLOAD_PIXELS, draft_size=DRAFT_SIZE)
            except BadImageError as error:
                raise InputError(f"This picture cannot be used: {error.reason}.") from error
            vectors = {side.key: side.searcher.queries.image(image) for side in self._sides if not side.no_images}
            upload = Upload(webp(image, SIZES["large"]), vectors)
        key = content_hash(content).hex()
        with self._lock:
            self._kept[key] = upload
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT_UPLOADS:
                self._kept.popitem(last=False)
        return key

    def get(self, key: str) -> Upload | None:
        """What was added; None where it is not kept any more."""
        with self._lock:
            return self._kept.get(key)
