"""Datasets that are tables already: Parquet shards, `Dataset.save_to_disk`, the Hugging Face Hub."""

from __future__ import annotations

import glob
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wscl_embed.errors import InputError
from wscl_embed.readers.parquet import rows_and_columns
from wscl_embed.readers.source import (
    OUTSIDE,
    SPLIT_NAMES,
    Fence,
    Source,
    image_column,
    innermost,
    not_cached,
    unstorable,
)

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

BINARY_COLUMNS = ("image", "jpg", "jpeg", "png", "webp", "image_bytes")
SHARD = re.compile(r"([A-Za-z]+)-\d+-of-\d+")


def read_parquet(paths: Sequence[Path], *, images: bool = True) -> Source:
    """Parquet files with image bytes, memory-mapped from the cache of Hugging Face ``datasets``.

    Where all are named like shards of splits (``train-00000-of-00002.parquet``), they become a column ``split``. An
    image that has a path but no bytes is looked for beside the first file, and nowhere outside that folder.

    Raises:
        InputError: a file that is no Parquet or whose columns differ from the first one's; no column with images.
    """
    import datasets
    import pyarrow as pa

    sizes: list[int] = []
    first: list[str] = []
    for path in paths:
        try:
            size, columns = rows_and_columns(path)
            sizes.append(size)
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"{path}: not a Parquet file that can be read ({innermost(error)}).") from error
        first = first or columns
        if set(columns) != set(first):
            odd = sorted(set(columns) ^ set(first))
            raise InputError(f"{path}: its columns differ from those of {paths[0]}: {', '.join(odd)}.")
    if sum(sizes) == 0:
        raise InputError(f"{paths[0]}: the dataset is empty.")
    try:
        # `datasets` stumbles over files without rows, and takes names for patterns: `[1]` would read what is in `1`.
        filled = [glob.escape(str(path)) for path, size in zip(paths, sizes, strict=True) if size]
        dataset = datasets.Dataset.from_parquet(filled)
    except Exception as error:  # `datasets` wraps what went wrong, in kinds that differ between its versions.
        others = f" and the {len(paths) - 1} files beside it" if len(paths) > 1 else ""
        raise not_cached(error, f"{paths[0]}{others}: cannot be read") from error
    dataset = with_images(dataset, paths[0], Fence(paths[0].parent), base=paths[0].parent, images=images)
    shards = [SHARD.match(path.name) for path in paths]
    splits = [SPLIT_NAMES.get(match[1].lower(), "") if match else "" for match in shards]
    if all(splits) and "split" not in dataset.column_names:
        dataset = dataset.add_column("split", np.repeat(splits, sizes).tolist())
    ends = np.cumsum(sizes)

    def place(row: int) -> str:
        file = int(np.searchsorted(ends, row, side="right"))
        return f"{paths[file]}: row {row - int(ends[file]) + sizes[file] + 1}"

    return Source(dataset, path_ids(dataset), place)


def read_saved(folder: Path, *, images: bool = True) -> Source:
    """A folder written by `Dataset.save_to_disk`; the names of a DatasetDict become a column ``split``."""
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # As in `read_parquet`.
        raise InputError(f"{folder}: a saved dataset that cannot be read ({innermost(error)}).") from error
    return joined(loaded, folder, Fence(folder), images=images)


def read_hub(name: str, *, images: bool = True) -> Source:
    """All splits of a dataset on the Hugging Face Hub. Code that comes with a dataset is never run.

    Raises:
        InputError: not found, not allowed, or offline.
    """
    import datasets
    import huggingface_hub

    options: dict[str, Any] = {}
    if "trust_remote_code" in inspect.signature(datasets.load_dataset).parameters:  # datasets 3
        options["trust_remote_code"] = False
    try:
        loaded = datasets.load_dataset(name, **options)
    except Exception as error:  # It raises a dozen kinds: not found, no network, gated, a configuration to choose, ...
        raise InputError(
            f"{name}: there is no such file or folder, and no such dataset could be had from the Hugging Face Hub "
            f"({innermost(error)})."
        ) from error
    fence = Fence(datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE)
    return joined(loaded, name, fence, images=images)


def joined(
    loaded: datasets.Dataset | Mapping[str, datasets.Dataset], name: str | Path, fence: Fence, *, images: bool = True
) -> Source:
    """One dataset of all splits, with their names in a column ``split``. A row without a name gets a number as id."""
    import datasets

    if not isinstance(loaded, Mapping):
        dataset = with_images(loaded, name, fence, images=images)
        return Source(dataset, path_ids(dataset), lambda row: f"{name}: row {row + 1}")
    parts = []
    for split, part in loaded.items():
        part = with_images(part, f"{name}: {split}", fence, images=images)
        part = part.remove_columns([column for column in ["split"] if column in part.column_names])
        parts.append(part.add_column("split", [str(split)] * len(part)))
    try:
        dataset = datasets.concatenate_datasets(parts)
    except ValueError as error:
        raise InputError(f"{name}: its splits differ in their columns ({innermost(error)}).") from error
    rows = [f"{split}/{row}" for split, part in zip(loaded, parts, strict=True) for row in range(len(part))]
    return Source(dataset, path_ids(dataset, rows), lambda row: f"{name}: {rows[row]}")


def with_images(
    dataset: datasets.Dataset, name: str | Path, fence: Fence, base: Path | None = None, *, images: bool = True
) -> datasets.Dataset:
    """``dataset`` with its images in ``image`` as struct<bytes, path>, class labels as their names.

    An image without bytes is one on disk. With ``base`` its path is relative to that folder; without, it is as
    `datasets` wrote it. Either way, a path outside ``fence`` begins with `OUTSIDE`. Without ``images``, a dataset that
    has none will do.
    """
    import datasets
    import pyarrow as pa

    try:
        dataset.data.validate(full=True)  # strings that are no text, offsets that lead out of a mapped file
    except pa.ArrowException as error:
        raise InputError(f"{name}: damaged data ({innermost(error)}).") from error
    found = find_images(dataset)
    if found is None and images:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in dataset.features.arrow_schema)
        raise InputError(
            f"{name}: no column with images: none is a struct of bytes and path, nor a binary column called "
            f"{', '.join(BINARY_COLUMNS)}. There are: {kinds}."
        )
    if found != "image" and "image" in dataset.column_names:  # such as the address an image came from
        dataset = dataset.rename_column("image", "image_other")
    if found is not None and found != "image":
        dataset = dataset.rename_column(found, "image")
    if found is not None and pa.types.is_large_binary(dataset.features.arrow_schema.field("image").type):
        dataset = dataset.cast_column("image", datasets.Value("binary"))  # `datasets` before 5.2 makes no images of it
    for column, feature in dataset.features.items():
        if column == "image" or isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(column, datasets.Image(decode=False))
        elif isinstance(feature, datasets.ClassLabel):
            labels = [class_name(feature, value) for value in dataset.data.column(column).to_pylist()]
            dataset = dataset.remove_columns([column]).add_column(column, labels)

    def fenced(path: str) -> str:
        if base is not None:
            return fence.locate(base, path)
        return path if fence.holds(path) else OUTSIDE + path

    return dataset if found is None else with_paths(dataset, fenced)


def find_images(dataset: datasets.Dataset) -> str | None:
    """The column with the images: a struct of bytes and path (``image`` before others), or one of `BINARY_COLUMNS`."""
    import datasets
    import pyarrow as pa

    schema = dataset.features.arrow_schema
    for column in sorted(dataset.column_names, key=lambda column: column != "image"):
        kind = schema.field(column).type
        fields = {kind.field(index).name for index in range(kind.num_fields)} if pa.types.is_struct(kind) else None
        if fields == {"bytes", "path"} and not isinstance(dataset.features[column], datasets.Audio):
            return str(column)
    for column in BINARY_COLUMNS:
        if column in dataset.column_names and is_binary(schema.field(column).type):
            return column
    return None


def is_binary(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds bytes."""
    import pyarrow as pa

    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def class_name(feature: datasets.ClassLabel, value: int | None) -> str | None:
    """The name behind a class number; None for no class, which Hugging Face writes as null or -1."""
    return None if value is None or value < 0 else str(feature.int2str(value))


def with_paths(dataset: datasets.Dataset, change: Callable[[str], str]) -> datasets.Dataset:
    """``dataset`` with ``change`` applied to the path of each image that has no bytes."""
    import datasets
    import pyarrow as pa
    import pyarrow.compute as pc

    images = dataset.data.column("image")
    contents, paths = pc.struct_field(images, "bytes"), pc.struct_field(images, "path")
    on_disk = pc.and_(pc.is_null(contents), pc.is_valid(paths))
    if not pc.any(on_disk).as_py():
        # The usual case, and the reason to look first: the images stay memory-mapped.
        return dataset
    changed = [
        change(path) if is_on_disk else path
        for path, is_on_disk in zip(paths.to_pylist(), on_disk.to_pylist(), strict=True)
    ]
    column = image_column(changed, pa.concat_arrays(contents.chunks))
    images_only = datasets.Dataset(pa.table({"image": column})).cast_column("image", datasets.Image(decode=False))
    return datasets.concatenate_datasets([dataset.remove_columns(["image"]), images_only], axis=1)


def path_ids(dataset: datasets.Dataset, otherwise: Sequence[str] | None = None) -> Sequence[str]:
    """Ids of a dataset without an id column: the images' paths, if they can tell images apart on any machine and HDF5
    can hold them.

    Else ``otherwise``, or the numbers of the rows, from 0.
    """
    import pyarrow.compute as pc

    if "image" not in dataset.column_names:
        return otherwise or [str(row) for row in range(len(dataset))]
    paths = pc.struct_field(dataset.data.column("image"), "path").to_pylist()
    good = all(
        path and not Path(path).is_absolute() and not path.startswith(OUTSIDE) and not unstorable(path)
        for path in paths
    )
    if good and len(set(paths)) == len(paths):
        return paths  # type: ignore[no-any-return]
    return otherwise or [str(row) for row in range(len(dataset))]
