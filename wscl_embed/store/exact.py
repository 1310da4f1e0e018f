"""`nearest`: the rows most similar to a query, each looked at, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wscl_embed.extras import import_faiss

if TYPE_CHECKING:
    import h5py

CHUNK_ROWS = 65_536

Best = tuple[NDArray[np.float32], NDArray[np.int64]]


def nearest(
    queries: NDArray[np.floating],
    rows: NDArray[np.floating] | h5py.Dataset,
    k: int,
    *,
    passing: NDArray[np.bool_] | None = None,
    chunk_rows: int = CHUNK_ROWS,
) -> Best:
    """The k rows most similar to each query, exactly: by faiss where it is installed, else by NumPy.

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


def _merge(best: Best, more: Best, k: int) -> Best:
    scores = np.concatenate([best[0], more[0]], axis=1)
    numbers = np.concatenate([best[1], more[1]], axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def _nearest_in(queries: NDArray[np.float32], block: NDArray[np.float32], k: int) -> Best:
    faiss = import_faiss()
    if faiss is None:
        return by_numpy(queries, block, k)
    scores, numbers = faiss.knn(queries, block, k, metric=faiss.METRIC_INNER_PRODUCT)
    return scores, numbers.astype(np.int64, copy=False)


def by_numpy(queries: NDArray[np.float32], block: NDArray[np.float32], k: int) -> Best:
    """`nearest` in (b, D) rows in memory, without faiss."""
    similarity = queries @ block.T
    numbers = np.sort(np.argpartition(-similarity, k - 1, axis=1)[:, :k], axis=1)
    scores = np.take_along_axis(similarity, numbers, axis=1)
    order = np.argsort(-scores, axis=1, kind="stable")
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1).astype(np.int64)
