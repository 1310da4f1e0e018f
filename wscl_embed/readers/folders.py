"""Folders of image files: the ImageFolder convention, with a metadata file or with class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from wscl_embed.errors import InputError
from wscl_embed.readers.metadata import METADATA_SUFFIXES, Place, read_metadata, show
from wscl_embed.readers.source import SPLIT_NAMES, Fence, Source, check_utf8, image_column

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


def find_metadata(folder: Path) -> list[Path]:
    """The metadata file of ``folder``, or else those of its subfolders (``train/metadata.jsonl``, ...).

    Raises:
        InputError: more than one in a folder, or of more than one kind.
    """
    for candidates in ([folder], sorted(path for path in folder.iterdir() if path.is_dir())):
        found: list[Path] = []
        for parent in candidates:
            here = [parent / f"metadata{suffix}" for suffix in METADATA_SUFFIXES]
            here = [path for path in here if path.is_file()]
            if len(here) > 1:
                raise InputError(f"{parent}: several metadata files ({names(here)}); keep one.")
            found += here
        if len({path.suffix for path in found}) > 1:
            raise InputError(f"{folder}: metadata files of several kinds ({names(found)}); write them all as one kind.")
        if found:
            return found
    return []


def read_image_folder(folder: Path, metadata: Sequence[Path], *, images: bool = True) -> Source:
    """Images on disk, described by metadata files whose ``file_name`` is relative to the metadata file.

    The path of a row that would lead out of ``folder`` begins with `OUTSIDE`. A file that is missing is found out when
    it is decoded. Of metadata files in subfolders, the name of the subfolder is the split. Without ``images``,
    ``file_name`` need not be there, and where it is gives the ids alone.
    """
    import datasets

    table, places = read_metadata(metadata)
    if not places:
        raise InputError(f"{names(metadata)}: the dataset is empty.")
    if not images and "file_name" not in table.column_names:
        ids = [str(row) for row in range(len(places))]
        return Source(datasets.Dataset(with_splits(table, folder, places)), ids, lambda row: show(places[row]))
    if "file_name" not in table.column_names:
        raise InputError(
            f"{names(metadata)}: no column 'file_name', the path of each image relative to the metadata file. "
            f"Its columns are: {', '.join(table.column_names) or 'none'}."
        )
    if "image" in table.column_names:
        raise InputError(f"{names(metadata)}: a column 'image' beside 'file_name'; rename it, images go by that name.")
    file_names = table.column("file_name").to_pylist()
    for name, place in zip(file_names, places, strict=True):
        if not isinstance(name, str) or not name:
            raise InputError(f"{show(place)}: file_name is {name!r}; it must be the path of an image.")
    table = table.drop_columns(["file_name"])
    if images:
        fence = Fence(folder)
        located = zip(file_names, places, strict=True)
        paths = [fence.locate(metadata_file.parent, name) for name, (metadata_file, _) in located]
        table = table.append_column("image", image_column(paths))
    prefixes = {path: "" if path.parent == folder else f"{path.parent.name}/" for path in metadata}
    ids = [f"{prefixes[path]}{name}" for name, (path, _) in zip(file_names, places, strict=True)]
    return Source(datasets.Dataset(with_splits(table, folder, places)), ids, lambda row: show(places[row]))


def with_splits(table: pa.Table, folder: Path, places: Sequence[Place]) -> pa.Table:
    """``table`` with the subfolders of ``folder`` its rows come from as ``split``, unless it has one."""
    if "split" in table.column_names or all(path.parent == folder for path, _ in places):
        return table
    subfolders = ["" if path.parent == folder else path.parent.name for path, _ in places]
    return append_strings(table, "split", [SPLIT_NAMES.get(name.lower(), name) for name in subfolders])


def read_class_folders(folder: Path) -> Source | None:
    """Images without metadata: the name of an image's folder is its ``label``; None if there are no images.

    Where all top folders are called like splits (``train``, ``val``, ...), they become a column ``split``.
    """
    import datasets
    import pyarrow as pa

    files = image_files(folder)
    if not files:
        return None
    fence = Fence(folder)
    table = pa.table({"image": image_column([fence.locate(folder, name) for name in files])})
    parts = [name.split("/") for name in files]
    if all(len(part) > 1 and part[0].lower() in SPLIT_NAMES for part in parts):
        table = append_strings(table, "split", [SPLIT_NAMES[part[0].lower()] for part in parts])
        parts = [part[1:] for part in parts]
    labels = [part[-2] if len(part) > 1 else None for part in parts]
    if any(labels):
        table = append_strings(table, "label", labels)
    return Source(datasets.Dataset(table), files, lambda row: str(folder / files[row]))


def image_files(folder: Path) -> list[str]:
    """The image files below ``folder`` as sorted relative paths with slashes; hidden ones and folder links are not.

    Raises:
        InputError: a subfolder that cannot be read, whose images would be missed in silence.
    """

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: the folder cannot be read ({error.strerror}).") from error

    found: list[str] = []
    for parent, subfolders, files in os.walk(folder, onerror=refuse):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        prefix = Path(parent).relative_to(folder)
        found += [
            (prefix / name).as_posix()
            for name in files
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
        ]
    for name in found:
        check_utf8(name, folder)
    return sorted(found)


def append_strings(table: pa.Table, name: str, values: Sequence[str | None]) -> pa.Table:
    """``table`` with one more column of strings."""
    import pyarrow as pa

    return table.append_column(name, pa.array(values, pa.string()))


def names(paths: Sequence[Path]) -> str:
    """The paths, the first three of them, for an error message."""
    return ", ".join(str(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
