"""``hloc``: global descriptors as https://github.com/cvg/Hierarchical-Localization keeps them.

An HDF5 file with a group an image, by its name, and in it the dataset ``global_descriptor`` (D,). hloc's names are the
image files' relative paths: load the dataset with those as its ids.
"""

from __future__ import annotations

from pathlib import Path

from wscl_embed.errors import InputError
from wscl_embed.store import EmbeddingStore
from wscl_embed.store.hdf5_file import hdf5_file

DESCRIPTOR = "global_descriptor"
BLOCK = 8192


def write(store: EmbeddingStore, output: Path) -> None:
    """Write a group for every id.

    Raises:
        InputError: an id that is no name of an HDF5 group.
    """
    ids = store.ids
    for image_id in ids:
        if {"", ".", "..", DESCRIPTOR} & set(image_id.split("/")):
            raise InputError(f"{store.path}: the id {image_id!r} cannot name a group in HDF5, as hloc has it.")
    with hdf5_file(output, "w", libver="latest") as file:  # as hloc's own; of many small groups half the size
        for start in range(0, len(ids), BLOCK):
            for image_id, row in zip(ids[start : start + BLOCK], store.embeddings[start : start + BLOCK], strict=True):
                file.require_group(image_id).create_dataset(DESCRIPTOR, data=row)
