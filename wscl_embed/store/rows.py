"""`RowFiles`: vectors, ids and content hashes in three files that only grow, so that a kill leaves a prefix of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from wscl_embed.errors import InputError, StorageError

HEAD = 4096  # bytes left free before the first vector; `wscl_embed.store.container` puts the HDF5 header there
HASH_BYTES = 16
BLOCK_BYTES = 1 << 20  # what is scaled and written at once: stays in the cache
READ_BYTES = 1 << 24
ONE_THREAD = 1 << 15  # values torch converts without its other threads: on a busy machine it waits for them
SYNC_BYTES = 1 << 25  # so much is handed to the disk at once, while more is written
UNIT = {"float32": 1e-6, "float16": 5e-4}  # a length this close to 1 is not scaled: only the last bits would change
END = b"\0"  # ends an id in the file of ids


class RowFiles:
    """Rows on their way into an embedding file: ``STEM.vectors``, ``STEM.ids`` and, where asked for, ``STEM.hashes``.

    Nothing in them is ever changed, and a row's id is written last: after a kill at any moment the rows that have all
    their parts are whole, and opening the files again cuts off what is behind them.

    Args:
        stem: the path of the files without their suffixes.
        dim: D.
        dtype: float32 or float16.
        hashed: whether every row has a content hash.
    """

    def __init__(self, stem: Path, dim: int, dtype: str, *, hashed: bool = False) -> None:
        self.dim, self.dtype = dim, np.dtype(dtype).newbyteorder("<")
        self.vectors_path, self.ids_path, self.hashes_path = (
            stem.with_name(f"{stem.name}.{part}") for part in ("vectors", "ids", "hashes")
        )
        for path in self._paths(hashed):
            path.touch()
        self._near = UNIT[self.dtype.name]
        self._length, self.longest = self._trim(hashed)
        self._vectors, self._ids = self.vectors_path.open("ab"), self.ids_path.open("ab")
        self._hashes = self.hashes_path.open("ab") if hashed else None
        self._disk: ThreadPoolExecutor | None = None
        self._syncing: Future[None] | None = None
        self._synced = 0

    def _paths(self, hashed: bool) -> list[Path]:
        return [self.vectors_path, self.ids_path, *([self.hashes_path] if hashed else [])]

    def _trim(self, hashed: bool) -> tuple[int, int]:
        """Cut the files to the rows they all have; their number, and the bytes of the longest id among them."""
        ends = np.concatenate([np.zeros(0, np.int64), *_ends(self.ids_path)])
        counts = [len(ends), max(0, self.vectors_path.stat().st_size - HEAD) // self.row_bytes]
        if hashed:
            counts.append(self.hashes_path.stat().st_size // HASH_BYTES)
        n = min(counts)
        sizes = [HEAD + n * self.row_bytes, int(ends[n - 1]) if n else 0, n * HASH_BYTES]
        for path, size in zip(self._paths(hashed), sizes, strict=False):
            with path.open("r+b") as file:
                file.truncate(size)
        return n, int(np.diff(ends[:n], prepend=0).max(initial=1)) - 1

    @property
    def row_bytes(self) -> int:
        """Bytes of a vector."""
        return int(self.dim * self.dtype.itemsize)

    @property
    def hashed(self) -> bool:
        """Whether every row has a content hash."""
        return self._hashes is not None

    def __len__(self) -> int:
        return self._length

    def append(
        self, ids: Sequence[str], embeddings: NDArray[np.floating], hashes: NDArray[np.uint8] | None = None
    ) -> None:
        """Append (b, D) rows, scaled to unit length; ``hashes`` (b, 16).

        Raises:
            InputError: a row that is not finite, or an id with a NUL character (names the id).
            StorageError: the disk is full, or does not take the rows for another reason.
        """
        rows = np.asarray(embeddings)
        if rows.dtype not in (np.float32, np.float16):
            rows = rows.astype(np.float32)
        step = max(1, BLOCK_BYTES // (4 * self.dim))
        blocks = (slice(start, start + step) for start in range(0, len(rows), step))
        self._write(ids, (self._unit(rows[block], ids[block]) for block in blocks), hashes)

    def _unit(self, rows: NDArray[np.floating], ids: Sequence[str]) -> NDArray[np.floating]:
        """The rows scaled to unit length, but for those that are near enough."""
        single = converted(rows, np.float32)
        lengths = _lengths(single, ids)
        if np.abs(lengths - 1).max(initial=0) > self._near:
            rows = single * (1 / np.maximum(lengths, np.finfo(np.float32).tiny))[:, None]  # a row of zeros stays one
        return converted(rows, self.dtype)

    def copy(self, ids: Sequence[str], vectors: NDArray[np.floating], hashes: NDArray[np.uint8] | None = None) -> None:
        """Append rows that have unit length already, as they are."""
        self._write(ids, [np.ascontiguousarray(vectors, dtype=self.dtype)], hashes)

    def _write(self, ids: Sequence[str], blocks: Any, hashes: NDArray[np.uint8] | None) -> None:
        encoded = "\0".join([*ids, ""]).encode()
        ends = np.flatnonzero(np.frombuffer(encoded, np.uint8) == END[0])
        if len(ends) != len(ids):
            spoilt = next(image_id for image_id in ids if "\0" in image_id)
            raise InputError(f"the id {spoilt!r} has a NUL character, which HDF5 strings cannot hold.")
        try:
            for block in blocks:
                self._vectors.write(block.data)
                self._sync(self._vectors.tell())
            self._vectors.flush()
            if self._hashes is not None:
                self._hashes.write(np.ascontiguousarray(hashes, dtype=np.uint8).data)
                self._hashes.flush()
            self._ids.write(encoded)
            self._ids.flush()
        except OSError as error:
            raise StorageError(f"{self.vectors_path.parent}: cannot be written ({error.strerror}).") from error
        except InputError:
            self._vectors.truncate(HEAD + self._length * self.row_bytes)  # the blocks before the bad one
            raise
        self._length += len(ids)
        self.longest = max(self.longest, int(np.diff(ends, prepend=-1).max(initial=1)) - 1)

    def _sync(self, size: int) -> None:
        """Have what was written so far put on the disk, in a thread: there is less to wait for at the end."""
        if size - self._synced >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self._disk = self._disk or ThreadPoolExecutor(1)
            self._syncing = self._disk.submit(os.fsync, self._vectors.fileno())
            self._synced = size

    def check_synced(self) -> None:
        """Raise what the disk said when rows were put on it in the thread: it says so once, not to the last sync."""
        if self._syncing is not None:
            self._syncing.result()

    def read_ids(self) -> Iterator[list[bytes]]:
        """The ids, many at a time."""
        rest = b""
        for block in _blocks(self.ids_path):
            *whole, rest = (rest + block).split(END)
            yield whole

    def read_vectors(self) -> NDArray[np.floating]:
        """(n, D), mapped from the disk."""
        if not self._length:
            return np.empty((0, self.dim), self.dtype)
        return np.memmap(self.vectors_path, self.dtype, "r", offset=HEAD, shape=(self._length, self.dim))

    def read_hashes(self) -> NDArray[np.uint8]:
        """(n, 16) uint8."""
        return np.fromfile(self.hashes_path, np.uint8).reshape(-1, HASH_BYTES)

    def close(self) -> None:
        """Close the files."""
        if self._disk is not None:
            self._disk.shutdown()
        for file in (self._vectors, self._ids, self._hashes):
            if file is not None:
                _close(file)

    def remove(self) -> None:
        """Close the files and delete them."""
        self.close()
        for path in self._paths(True):
            path.unlink(missing_ok=True)


def _close(file: IO[bytes]) -> None:
    """Close, also when the disk does not take what a failed write left in the buffer."""
    try:
        file.close()
    except OSError:
        file.raw.close() if hasattr(file, "raw") else None


def converted(rows: NDArray[np.floating], dtype: npt.DTypeLike) -> NDArray[np.floating]:
    """Rows of float32 or float16 as one of these, contiguous: to NumPy's bits, by torch, which is ten times as fast."""
    rows = np.ascontiguousarray(rows)
    if rows.dtype == dtype:
        return rows
    import torch

    result = np.empty(rows.shape, dtype)
    source = torch.from_numpy(rows if rows.flags.writeable else rows.copy())  # it warns of what cannot be written to
    pieces = (torch.split(whole.view(-1), ONE_THREAD) for whole in (source, torch.from_numpy(result)))
    for given, made in zip(*pieces, strict=True):
        made.copy_(given)
    return result


def _lengths(rows: NDArray[np.floating], ids: Sequence[str]) -> NDArray[np.float32]:
    """(b,) Euclidean lengths."""
    with np.errstate(over="ignore", invalid="ignore"):  # looked at below
        squares = np.vecdot(rows, rows) if hasattr(np, "vecdot") else np.einsum("ij,ij->i", rows, rows)
    lengths: NDArray[np.float32] = np.sqrt(squares)
    odd = np.flatnonzero(~np.isfinite(squares) | (squares < 1e-30))  # perhaps outside float32's squares only
    if len(odd):
        wide = np.linalg.norm(rows[odd].astype(np.float64), axis=1)
        if not np.isfinite(wide).all():
            raise InputError(f"the embedding of image {ids[odd[int(np.argmin(np.isfinite(wide)))]]!r} is not finite.")
        lengths[odd] = wide
    return lengths


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            yield block


def _ends(path: Path) -> Iterator[NDArray[np.int64]]:
    """The positions just behind each id."""
    start = 0
    for block in _blocks(path):
        yield np.flatnonzero(np.frombuffer(block, np.uint8) == END[0]) + start + 1
        start += len(block)
