"""``ann-benchmarks``: the HDF5 file https://github.com/erikbern/ann-benchmarks reads its data sets from.

``train`` (n, D) and ``test`` (q, D) float32, ``neighbors`` (q, k) int32 rows of train, nearest first, ``distances``
(q, k) float32, here 1 - cosine; root attributes ``type``, ``distance``, ``dimension``, ``point_type``. The ids are
beside them as ``train_ids`` and ``test_ids``, which ann-benchmarks ignores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from wscl_embed.errors import InputError
from wscl_embed.store import EmbeddingStore
from wscl_embed.store.exact import nearest
from wscl_embed.store.hdf5_file import hdf5_file

BLOCK = 8192


def write(
    store: EmbeddingStore,
    output: Path,
    *,
    queries: Annotated[int, Field(ge=1)] = 1000,
    neighbors: Annotated[int, Field(ge=1)] = 100,
    seed: Annotated[int, Field(ge=0)] = 0,
) -> None:
    """Draw ``queries`` rows as test, and find their ``neighbors`` nearest among the others.

    Raises:
        InputError: not so many rows.
    """
    n, dim = store.embeddings.shape
    if n < queries + neighbors:
        raise InputError(
            f"{store.path} has {n} rows, too few for {queries} queries with {neighbors} neighbours each; "
            "give fewer, as in ann-benchmarks:queries=100,neighbors=10."
        )
    drawn = np.sort(np.random.default_rng(seed).choice(n, queries, replace=False))
    is_train = np.ones(n, dtype=np.bool_)
    is_train[drawn] = False
    rest = np.flatnonzero(is_train)
    ids = np.array([image_id.encode() for image_id in store.ids])
    test = np.asarray(store.embeddings[drawn], np.float32)
    cosines, rows = nearest(test, store.embeddings, neighbors, passing=is_train)
    with hdf5_file(output, "w") as file:
        file.attrs.update({"type": "dense", "distance": "angular", "dimension": dim, "point_type": "float"})
        train = file.create_dataset("train", (len(rest), dim), np.float32)
        for start in range(0, len(rest), BLOCK):
            train[start : start + BLOCK] = store.embeddings[rest[start : start + BLOCK]]
        file["test"] = test
        file["neighbors"] = np.searchsorted(rest, rows).astype(np.int32)
        file["distances"] = 1 - cosines
        file["train_ids"], file["test_ids"] = ids[rest], ids[drawn]
