"""Exact nearest neighbours by cosine, a chunk of queries at a time, in bounded memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from wscl_embed.errors import InputError

CHUNK_BYTES = 2**28
"""What the similarities of a chunk of queries and the neighbours found in them may take together."""

TINY = np.finfo(np.float32).tiny
SHORT = 1e-15  # the square of what is shorter loses digits in float32
MAX_CHUNK = 1024  # queries; more of them gain nothing, and their similarities leave the caches


def normalise(vectors: ArrayLike) -> NDArray[np.float32]:
    """(n, D) float32 rows at unit length; a row of zeros stays one.

    Raises:
        InputError: a row that is not finite (names it): in a search it would be everybody's neighbour, or nobody's.

    >>> normalise(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    with np.errstate(over="ignore", invalid="ignore"):  # looked at below
        rows = np.asarray(vectors, dtype=np.float32)
        lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))  # np.linalg.norm would make a copy of all rows for it
        unit: NDArray[np.float32] = rows / np.maximum(lengths, TINY)[:, None]
    odd = np.flatnonzero(~np.isfinite(lengths) | (lengths < SHORT))
    if len(odd):
        unit[odd] = _normalise_wide(np.asarray(vectors)[odd].astype(np.float64), odd)
    return unit


def _normalise_wide(rows: NDArray[np.float64], numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """(b, D) rows at unit length whose squares float32, or float64, may not hold; ``numbers`` are for the error."""
    largest = np.abs(rows).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        raise InputError(f"row {numbers[int(np.argmin(np.isfinite(largest)))]} of the embeddings is not finite.")
    scaled = rows / np.where(largest > 0, largest, 1)[:, None]
    lengths = np.linalg.norm(scaled, axis=1)
    return np.asarray(scaled / np.where(lengths > 0, lengths, 1)[:, None])


def drawn(queries: NDArray[np.int64], most: int | None) -> NDArray[np.int64]:
    """At most ``most`` of the queries, in their order, the same ones every time; None: all.

    >>> len(drawn(np.arange(100), 10)), len(drawn(np.arange(5), 10)), len(drawn(np.arange(5), None))
    (10, 5, 5)
    """
    if most is None or len(queries) <= most:
        return queries
    return np.sort(np.random.default_rng(0).choice(queries, most, replace=False))


def unit_rows(vectors: ArrayLike) -> Tensor:
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
