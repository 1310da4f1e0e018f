"""k-means over distinct rows with weights: Lloyd's for thousands, faiss or mini-batches beyond."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.clusterers.collapse import COLLAPSE_BYTES, Features, collapse_rows, collapsed_bytes
from wscl_embed.clusterers.contract import Clustering
from wscl_embed.extras import import_faiss
from wscl_embed.progress import console

LARGE_ROWS = 20_000  # distinct rows from which Lloyd's algorithm of scikit-learn gives way
MINI_BATCH = 4_096
# From k-means++ centres 10 iterations suffice; from random ones faiss ends far above MiniBatchKMeans' inertia
# (benchmarks/LOG.md).
FAISS_ITERATIONS = 10
ROWS_PER_CENTRE = 256  # more are drawn from: the centres' error adds 1/256 to the inertia
ROWS_AT_ONCE = 8_192
SPARSE_AS_DENSE = (
    2**30
)  # bytes of sparse rows that may become dense for faiss; beyond, MiniBatchKMeans takes them sparse


def default_n_clusters(n: int) -> int:
    """How many k-means clusters for n records: 5 sqrt(n), at most a fifth of the records.

    Between 100 and 800 clusters of 6,335 titles, validation retrieval was best around 400.

    >>> default_n_clusters(6335), default_n_clusters(100)
    (398, 20)
    """
    return max(2, min(round(5 * math.sqrt(n)), n // 5))


def cluster_kmeans(features: Features, n_clusters: int, seed: int) -> Clustering:
    """At most ``n_clusters`` clusters of the rows of ``features`` (n, F), and no noise.

    Below `LARGE_ROWS` distinct rows scikit-learn's KMeans; from there faiss where it is installed (the extra
    ``faiss``), scikit-learn's MiniBatchKMeans where it is not or where sparse rows would take over 1 GiB as dense ones.
    A line on stderr says which, and about how much memory it takes beyond the features.
    """
    rows, inverse, counts = collapse_rows(features)
    k = min(n_clusters, rows.shape[0])
    weights = counts.astype(np.float64)
    if rows.shape[0] < LARGE_ROWS:
        return Clustering(_lloyd(rows, weights, k, seed)[inverse])
    faiss = import_faiss()
    if faiss is None or (sparse.issparse(rows) and training_bytes(rows, k) > SPARSE_AS_DENSE):
        why = " (pip install 'wscl-embed[faiss]' for faiss)" if faiss is None else ""
        _say(f"scikit-learn's mini-batches{why}", features, rows, k, mini_batch_bytes(rows, k))
        return Clustering(_mini_batches(rows, weights, k, seed)[inverse])
    _say("faiss", features, rows, k, faiss_bytes(rows, k))
    return Clustering(_faiss(faiss, rows, weights, k, seed)[inverse])


def training_bytes(rows: Features, k: int) -> int:
    """Bytes of the float32 rows faiss is trained on: at most `ROWS_PER_CENTRE` a cluster."""
    return int(4 * min(rows.shape[0], ROWS_PER_CENTRE * k) * rows.shape[1])


def faiss_bytes(rows: Features, k: int) -> int:
    """About what `_faiss` holds beyond ``rows``: training rows, the seeds (more than a block), centres, 32 MB."""
    u, width = int(rows.shape[0]), int(rows.shape[1])
    return training_bytes(rows, k) + 12 * min(u, start_rows(k)) * width + 12 * k * width + 2**25


def start_rows(k: int) -> int:
    """How many rows the first centres are drawn from. A third of that ended above MiniBatchKMeans' inertia
    (benchmarks/LOG.md)."""
    return max(3 * MINI_BATCH, 10 * k)


def mini_batch_bytes(rows: Features, k: int) -> int:
    """About what `_mini_batches` holds beyond ``rows``: those it starts from twice, a batch, four times the centres."""
    drawn = MINI_BATCH + 2 * 3 * max(MINI_BATCH, k)
    width = 1.5 * rows.nnz / rows.shape[0] if sparse.issparse(rows) else rows.shape[1]
    return int(rows.dtype.itemsize * (drawn * width + 4 * k * rows.shape[1]))


def _say(how: str, features: Features, rows: Features, k: int, needed: int) -> None:
    needed = max(needed, COLLAPSE_BYTES * features.shape[0]) + collapsed_bytes(features, rows)
    console().print(
        f"k-means on {features.shape[0]:,} x {features.shape[1]} ({rows.shape[0]:,} distinct rows), {k:,} clusters, by "
        f"{how}: about {needed / 1e6:,.0f} MB beyond the features",
        markup=False,
        soft_wrap=True,
    )


def _lloyd(rows: Features, weights: NDArray[np.float64], k: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans

    def start(centred: Features, k: int, random_state: np.random.RandomState) -> NDArray[np.float64]:
        return _plusplus(centred, weights, k, random_state)

    return _labels(KMeans(k, init=start, n_init=1, random_state=seed), rows, weights)


def _mini_batches(rows: Features, weights: NDArray[np.float64], k: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import MiniBatchKMeans

    init_size = 3 * max(MINI_BATCH, k)
    model = MiniBatchKMeans(k, n_init=1, batch_size=MINI_BATCH, init_size=init_size, random_state=seed)
    return _labels(model, rows, weights)


def _labels(model: Any, rows: Features, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Rows that differ only by rounding leave fewer than k clusters: those are the right ones.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(model.fit_predict(rows, sample_weight=weights), dtype=np.int64)


def _faiss(faiss: Any, rows: Features, weights: NDArray[np.float64], k: int, seed: int) -> NDArray[np.int64]:
    """Lloyd's iterations of faiss from k-means++ centres (Arthur, Vassilvitskii, 2007), on a sample of many rows."""
    rng = np.random.default_rng(seed)
    u, middle = rows.shape[0], np.asarray(rows.mean(axis=0), dtype=np.float64).ravel()
    drawn = _draw(rng, u, ROWS_PER_CENTRE * k)
    train, importance = _block(rows, drawn, middle), weights[drawn].astype(np.float32)
    seeds = _draw(rng, len(drawn), start_rows(k))
    start = _plusplus(train[seeds], weights[drawn][seeds], k, seed)
    # 1 point a centre, not 39: faiss would print a warning. Its own seed draws for centres left without rows.
    model = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=FAISS_ITERATIONS,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=ROWS_PER_CENTRE,
    )
    model.train(train, weights=importance, init_centroids=np.ascontiguousarray(start, dtype=np.float32))
    del train
    labels = np.empty(u, dtype=np.int64)
    for begin in range(0, u, ROWS_AT_ONCE):
        some = np.arange(begin, min(u, begin + ROWS_AT_ONCE))
        labels[some] = model.index.search(_block(rows, some, middle), 1)[1][:, 0]
    return labels


def _plusplus(
    rows: Features, weights: NDArray[np.float64], k: int, seed: int | np.random.RandomState
) -> NDArray[np.float64]:
    """(k, F) centres by k-means++. In float64: other rows scikit-learn makes float64 anew for each centre."""
    from sklearn.cluster import kmeans_plusplus

    centres, _ = kmeans_plusplus(rows.astype(np.float64), k, sample_weight=weights, random_state=seed)
    return np.asarray(centres)


def _draw(rng: np.random.Generator, n: int, count: int) -> NDArray[np.int64]:
    """``count`` of 0..n-1, ascending; all when there are no more."""
    return np.arange(n) if n <= count else np.sort(rng.choice(n, count, replace=False))


def _block(rows: Features, picked: NDArray[np.int64], middle: NDArray[np.float64]) -> NDArray[np.float32]:
    """Some rows as float32 around their mean: faiss computes |x|^2 - 2xy + |y|^2, which far from zero is rounding."""
    block = np.empty((len(picked), rows.shape[1]), dtype=np.float32)
    for start in range(0, len(picked), ROWS_AT_ONCE):
        some: Any = rows[picked[start : start + ROWS_AT_ONCE]]
        dense = np.asarray(some.toarray() if sparse.issparse(rows) else some)
        block[start : start + len(dense)] = dense - middle.astype(dense.dtype)
    return block
