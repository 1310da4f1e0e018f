"""Exact nearest neighbours by cosine, a chunk of queries at a time, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK_BYTES = 2**28
"""What the similarities of a chunk of queries and the neighbours found in them may take together."""

TINY = np.finfo(np.float32).tiny
MAX_CHUNK = 1024  # queries; more of them gain nothing, and their similarities leave the caches


def normalise(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """(n, D) float32 rows at unit length; a row of zeros stays one.

    >>> normalise(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    rows = np.asarray(vectors, dtype=np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # np.linalg.norm would make a copy of all rows for it
    unit: NDArray[np.float32] = rows / np.maximum(lengths, TINY)[:, None]
    return unit


def drawn(queries: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """At most ``most`` of the queries, in their order, the same ones every time; None: all.

    >>> len(drawn(np.arange(100), 10)), len(drawn(np.arange(5), 10)), len(drawn(np.arange(5), None))
    (10, 5, 5)
    """
    if most is None or len(queries) <= most:
        return queries
    return np.sort(np.random.default_rng(0).choice(queries, most, replace=False))


def unit_rows(vectors: NDArray[np.floating]) -> Tensor:
    """`normalise` as a tensor, on the current CUDA device where there is one."""
    return torch.from_numpy(normalise(vectors)).to("cuda" if torch.cuda.is_available() else "cpu")


def chunk_size(n_rows: int, bytes_per_query: int = 0) -> int:
    """How many queries at a time: their similarities to ``n_rows`` rows fit `CHUNK_BYTES`.

    Args:
        bytes_per_query: what the caller needs besides for each.

    >>> chunk_size(10), chunk_size(1_000_000), chunk_size(10**9)
    (1024, 67, 1)
    """
    return max(1, min(MAX_CHUNK, CHUNK_BYTES // (4 * n_rows + bytes_per_query)))


def nearest(queries: Tensor, rows: Tensor, k: int, own: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k most similar of ``rows`` for each query.

    Args:
        queries: (q, D) float32, unit length.
        rows: (n, D) float32, unit length, k <= n.
        own: (q,) int64, the row each query is itself, which it does not find; k <= n - 1 then.

    Returns:
        (q, k) cosine similarities, falling, and the (q, k) numbers of their rows.
    """
    similarity = queries @ rows.T
    if own is not None:
        similarity[torch.arange(len(queries), device=own.device), own] = -torch.inf
    found = similarity.topk(k, dim=1)
    return found.values, found.indices
