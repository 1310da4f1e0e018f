"""`GrowingMatrix`: rows of numbers in a file that is only appended to."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

SYNC_BYTES = 1 << 25  # so much is handed to the disk at once, while more is written


class GrowingMatrix:
    """(n, width) numbers of one type in a file that only grows: after a kill at any moment it holds a prefix of them.

    Args:
        path: the file; one that is there goes on growing.
        width: numbers a row.
        dtype: their type.
        head: bytes left free before the first row.

    >>> import tempfile
    >>> matrix = GrowingMatrix(Path(tempfile.mkdtemp()) / "rows", 2, np.float16)
    >>> matrix.write(np.ones((3, 2), np.float16)), matrix.flush(), matrix.whole_rows()
    (None, None, 3)
    >>> matrix.cut(1), matrix.read(1).tolist(), matrix.close()
    (None, [[1.0, 1.0]], None)
    """

    def __init__(self, path: Path, width: int, dtype: npt.DTypeLike, *, head: int = 0) -> None:
        self.path, self.width, self.head = path, width, head
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
        self._file = path.open("ab")
        self._disk: ThreadPoolExecutor | None = None
        self._syncing: Future[None] | None = None
        self._synced = 0

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return int(self.width * self.dtype.itemsize)

    def whole_rows(self) -> int:
        """How many rows the file has all bytes of."""
        return max(0, self.path.stat().st_size - self.head) // self.row_bytes

    def cut(self, n: int) -> None:
        """Keep the first n rows."""
        self._file.truncate(self.head + n * self.row_bytes)

    def write(self, rows: NDArray[Any]) -> None:
        """Append (b, width) rows; another process may see them after `flush`.

        Raises:
            OSError: the disk does not take these, or did not take earlier ones when they were put on it in the thread.
        """
        self._file.write(np.ascontiguousarray(rows, dtype=self.dtype).data)
        self._sync(self._file.tell())

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()

    def _sync(self, size: int) -> None:
        """Have what was written so far put on the disk, in a thread: there is less to wait for at the end."""
        if size - self._synced >= SYNC_BYTES and (self._syncing is None or self._syncing.done()):
            self.check_synced()
            self._disk = self._disk or ThreadPoolExecutor(1)
            self._syncing = self._disk.submit(os.fsync, self._file.fileno())
            self._synced = size

    def check_synced(self) -> None:
        """Raise what the disk said when rows were put on it in the thread: it says so once, not to the last sync."""
        if self._syncing is not None:
            self._syncing.result()

    def read(self, n: int) -> NDArray[Any]:
        """The first n rows, mapped from the disk."""
        if not n:
            return np.empty((0, self.width), self.dtype)
        return np.memmap(self.path, self.dtype, "r", offset=self.head, shape=(n, self.width))

    def close(self) -> None:
        """Close the file."""
        if self._disk is not None:
            self._disk.shutdown()
        close(self._file)


def close(file: IO[bytes]) -> None:
    """Close, also when the disk does not take what a failed write left in the buffer."""
    try:
        file.close()
    except OSError:
        file.raw.close() if hasattr(file, "raw") else None
