"""`Source`, what every reader gives, and `Fence`, which keeps a dataset's file names inside its folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from wscl_embed.errors import InputError, StorageError, WsclEmbedError
from wscl_embed.files import FULL

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

# The path of an image that must not be read begins with this; its bytes are b"", so that nothing opens the path.
OUTSIDE = "outside-the-dataset:"

MAX_ID = 1024  # characters

# As Hugging Face's ImageFolder takes folder names.
SPLIT_NAMES = {
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["test", "testing", "eval", "evaluation"], "test"),
    **dict.fromkeys(["validation", "valid", "val", "dev"], "validation"),
}


@dataclass(frozen=True)
class Source:
    """A dataset as read, before ids are settled.

    ================ ================================================================================================
    ``dataset``      its column ``image`` is a struct of ``bytes`` and ``path``; the others are as found
    ``fallback_ids`` one id a row, for where the dataset has no id column
    ``place``        where row i came from, for error messages: ``metadata.jsonl:12``
    ================ ================================================================================================
    """

    dataset: datasets.Dataset
    fallback_ids: Sequence[Any]
    place: Callable[[int], str]


class Fence:
    """Tells whether a file lies inside given folders, symbolic links followed.

    Parents are resolved once each, so a file costs one `lstat`.
    """

    def __init__(self, *roots: str | Path) -> None:
        self.roots = [Path(os.path.realpath(root)) for root in roots]
        self._parents: dict[str, bool] = {}

    def locate(self, base: str | Path, name: str) -> str:
        """The path of the file called ``name`` relative to ``base``, or `OUTSIDE` and the name.

        A name that is absolute or has a ``..`` in it is outside, wherever it leads.
        """
        parts = name.replace("\\", "/").split("/")
        if PurePosixPath(name).is_absolute() or PureWindowsPath(name).is_absolute() or ".." in parts:
            return OUTSIDE + name
        path = os.path.join(base, name)  # noqa: PTH118 - one a row, and Path is ten times slower
        return path if self.holds(path) else OUTSIDE + name

    def holds(self, path: str) -> bool:
        """Whether ``path`` lies inside the folders."""
        parent = os.path.dirname(path)  # noqa: PTH120
        if parent not in self._parents:
            self._parents[parent] = self._within(parent)
        return self._parents[parent] and (not os.path.islink(path) or self._within(path))  # noqa: PTH114

    def _within(self, path: str) -> bool:
        try:
            resolved = Path(os.path.realpath(path))
        except ValueError:  # A NUL in the name: there can be no such file.
            return False
        return any(resolved.is_relative_to(root) for root in self.roots)


def image_column(paths: Iterable[str | None], contents: pa.Array | None = None) -> pa.StructArray:
    """(n,) struct<bytes: binary, path: string>: images on disk, or with ``contents`` (n,) images in memory.

    Paths that begin with `OUTSIDE` get the bytes b"", whatever their content.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    path_array = pa.array(paths, pa.string())
    if contents is None:
        contents = pa.nulls(len(path_array), pa.binary())
    outside = pc.fill_null(pc.starts_with(path_array, OUTSIDE), False)
    if pc.any(outside).as_py():
        contents = pc.if_else(outside, pa.scalar(b"", contents.type), contents)
    return pa.StructArray.from_arrays([contents, path_array], names=["bytes", "path"])


def unstorable(value: Any) -> str | None:
    """Why HDF5 cannot hold an id: it has no NUL, and gives each the room of the longest. None where it can.

    >>> unstorable("a\\0b"), unstorable("x" * 1024)
    ('has a NUL character', None)
    """
    if isinstance(value, str) and "\0" in value:
        return "has a NUL character"
    return f"has more than {MAX_ID:,} characters" if isinstance(value, str) and len(value) > MAX_ID else None


def check_storable(ids: Sequence[Any], place: Callable[[int], str]) -> None:
    """See that HDF5 can hold the ids."""
    for row, value in enumerate(ids):
        if problem := unstorable(value):
            raise InputError(f"{place(row)}: the id {value[:40]!r} {problem}.")


def check_utf8(name: str, where: Path) -> None:
    """See that a file name found in ``where`` is text: other bytes come as lone surrogates, which Arrow cannot hold."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: the file name {name!r} is not UTF-8; rename it.") from error


def beginning(error: BaseException) -> BaseException:
    """The error that began a chain of them: `datasets` wraps the one that says what is wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def innermost(error: BaseException) -> str:
    """The first line of `beginning`."""
    error = beginning(error)
    lines = str(error).strip().splitlines()
    return lines[0][:300].rstrip(".") if lines else type(error).__name__


def not_cached(error: BaseException, what: str) -> WsclEmbedError:
    """What to raise where `datasets` could not copy images to its cache: a full disk is no fault of the data's."""
    import datasets

    first = beginning(error)
    if not (isinstance(first, OSError) and first.errno in FULL):
        return InputError(f"{what} ({innermost(error)}).")
    return StorageError(
        f"{what}: {os.strerror(first.errno or 0)} in the cache of Hugging Face datasets, "
        f"{datasets.config.HF_DATASETS_CACHE}, to which Parquet and tars are copied; the variable HF_DATASETS_CACHE "
        "names another folder."
    )
