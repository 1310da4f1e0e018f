"""Arrays and texts in few characters, for scripts in a page."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LONGEST_ID = 80  # characters of an id that are shown


def pack(array: NDArray[np.integer]) -> dict[str, str]:
    """An array as little-endian bytes, deflated, in base64, with the dtype the page needs to read it.

    >>> pack(np.zeros(1000, dtype=np.uint16))["dtype"]
    'uint16'
    """
    return {
        "dtype": array.dtype.name,
        "data": _deflate(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes()),
    }


def pack_texts(texts: Sequence[str]) -> dict[str, str]:
    """Texts as a JSON list, deflated, in base64."""
    return {"dtype": "json", "data": _deflate(json.dumps(list(texts)).encode("ascii"))}


def _deflate(content: bytes) -> str:
    return base64.b64encode(zlib.compress(content, 9)).decode("ascii")


def shorten(text: str, longest: int = LONGEST_ID) -> str:
    """``text`` with its middle left out where it is too long.

    >>> shorten("photographs/1.jpg", 9)
    'phot….jpg'
    """
    half = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:half]}…{text[-half:]}"
