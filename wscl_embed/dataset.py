"""`load_dataset`: images and their signals from a folder, Parquet, WebDataset tars, a saved dataset or the Hub."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.errors import InputError
from wscl_embed.images import BadImageError
from wscl_embed.readers.finding import find_source
from wscl_embed.readers.source import OUTSIDE, Source, check_storable

if TYPE_CHECKING:
    import datasets


def load_dataset(
    path_or_name: str | Path, *, split: str | None = None, id_column: str = "id", images: bool = True
) -> datasets.Dataset:
    """Load images with their signals. Images are neither decoded nor, where they are files, read.

    ======================================================== ====================================================
    a folder with ``metadata.jsonl``, ``.csv``, ``.parquet`` ImageFolder; ``file_name`` is relative to that file
    such a file itself, or subfolders with one each          the same; subfolders are splits
    a folder with image files                                ImageFolder; an image's folder is its ``label``
    a ``.parquet`` file, or a folder of them                 a column of images, or of bytes
    a ``.tar``, a folder of them, or a pattern               WebDataset; ``{000..010}`` and ``*`` are patterns
    a folder written by ``Dataset.save_to_disk``             splits are joined
    any other name                                           a dataset on the Hugging Face Hub; splits are joined
    ======================================================== ====================================================

    A file name that leads out of the dataset's folder - absolute, with ``..`` or through a symbolic link - is never
    read: its row stays, and `image_source` refuses it. A missing or damaged image too is found out when it is
    decoded, so that one bad file does not stop a run; see `wscl_embed.quarantine`.

    Args:
        path_or_name: where the dataset is.
        split: only the rows with this value in the column ``split``.
        id_column: the column with the ids (strings or integers), which becomes ``id``. Where there is no ``id``, the
            file name is the id, in tars the key, in tables without file names the number of the row.
        images: False for the signals alone: then tables and metadata without images will do.

    Returns:
        A dataset with the columns ``id`` (unique strings), ``image`` (``datasets.Image(decode=False)``: each value
        has ``bytes`` and ``path``, see `image_source`; not there with ``images=False``), and all others as found.
        ``split`` is among them if the dataset has splits.

    Raises:
        InputError: nothing there that can be read, or something in it that must be mended first, with its place.

    Example::

        photos = wscl_embed.load_dataset("photos/", split="train")
        print(photos.column_names, photos[0]["id"])
    """
    with quiet():
        source = find_source(path_or_name, images=images)
        if len(source.dataset) == 0:
            raise InputError(f"{path_or_name}: the dataset is empty.")
        dataset = finish(source, id_column)
        if not images and "image" in dataset.column_names:  # not before: a dataset without columns has no rows
            dataset = dataset.remove_columns("image")
        return dataset if split is None else rows_of_split(dataset, split)


def as_dataset(data: Any, *, images: bool = True) -> datasets.Dataset:
    """The dataset a job works on, from what its caller calls ``data``.

    Args:
        data: what `load_dataset` takes, or a `datasets.Dataset` or `datasets.DatasetDict` in memory. One that
            `load_dataset` made is returned as it is. In any other the images may be decoded or not and in a column of
            any name, and the ids may be missing: then they are the images' file names, or the numbers of the rows.
        images: as for `load_dataset`.

    Returns:
        A dataset with the columns `load_dataset` gives. There is no ``image`` where no column holds images.

    Raises:
        InputError: another kind of object, or what `load_dataset` refuses: no rows, an id twice, ...

    >>> import datasets
    >>> posts = datasets.Dataset.from_dict({"tags": [["sea"], ["sea", "sun"], ["snow"]]})
    >>> as_dataset(posts.select([2, 0]))["id"][:]
    ['0', '1']
    """
    import datasets

    if isinstance(data, (str, Path)):
        return load_dataset(data, images=images)
    if not isinstance(data, (datasets.Dataset, datasets.DatasetDict)):
        raise InputError(
            f"the data is a {type(data).__name__}; give a path, a name on the Hugging Face Hub, or a datasets.Dataset. "
            'Of a list of image files, datasets.Dataset.from_dict({"image": files}).cast_column("image", '
            "datasets.Image()) makes one."
        )
    if not sum(data.num_rows.values() if isinstance(data, datasets.DatasetDict) else [data.num_rows]):
        raise InputError("the dataset is empty.")
    if isinstance(data, datasets.Dataset) and is_settled(data):
        checked_ids(data.with_format(None)["id"][:], lambda row: f"the dataset: row {row + 1}", named=True)
        return data
    from wscl_embed.readers.memory import read_memory

    with quiet():
        return finish(read_memory(data), "id")


def is_settled(dataset: datasets.Dataset) -> bool:
    """Whether ids, images and class labels are of the types in which `load_dataset` leaves them."""
    import datasets

    from wscl_embed.readers.tables import find_images

    features = dataset.features
    if features.get("id") != datasets.Value("string"):
        return False
    if any(isinstance(feature, datasets.ClassLabel) for feature in features.values()):
        return False
    wanted = None if find_images(dataset) is None else datasets.Image(decode=False)
    return bool(features.get("image") == wanted)


def image_source(image: Mapping[str, Any] | None) -> bytes | Path:
    """What `wscl_embed.images.decode_image` takes, from a value of the column ``image``.

    Raises:
        BadImageError: the path leads out of the dataset's folder, or the record has no image.

    >>> image_source({"bytes": None, "path": "images/1.jpg"}).name
    '1.jpg'
    """
    content, path = (image["bytes"], image["path"]) if image is not None else (None, None)
    if path is not None and path.startswith(OUTSIDE):
        raise BadImageError("path leaves the dataset folder")
    if content is not None:
        return bytes(content)
    if path is None:
        raise BadImageError("record has no image")
    return Path(path)


def dataset_fingerprint(dataset: datasets.Dataset) -> str:
    """SHA-256 (hex) over the rows' ids and images, in order; the same on every machine.

    Of images in memory it takes the content, of files only the size: reading them all would take as long as a run.
    """
    digest = hashlib.sha256()
    for batch in dataset.select_columns(["id", "image"]).iter(batch_size=256):
        for row_id, image in zip(batch["id"], batch["image"], strict=True):
            digest.update(json.dumps([row_id, image_identity(image)]).encode() + b"\n")
    return digest.hexdigest()


def image_identity(image: Mapping[str, Any] | None) -> str | int | None:
    """The SHA-256 of an image in memory, the size of a file, None where there is nothing to read."""
    try:
        source = image_source(image)
        return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else source.stat().st_size
    except (BadImageError, OSError, ValueError):
        return None


def assign_splits(dataset: datasets.Dataset, *, holdout: float = 0.2, seed: int = 0) -> datasets.Dataset:
    """``dataset`` with a column ``split`` of ``train`` and ``test``, unless it has one.

    An image is held out by a hash of its id, so it stays on its side whatever is added, removed or reordered; the
    share of ``test`` is ``holdout`` on average.

    Raises:
        InputError: ``holdout`` is not between 0 and 1.
    """
    if "split" in dataset.column_names:
        return dataset
    if not 0 < holdout < 1:
        raise InputError(f"holdout must lie between 0 and 1, got {holdout}.")
    splits = ["test" if unit_hash(f"{seed}:{row_id}") < holdout else "train" for row_id in dataset["id"][:]]
    return dataset.add_column("split", splits)


def hold_out(dataset: datasets.Dataset, split: str, share: float, *, seed: int = 0) -> datasets.Dataset:
    """``dataset`` with ``share`` of its rows of ``train`` in ``split``, chosen as in `assign_splits`."""
    splits = [
        split if name == "train" and unit_hash(f"{split}:{seed}:{row_id}") < share else name
        for row_id, name in zip(dataset["id"][:], dataset["split"][:], strict=True)
    ]
    with quiet():
        return dataset.remove_columns("split").add_column("split", splits)


def unit_hash(text: str) -> float:
    """A number in [0, 1) that depends on nothing but ``text``."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def finish(source: Source, id_column: str) -> datasets.Dataset:
    """Settle the ids, and put the columns in order: ``id``, ``image``, the signals, ``split``."""
    import datasets

    dataset = source.dataset
    if id_column in dataset.column_names and id_column != "image":
        texts = checked_ids(dataset.data.column(id_column).to_pylist(), source.place, named=True)
    elif id_column == "id":
        texts = checked_ids(source.fallback_ids, source.place)
    else:
        raise InputError(
            f"there is no column {id_column!r} to take the ids from. "
            f"There are: {', '.join(name for name in dataset.column_names if name != 'image')}."
        )
    dataset = dataset.remove_columns([name for name in {"id", id_column} if name in dataset.column_names])
    dataset = dataset.add_column("id", texts)
    if "image" in dataset.column_names:
        dataset = dataset.cast_column("image", datasets.Image(decode=False))
    first = [name for name in ("id", "image") if name in dataset.column_names]
    last = [name for name in ("split",) if name in dataset.column_names]
    signals = [name for name in dataset.column_names if name not in (*first, *last)]
    return dataset.select_columns([*first, *signals, *last])


def checked_ids(ids: Sequence[Any], place: Callable[[int], str], *, named: bool = False) -> list[str]:
    """The ids as strings, if each is one, HDF5 can hold it where somebody ``named`` it, and none occurs twice."""
    if named:
        check_storable(ids, place)
    texts = [id_text(value, place, row) for row, value in enumerate(ids)]
    check_unique(texts, place)
    return texts


def id_text(value: Any, place: Callable[[int], str], row: int) -> str:
    """An id as a string."""
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise InputError(f"{place(row)}: the id is {value!r}; it must be a string or an integer.")
    return str(value)


def check_unique(ids: Sequence[str], place: Callable[[int], str]) -> None:
    """See that no id occurs twice."""
    repeated = [row_id for row_id, count in Counter(ids).items() if count > 1]
    if not repeated:
        return
    shown = []
    for row_id in repeated[:3]:
        places = [place(row) for row, other in enumerate(ids) if other == row_id][:2]
        shown.append(f"{row_id!r} ({' and '.join(places)})")
    raise InputError(f"{len(repeated)} ids occur more than once, which must be unique: {', '.join(shown)}.")


def rows_of_split(dataset: datasets.Dataset, split: str) -> datasets.Dataset:
    """The records of one split, or of several; as `split_rows` finds them."""
    return dataset.select(split_rows(dataset, split))


def split_rows(dataset: datasets.Dataset, split: str) -> list[int]:
    """The row numbers of one split, or of several joined by plus signs (``val+test``).

    Raises:
        InputError: no column ``split``, or no such value in it (names those there are).
    """
    if "split" not in dataset.column_names:
        raise InputError(f"split {split!r}: the dataset has no splits (no column 'split').")
    splits = [str(value) for value in dataset.with_format(None)["split"][:]]  # dataset.data would ignore a selection
    known = set(splits)
    wanted = {split} if split in known else set(split.split("+"))
    if not wanted <= known:
        raise InputError(f"split {split!r}: the dataset has no such split. There are: {', '.join(sorted(known)[:20])}.")
    return [row for row, value in enumerate(splits) if value in wanted]


@contextmanager
def quiet() -> Iterator[None]:
    """Hugging Face libraries without progress bars, log lines and warnings for the duration of a ``with`` block."""
    import datasets
    import huggingface_hub.utils

    hub: Any = huggingface_hub.utils
    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    shown = [library for library in (datasets, hub) if not library.are_progress_bars_disabled()]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            for library in shown:
                library.disable_progress_bars()
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            for library in shown:
                library.enable_progress_bars()
