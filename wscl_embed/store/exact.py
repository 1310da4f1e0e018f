"""`nearest`: the rows most similar to a query, each looked at, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError
from wscl_embed.extras import import_faiss

if TYPE_CHECKING:
    from wscl_embed.store.chunks import ChunkedRows

CHUNK_ROWS = 65_536
# From here on one product of matrices is faster than faiss, which goes row by row up to hundreds of queries: 4 of them
# on one thread take 8 against 9 ms each, 100 take 1 against 10 (65,536 x 512).
MANY_QUERIES = 4
QUERIES_AT_ONCE = 128  # their similarities to a chunk of rows, and the order of those, are 100 MB

Best = tuple[NDArray[np.float32], NDArray[np.int64]]


def nearest(
    queries: NDArray[np.floating],
    rows: NDArray[np.floating] | ChunkedRows,
    k: int,
    *,
    passing: NDArray[np.bool_] | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Best:
    """The k rows most similar to each query, exactly: of few queries by faiss where it is installed, else by NumPy.

    Args:
        queries: (q, D).
        rows: (n, D), read ``chunk_rows`` at a time.
        k: how many; fewer where there are not so many rows.
        passing: (n,), the rows to look at; None: all.

    Returns:
        (q, k) scores, the inner products, falling; and the (q, k) numbers of their rows.

    >>> rows = np.eye(3, dtype=np.float32)
    >>> scores, numbers = nearest(np.array([[0.0, 0.6, 0.8]]), rows, 2)
    >>> numbers.tolist(), nearest(rows[:1], rows, 2, passing=np.array([False, True, False]))[1].tolist()
    ([[2, 1]], [[1]])
    """
    wanted = np.ascontiguousarray(queries, dtype=np.float32)
    best: Best = (np.empty((len(wanted), 0), np.float32), np.empty((len(wanted), 0), np.int64))
    for start in range(0, len(rows), chunk_rows):
        inside = None if passing is None else np.flatnonzero(passing[start : start + chunk_rows])
        if inside is not None and not len(inside):
            continue
        block = rows[start : start + chunk_rows]
        block = np.ascontiguousarray(block if inside is None else block[inside], dtype=np.float32)
        scores, found = _nearest_in(wanted, block, min(k, len(block)))
        best = _merge(best, (scores, start + (found if inside is None else inside[found])), k)
    return best


def check_k(k: int) -> None:
    """Refuse a number of results below 1."""
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")


def _merge(best: Best, more: Best, k: int) -> Best:
    scores = np.concatenate([best[0], more[0]], axis=1)
    numbers = np.concatenate([best[1], more[1]], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def _nearest_in(queries: NDArray[np.float32], block: NDArray[np.float32], k: int) -> Best:
    faiss = import_faiss() if len(queries) < MANY_QUERIES else None
    if faiss is None:
        return by_numpy(queries, block, k)
    scores, numbers = faiss.knn(queries, block, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, numbers.astype(np.int64, copy=False)


def by_numpy(queries: NDArray[np.float32], block: NDArray[np.float32], k: int) -> Best:
    """`nearest` in (b, D) rows in memory, without faiss."""
    scores = np.empty((len(queries), k), np.float32)
    numbers = np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        some = slice(start, start + QUERIES_AT_ONCE)
        similarity = queries[some] @ block.T
        found = np.sort(np.argpartition(similarity, len(block) - k, axis=1)[:, len(block) - k :], axis=1)
        best = np.take_along_axis(similarity, found, axis=1)
        order = np.argsort(-best, axis=1, kind="stable")
        scores[some], numbers[some] = (np.take_along_axis(part, order, axis=1) for part in (best, found))
    return scores, numbers
