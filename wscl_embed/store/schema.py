"""What an embedding file must hold to be one; ``docs/hdf5.md`` in code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wscl_embed.errors import InputError
from wscl_embed.store.container import FORMAT, FORMAT_VERSION
from wscl_embed.store.rows import HASH_BYTES

if TYPE_CHECKING:
    import h5py

READABLE = (1, FORMAT_VERSION)  # 1: /embeddings in chunks, /ids of variable length, no /content_hash
ROOT: dict[str, Any] = {"format": str, "format_version": (int, np.integer), "complete": (bool, np.bool_)}
KINDS = {
    "embeddings": "f",
    "ids": "SO",
    "content_hash": "u",
    "text/embeddings": "f",
    "text/content_hash": "u",
    "clusters/labels": "i",
}
"""The kind of values (`numpy.dtype.kind`) of each dataset that is read whole or mapped."""


def check_schema(file: h5py.File, path: Path) -> None:
    """See that the datasets of a file are those of an embedding file, and as many rows each.

    Raises:
        InputError: another format or version, a file that was never completed, or a dataset of another type or shape
            (names it).
    """
    found = {name: file.attrs.get(name) for name in ROOT}
    known = all(isinstance(found[name], kind) for name, kind in ROOT.items())
    if not known or found["format"] != FORMAT or found["format_version"] not in READABLE or not found["complete"]:
        raise InputError(
            f"{path}: not a complete embedding file of version {FORMAT_VERSION} (format {found['format']!r}, version "
            f"{found['format_version']}, complete {found['complete']})."
        )
    things = {name: file.get(name) for name in KINDS}
    for name, thing in things.items():
        if thing is not None and getattr(thing, "dtype", np.dtype("V1")).kind not in KINDS[name]:
            raise InputError(f"{path}: /{name} holds another kind of values than an embedding file has there.")
    for name in ("embeddings", "text/embeddings"):
        if things[name] is not None and things[name].dtype not in (np.float32, np.float16):
            raise InputError(f"{path}: /{name} holds another type of numbers than float32 or float16.")
    check_shapes({name: None if thing is None else thing.shape for name, thing in things.items()}, path)


def check_shapes(shapes: dict[str, Any], path: Path) -> None:
    """See that all of an embedding file's datasets are about the same rows."""
    rows = shapes["embeddings"]
    if rows is None or len(rows) != 2:
        raise InputError(f"{path}: /embeddings is not an (N, D) dataset of float32 or float16.")
    hashes = (rows[0], HASH_BYTES)
    wanted = {"ids": rows[:1], "clusters/labels": rows[:1], "content_hash": hashes}
    wanted |= {"text/embeddings": rows, "text/content_hash": hashes}
    needed = {"ids"}
    if shapes["text/embeddings"] is not None or shapes["text/content_hash"] is not None:
        needed |= {"text/embeddings", "text/content_hash"}
    for name, shape in wanted.items():
        if shapes[name] != shape and (name in needed or shapes[name] is not None):
            raise InputError(
                f"{path}: the datasets do not belong to one another: /{name} has the shape {shapes[name]}, not {shape}."
            )
