"""HDBSCAN: clusters by density, and noise."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from wscl_embed.clusterers.collapse import Features
from wscl_embed.clusterers.contract import Clustering, clustering

HDBSCAN_DIMS = 24  # HDBSCAN slows and blurs in high dimension: 10k x 384 takes 52 s, reduced to 24 dims 3 s


def cluster_hdbscan(features: Features, min_cluster_size: int, seed: int) -> Clustering:
    """The clusters HDBSCAN makes of the rows of ``features`` (n, F), with their strengths."""
    if features.shape[0] < min_cluster_size:
        return Clustering(np.full(features.shape[0], -1, dtype=np.int64))
    from hdbscan import HDBSCAN
    from sklearn.decomposition import PCA, TruncatedSVD

    if features.shape[1] > HDBSCAN_DIMS:
        reduction = TruncatedSVD if sparse.issparse(features) else PCA
        dims = min(HDBSCAN_DIMS, *features.shape)
        features = reduction(dims, random_state=seed).fit_transform(features)
    dense = features.toarray() if sparse.issparse(features) else features
    # core_dist_n_jobs=1: joblib workers would outlive a killed run.
    model = HDBSCAN(min_cluster_size=min_cluster_size, core_dist_n_jobs=1)
    model.fit(np.asarray(dense, dtype=np.float64))
    return clustering(model.labels_, model.probabilities_)
