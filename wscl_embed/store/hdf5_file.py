"""HDF5 files to write, on disks that may refuse.

The HDF5 library is no help there: it holds writes back, and of one that is refused when a dataset is closed h5py can
only print a warning, so that a file seems complete whose rows are not on the disk; at other writes it ends the process.
So it writes through a Python file that takes everything, and what the disk said is raised when the file is closed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import h5py


@contextmanager
def hdf5_file(path: Path, mode: str, **options: Any) -> Iterator[h5py.File]:
    """``h5py.File(path, mode, **options)``, to be closed by the end of a ``with`` block.

    Args:
        path: the file.
        mode: ``w`` or ``r+``.
        options: `h5py.File`'s.

    Raises:
        OSError: the disk refused something; the first thing it said.
    """
    import h5py

    with _Taking(path, "w+" if mode == "w" else mode) as taking:
        try:
            with h5py.File(taking, mode, **options) as file:
                yield file
        finally:
            if taking.said is not None:
                raise taking.said


class _Taking(io.FileIO):
    """A file that takes all it is given."""

    said: OSError | None = None

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        size = len(view)
        try:
            while view:
                view = view[super().write(view) :]
        except OSError as error:
            self.said = self.said or error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.said = self.said or error
            return self.tell() if size is None else size
