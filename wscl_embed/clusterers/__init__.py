"""Rows of features to labels, by scikit-learn's contract: anything with ``fit_predict``, -1 is noise.

>>> import numpy as np
>>> cluster_rows(np.array([[0.0], [5.0], [0.0]]), "exact").tolist()
[0, 1, 0]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.clusterers.collapse import Features, as_rows, collapse_rows, with_short_indices
from wscl_embed.clusterers.contract import Clusterer, Clustering, fit_predict
from wscl_embed.clusterers.density import cluster_hdbscan
from wscl_embed.clusterers.kmeans import cluster_kmeans, default_n_clusters
from wscl_embed.errors import InputError, nearest

__all__ = [
    "Clusterer",
    "Clustering",
    "Features",
    "as_rows",
    "check_clusterer",
    "cluster_rows",
    "collapse_rows",
    "default_n_clusters",
    "make_clustering",
]

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
    """(n,) labels of the rows of ``features`` (n, F), -1 for noise: the ``labels`` of `make_clustering`."""
    made = make_clustering(features, clusterer, n_clusters=n_clusters, min_cluster_size=min_cluster_size, seed=seed)
    return made.labels


def make_clustering(
    features: Features,
    clusterer: str | Clusterer,
    *,
    n_clusters: int | None = None,
    min_cluster_size: int = 5,
    seed: int = 0,
) -> Clustering:
    """The `Clustering` of the rows of ``features`` (n, F).

    Identical rows are collapsed to one with a weight wherever the clusterer takes ``sample_weight``.

    Args:
        features: (n, F) dense or CSR, n >= 1, without NaN.
        clusterer: ``kmeans`` (from 20,000 distinct rows by faiss or mini-batches, see `cluster_kmeans`), ``hdbscan``
            (above 20,000 rows on a sample, see `cluster_hdbscan`), ``exact`` (one cluster per distinct row), or an
            object with ``fit_predict``, whose ``probabilities_``, if it has any, are the strengths.
        n_clusters: for ``kmeans``; default `default_n_clusters` of n. More than there are distinct rows are lowered.
        min_cluster_size: for ``hdbscan``.
        seed: for ``kmeans``, the sample and the reduction.

    Raises:
        InputError: an unknown clusterer, or one that returns labels of another length.
    """
    check_clusterer(clusterer)
    if sparse.issparse(features):
        features = with_short_indices(sparse.csr_array(features))
    if not isinstance(clusterer, str):
        return fit_predict(features, clusterer)
    if clusterer == "exact":
        return Clustering(collapse_rows(features)[1])
    if clusterer == "kmeans":
        k = default_n_clusters(features.shape[0]) if n_clusters is None else n_clusters
        return cluster_kmeans(features, k, seed)
    return cluster_hdbscan(features, min_cluster_size, seed)
