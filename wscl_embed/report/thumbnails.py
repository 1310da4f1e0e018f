"""Small pictures of some images, as data URLs."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import TYPE_CHECKING, Any

from wscl_embed.dataset import image_source
from wscl_embed.images import BadImageError, decode_image

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

SIDE = 96  # pixels; shown at half that or a little more, sharp on dense screens
QUALITY = 70
CHUNK = 64  # images in memory at a time
THREADS = 8


def thumbnails(dataset: datasets.Dataset, rows: Sequence[int]) -> dict[int, str]:
    """Row -> the ``data:`` URL of a WebP, its longer side at most 96 pixels.

    An image that can no longer be decoded is left out: it could be when the run began, and is no reason to lose its
    report.
    """
    found: dict[int, str] = {}
    images = dataset.select_columns(["image"])
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(rows), CHUNK):
            some = [int(row) for row in rows[start : start + CHUNK]]
            made = pool.map(thumbnail, [images[row]["image"] for row in some])
            found.update({row: url for row, url in zip(some, made, strict=True) if url is not None})
    return found


def thumbnail(image: Any) -> str | None:
    """The ``data:`` URL of one value of the column ``image``; None where it cannot be decoded."""
    try:
        content = webp(decode_image(image_source(image), draft_size=SIDE), SIDE)
    except BadImageError:
        return None
    return "data:image/webp;base64," + base64.b64encode(content).decode("ascii")


def webp(image: Image, side: int) -> bytes:
    """An image as a WebP whose longer side is at most ``side`` pixels; ``image`` is shrunk in place."""
    from PIL.Image import Resampling

    image.thumbnail((side, side), Resampling.LANCZOS)
    content = BytesIO()
    image.save(content, format="WEBP", quality=QUALITY)
    return content.getvalue()
