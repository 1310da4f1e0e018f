"""Datasets that were made in Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from wscl_embed.readers.source import Fence, Source
from wscl_embed.readers.tables import joined

if TYPE_CHECKING:
    import datasets


def read_memory(data: datasets.Dataset | datasets.DatasetDict) -> Source:
    """A dataset in memory, with or without images; the names of a DatasetDict become a column ``split``.

    Its image files may lie anywhere: whoever made it may read them.
    """
    import datasets

    is_dict = isinstance(data, datasets.DatasetDict)
    loaded = {name: whole_table(part) for name, part in data.items()} if is_dict else whole_table(data)
    return joined(loaded, "the dataset", Fence(Path.cwd().anchor), images=False)


def whole_table(dataset: datasets.Dataset) -> datasets.Dataset:
    """``dataset`` without a format, its Arrow table holding the rows that were selected, in their order."""
    import datasets

    dataset = dataset.with_format(None)
    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):  # else the next line decodes each image and encodes it anew
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset if dataset._indices is None else dataset.flatten_indices()
