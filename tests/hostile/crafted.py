"""Files that claim what they do not hold, byte by byte."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from PIL import Image


def image(kind: str, size: tuple[int, int] = (32, 24), mode: str = "RGB", **options: object) -> bytes:
    """A good image file."""
    buffer = io.BytesIO()
    Image.new(mode, size, 7 if mode in ("L", "I;16") else None).save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, *more: tuple[bytes, bytes], data: bytes = b"") -> bytes:
    """A PNG that claims a size, with ``more`` chunks before its ``data``."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), *more, (b"IDAT", zlib.compress(data)), (b"IEND", b"")]
    parts = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def gif(width: int, height: int) -> bytes:
    """A GIF of 30 bytes whose only frame claims a size."""
    screen = struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6)
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0)
    return b"GIF89a" + screen + frame + b"\x02\x02\x4c\x01\x00;"


def tiff(width: int, height: int, **entries: int) -> bytes:
    """A TIFF of one strip that claims a size."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height % 2**32}
    tags.update({int(tag.removeprefix("tag")): value for tag, value in entries.items()})
    body = b"".join(struct.pack("<HHII", tag, 4, 1, value % 2**32) for tag, value in sorted(tags.items()))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + body + bytes(4)


def bmp(width: int, height: int) -> bytes:
    """A BMP header."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + header


def webp(width: int, height: int) -> bytes:
    """A WebP of a tiny frame on a canvas that claims a size."""
    frame = image("WEBP", (1, 1), lossless=True)[12:]
    canvas = struct.pack("<I", 0) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", len(canvas)) + canvas + frame
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_of_scans(side: int, scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again: each costs a pass over all pixels."""
    content = image("JPEG", (side, side), "L", progressive=True, quality=10)
    last = content.rfind(b"\xff\xda")
    return content[:last] + content[last:-2] * scans + content[-2:]


def tar(path: Path, members: Mapping[str, bytes], **headers: str) -> Path:
    """A tar, its last member with PAX ``headers``."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.pax_headers = headers if name == list(members)[-1] else {}
            archive.addfile(info, io.BytesIO(content))
    return path


def tar_header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """The header of a tar's member, its size as it stands there (12 bytes)."""
    header = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    header[124:136], header[156:157] = size.ljust(12, b"\0"), kind
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)
