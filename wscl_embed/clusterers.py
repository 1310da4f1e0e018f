"""Rows of features to labels, by scikit-learn's contract: anything with ``fit_predict``, -1 is noise."""

from __future__ import annotations

import hashlib
import inspect
import math
import warnings
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.errors import InputError, nearest

Features: TypeAlias = "NDArray[np.floating] | sparse.csr_array"

HDBSCAN_DIMS = 24  # HDBSCAN slows and blurs in high dimension: 10k x 384 takes 52 s, reduced to 24 dims 3 s
MINI_BATCH_ROWS = 20_000
MINI_BATCH = 4_096


@runtime_checkable
class Clusterer(Protocol):
    """scikit-learn's contract: (n, F) features to (n,) integer labels, -1 for noise."""

    def fit_predict(self, X: Features) -> NDArray[np.integer]: ...


NAMES = ("exact", "hdbscan", "kmeans")


def check_clusterer(clusterer: object) -> None:
    """Raise `InputError` unless ``clusterer`` is a name `cluster_rows` knows, or an object with ``fit_predict``."""
    if isinstance(clusterer, str):
        if clusterer not in NAMES:
            raise InputError(f"unknown clusterer {clusterer!r}. {nearest(clusterer, NAMES)}")
    elif isinstance(clusterer, type) or not isinstance(clusterer, Clusterer):
        raise InputError(
            f"clusterer {clusterer!r} is neither one of {', '.join(NAMES)} nor an object with fit_predict."
        )


def cluster_rows(
    features: Features,
    clusterer: str | Clusterer,
    *,
    n_clusters: int | None = None,
    min_cluster_size: int = 5,
    seed: int = 0,
) -> NDArray[np.int64]:
    """(n,) labels of the rows of ``features`` (n, F), -1 for noise.

    Identical rows are collapsed to one with a weight wherever the clusterer takes ``sample_weight``.

    Args:
        features: (n, F) dense or CSR, n >= 1, without NaN.
        clusterer: ``kmeans`` (scikit-learn, mini-batches from 20,000 distinct rows), ``hdbscan`` (features over 24
            dimensions are reduced first), ``exact`` (one cluster per distinct row), or an object with ``fit_predict``.
        n_clusters: for ``kmeans``; default `default_n_clusters` of n. More than there are distinct rows are lowered.
        min_cluster_size: for ``hdbscan``.
        seed: for ``kmeans`` and the reduction.

    Raises:
        InputError: an unknown clusterer, or one that returns labels of another length.

    >>> cluster_rows(np.array([[0.0], [5.0], [0.0]]), "exact").tolist()
    [0, 1, 0]
    """
    check_clusterer(clusterer)
    if sparse.issparse(features):
        features = _with_short_indices(sparse.csr_array(features))
    if not isinstance(clusterer, str):
        return _fit_predict(features, clusterer)
    if clusterer == "exact":
        return collapse_rows(features)[1]
    if clusterer == "kmeans":
        k = default_n_clusters(features.shape[0]) if n_clusters is None else n_clusters
        return _kmeans(features, k, seed)
    return _hdbscan(features, min_cluster_size, seed)


def default_n_clusters(n: int) -> int:
    """How many k-means clusters for n records: 5 sqrt(n), at most a fifth of the records.

    Between 100 and 800 clusters of 6,335 titles, validation retrieval was best around 400.

    >>> default_n_clusters(6335), default_n_clusters(100)
    (398, 20)
    """
    return max(2, min(round(5 * math.sqrt(n)), n // 5))


def collapse_rows(features: Features) -> tuple[Features, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct rows (u, F) in order of appearance, the distinct row of each row (n,), how often each occurs (u,)."""
    import pandas as pd

    # Digests of 16 bytes stand for the rows, so that 200,000 wide rows are not held twice.
    if sparse.issparse(features):
        matrix = sparse.csr_array(features, copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        bounds = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        keys = [_digest(matrix.indices[a:b].tobytes() + matrix.data[a:b].tobytes()) for a, b in bounds]
    else:
        keys = [_digest((row + 0).tobytes()) for row in features]  # + 0 makes -0.0 and 0.0 the same bytes
    codes, _ = pd.factorize(np.array(keys, dtype=object))
    inverse = codes.astype(np.int64)
    _, first, counts = np.unique(inverse, return_index=True, return_counts=True)
    rows = features if len(first) == features.shape[0] else features[first]
    return rows, inverse, counts.astype(np.int64)


def _with_short_indices(matrix: sparse.csr_array) -> sparse.csr_array:
    """The same matrix with 32-bit indices where they suffice: scikit-learn refuses longer ones, SciPy makes them."""
    if max(matrix.nnz, *matrix.shape) > np.iinfo(np.int32).max:
        return matrix
    arrays = (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return sparse.csr_array(arrays, shape=matrix.shape)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _fit_predict(features: Features, clusterer: Clusterer) -> NDArray[np.int64]:
    if "sample_weight" in inspect.signature(clusterer.fit_predict).parameters:
        rows, inverse, counts = collapse_rows(features)
        weights = counts.astype(np.float64)
        labels = np.asarray(cast(Any, clusterer).fit_predict(rows, sample_weight=weights))
    else:
        rows, inverse = features, np.arange(features.shape[0])
        labels = np.asarray(clusterer.fit_predict(rows))
    if labels.shape != (rows.shape[0],):
        raise InputError(f"clusterer {clusterer!r} gave labels of shape {labels.shape} for {rows.shape[0]} rows.")
    return labels.astype(np.int64)[inverse]


def _kmeans(features: Features, n_clusters: int, seed: int) -> NDArray[np.int64]:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    rows, inverse, counts = collapse_rows(features)
    k = min(n_clusters, rows.shape[0])
    if rows.shape[0] < MINI_BATCH_ROWS:
        model = KMeans(k, n_init=1, random_state=seed)
    else:
        # Memory beyond the features themselves: one mini-batch, and its distances to the centres.
        init_size = 3 * max(MINI_BATCH, k)
        model = MiniBatchKMeans(k, n_init=1, batch_size=MINI_BATCH, init_size=init_size, random_state=seed)
    with warnings.catch_warnings():
        # Rows that differ only by rounding leave fewer than k clusters: those are the right ones.
        warnings.simplefilter("ignore", ConvergenceWarning)
        labels = model.fit_predict(rows, sample_weight=counts.astype(np.float64))
    return cast("NDArray[np.int64]", labels.astype(np.int64)[inverse])


def _hdbscan(features: Features, min_cluster_size: int, seed: int) -> NDArray[np.int64]:
    if features.shape[0] < min_cluster_size:
        return np.full(features.shape[0], -1, dtype=np.int64)
    import hdbscan
    from sklearn.decomposition import PCA, TruncatedSVD

    if features.shape[1] > HDBSCAN_DIMS:
        reduction = TruncatedSVD if sparse.issparse(features) else PCA
        dims = min(HDBSCAN_DIMS, *features.shape)
        features = reduction(dims, random_state=seed).fit_transform(features)
    dense = features.toarray() if sparse.issparse(features) else features
    # core_dist_n_jobs=1: joblib workers would outlive a killed run.
    model = hdbscan.HDBSCAN(min_cluster_size=min_cluster_size, core_dist_n_jobs=1)
    return np.asarray(model.fit_predict(np.asarray(dense, dtype=np.float64)), dtype=np.int64)
