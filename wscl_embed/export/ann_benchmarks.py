"""``ann-benchmarks``: the HDF5 file https://github.com/erikbern/ann-benchmarks reads its data sets from.

``train`` (n, D) and ``test`` (q, D) float32, ``neighbors`` (q, k) int32 rows of train, nearest first, ``distances``
(q, k) float32, here 1 - cosine; root attributes ``type``, ``distance``, ``dimension``, ``point_type``. The ids are
beside them as ``train_ids`` and ``test_ids``, which ann-benchmarks ignores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from wscl_embed.errors import InputError
from wscl_embed.store import EmbeddingStore
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
    rest = np.setdiff1d(np.arange(n), drawn, assume_unique=True)
    ids = np.array([image_id.encode() for image_id in store.ids])
    test = np.asarray(store.embeddings[drawn], np.float32)
    best = Nearest(test, neighbors)
    with hdf5_file(output, "w") as file:
        file.attrs.update({"type": "dense", "distance": "angular", "dimension": dim, "point_type": "float"})
        train = file.create_dataset("train", (len(rest), dim), np.float32)
        for start in range(0, len(rest), BLOCK):
            block = np.asarray(store.embeddings[rest[start : start + BLOCK]], np.float32)
            train[start : start + BLOCK] = block
            best.add(block, start)
        file["test"] = test
        file["neighbors"] = best.rows.astype(np.int32)
        file["distances"] = 1 - best.cosines
        file["train_ids"], file["test_ids"] = ids[rest], ids[drawn]


class Nearest:
    """The exact k nearest of each query, (q, k) ``rows`` and ``cosines``, from blocks of rows; of equals the first."""

    def __init__(self, queries: NDArray[np.float32], k: int) -> None:
        self._queries = queries
        self._k = k
        self.rows = np.zeros((len(queries), 0), np.int64)
        self.cosines = np.zeros((len(queries), 0), np.float32)

    def add(self, block: NDArray[np.float32], start: int) -> None:
        """Look at (b, D) further rows, which begin with row ``start``."""
        cosines = np.concatenate([self.cosines, self._queries @ block.T], axis=1)
        numbers = np.broadcast_to(np.arange(start, start + len(block)), (len(self._queries), len(block)))
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : self._k]  # those found before come first: lower rows
        self.rows = np.take_along_axis(np.concatenate([self.rows, numbers], axis=1), order, axis=1)
        self.cosines = np.take_along_axis(cosines, order, axis=1)
