"""Which reader takes what a path or a name stands for."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

from wscl_embed.errors import InputError
from wscl_embed.readers.source import Source

FILE_SUFFIXES = (".jsonl", ".csv", ".parquet", ".tar")
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")


def find_source(path_or_name: str | Path, *, images: bool = True) -> Source:
    """Choose the reader for what is at ``path_or_name``."""
    text = str(path_or_name)
    if not text:
        raise InputError("the path or name of the dataset is empty.")
    try:
        path = Path(path_or_name).expanduser()
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, RuntimeError) as error:  # longer than names can be; ~somebody who has no home
        raise InputError(f"{text[:200]}: no path ({getattr(error, 'strerror', None) or error}).") from error
    if is_folder:
        return read_folder(path, images=images)
    if is_file:
        return read_files([path], images=images)
    if not path.exists() and re.search(r"[*?\[{]", text):
        return read_files(expand(str(path)), images=images)
    # `data/fashon` beside a folder `data` is a typing error, not a dataset of the user "data".
    named_like_hub = HUB_NAME.fullmatch(text) and path.suffix.lower() not in FILE_SUFFIXES
    if isinstance(path_or_name, Path) or not named_like_hub or ("/" in text and path.parent.is_dir()):
        raise InputError(f"{text}: there is no such file or folder.")
    from wscl_embed.readers.tables import read_hub

    return read_hub(text, images=images)


def read_folder(folder: Path, *, images: bool = True) -> Source:
    """Read a folder of whichever layout it has."""
    from wscl_embed.readers.folders import find_metadata, read_class_folders, read_image_folder
    from wscl_embed.readers.tables import read_saved

    saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
    if saved:
        return read_saved(folder, images=images)
    metadata = find_metadata(folder)
    if metadata:
        return read_image_folder(folder, metadata, images=images)
    for pattern in ("*.parquet", "data/*.parquet", "*.tar"):
        files = sorted(folder.glob(pattern))
        if files:
            return read_files(files, images=images)
    source = read_class_folders(folder)
    if source is None:
        raise InputError(
            f"{folder}: no dataset in this folder. Looked for metadata.jsonl, metadata.csv or metadata.parquet (here "
            "or in its subfolders), a dataset by save_to_disk, *.parquet (here or in data/), *.tar, and image files."
        )
    return source


def read_files(paths: Sequence[Path], *, images: bool = True) -> Source:
    """Read files of one kind, told by their suffix."""
    from wscl_embed.readers.folders import read_image_folder
    from wscl_embed.readers.tables import read_parquet
    from wscl_embed.readers.tars import read_tars

    suffixes = {path.suffix.lower() for path in paths}
    if len(paths) == 1 and (suffixes <= {".jsonl", ".csv"} or paths[0].name == "metadata.parquet"):
        return read_image_folder(paths[0].parent, paths, images=images)
    if suffixes == {".tar"}:
        return read_tars(paths)
    if suffixes == {".parquet"}:
        return read_parquet(paths, images=images)
    raise InputError(
        f"{paths[0]}: not a kind of file datasets are read from: .parquet, .tar, or one metadata file (.jsonl, .csv)."
    )


def expand(pattern: str) -> list[Path]:
    """The files a pattern stands for: ``{000..010}`` counts, ``*``, ``?`` and ``[...]`` match names.

    Raises:
        InputError: a file that is not there, nothing that matches, or braces that count down.
    """
    braces = BRACES.search(pattern)
    if braces:
        before, after = pattern[: braces.start()], pattern[braces.end() :]
        numbers = range(int(braces[1]), int(braces[2]) + 1)
        if not numbers:
            raise InputError(f"{pattern}: {braces[0]} counts down; the lower number stands first.")
        return [path for number in numbers for path in expand(f"{before}{number:0{len(braces[1])}}{after}")]
    if Path(pattern).is_file():
        return [Path(pattern)]
    found = [Path(name) for name in sorted(glob.glob(pattern))]  # noqa: PTH207 - the pattern may be absolute
    if not found:
        raise InputError(f"{pattern}: there is no such file.")
    return found
