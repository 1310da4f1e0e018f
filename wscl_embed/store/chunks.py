"""Datasets in chunks, as strangers' files may have them; ours lie in one piece."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import h5py

MAX_CHUNKS = 1_000_000  # each is an entry of an index that is walked
MAX_PACKED = 1 << 20
"""Bytes on disk of a compressed chunk: gzip makes up to 1032 times as many, in a buffer twice as large."""


class Chunk(NamedTuple):
    """Where one lies in the file, and how many bytes it takes there."""

    offset: int
    size: int


def chunks_of(dataset: h5py.Dataset) -> list[Chunk]:
    """All that are stored, in one walk over the index; none is unpacked."""
    found: list[Chunk] = []
    dataset.id.chunk_iter(lambda info: found.append(Chunk(info.byte_offset, info.size)))
    return found


def chunks_problem(dataset: h5py.Dataset, packed: bool, file_size: int) -> str | None:
    """What is wrong with the chunks of a dataset, compressed or not; None when nothing is."""
    expected = math.prod(math.ceil(side / step) for side, step in zip(dataset.shape, dataset.chunks, strict=True))
    count = dataset.id.get_num_chunks()
    if count > min(expected, MAX_CHUNKS):
        return f"is stored in {count:,} chunks, more than are read or fit its shape"
    chunks = chunks_of(dataset)
    if any(chunk.offset + chunk.size > file_size for chunk in chunks):
        return "has a chunk that lies beyond the end of the file"
    if packed and max((chunk.size for chunk in chunks), default=0) > MAX_PACKED:
        return f"is compressed in chunks of over {MAX_PACKED >> 10:,} KiB, which may unpack to anything"
    return None


class ChunkedRows:
    """The (N, D) rows of a dataset in chunks, read when they are asked for.

    What the library raises over a damaged chunk is an `InputError`, as ``undamaged`` makes it.
    """

    def __init__(self, dataset: h5py.Dataset, undamaged: Callable[[], AbstractContextManager[None]]) -> None:
        self._dataset, self._undamaged = dataset, undamaged
        self.shape: tuple[int, int] = dataset.shape
        self.dtype: np.dtype[Any] = dataset.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """All rows, read at once: without this NumPy asks for one after the other."""
        return np.asarray(self[:], dtype=dtype)

    def __getitem__(self, rows: Any) -> NDArray[np.floating]:
        with self._undamaged():
            found: NDArray[np.floating] = self._dataset[rows]
        return found
