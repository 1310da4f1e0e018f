"""HDBSCAN: clusters by density, and noise. Beyond 20,000 rows it is trained on a sample and the rest is assigned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.clusterers.collapse import COLLAPSE_BYTES, Features, collapse_rows, collapsed_bytes, row_bytes
from wscl_embed.clusterers.contract import Clustering, clustering
from wscl_embed.progress import console, track

Reduction: TypeAlias = "Callable[[Features], NDArray[np.float64]]"

HDBSCAN_DIMS = 24  # HDBSCAN slows and blurs in high dimension: 10k x 384 takes 52 s, reduced to 24 dims 3 s
# Time grows with the square: 20,000 x 24 take 14 s of one core, 50,000 over 100 s.
EXACT_ROWS = 20_000
LEAST_IN_SAMPLE = 5  # fewer neighbours than that are no estimate of a density
PREDICTED_AT_ONCE = 10_000
TREE_BYTES = 1_000  # a row of at most 24 dimensions


def cluster_hdbscan(features: Features, min_cluster_size: int, seed: int) -> Clustering:
    """The clusters HDBSCAN makes of the rows of ``features`` (n, F), with their strengths.

    Campello, Moulavi, Sander, "Density-Based Clustering Based on Hierarchical Density Estimates", 2013, in the
    library hdbscan. Over 24 dimensions are reduced first (PCA; truncated SVD of sparse rows).

    Above `EXACT_ROWS` rows it sees that many of them, drawn by ``seed``, and the others get the label, or the noise,
    that ``hdbscan.approximate_predict`` gives them. A cluster of c rows has about c times the sample's share rows in
    the sample, so ``min_cluster_size`` is scaled by that share, but not below 5 (or what was asked, if less): clusters
    that are smaller than 5 rows in the sample are not found, and the line that is printed says how many rows of the
    data that makes.
    """
    n = features.shape[0]
    if n < min_cluster_size:
        return Clustering(np.full(n, -1, dtype=np.int64))
    if n <= EXACT_ROWS:
        model = _fit(_reduction(features, seed)(features), min_cluster_size)
        return clustering(model.labels_, model.probabilities_)
    return _sampled(features, min_cluster_size, seed)


def _sampled(features: Features, min_cluster_size: int, seed: int) -> Clustering:
    """Train on some rows and assign the others."""
    n = features.shape[0]
    sample = np.sort(np.random.default_rng(seed).choice(n, EXACT_ROWS, replace=False))
    distinct, inverse, _ = collapse_rows(features)
    share = len(sample) / n
    size = scaled_size(min_cluster_size, share)
    # The sample twice, for its reduction has a centred copy; the trees of hdbscan; the digests of all rows.
    needed = 2 * len(sample) * row_bytes(features) + TREE_BYTES * len(sample) + COLLAPSE_BYTES * n
    console().print(
        f"hdbscan on {n:,} x {features.shape[1]}: trained on {len(sample):,} records drawn at random, with "
        f"min_cluster_size {size} (clusters below about {round(size / share):,} records are not found), the others are "
        f"assigned; about {(needed + collapsed_bytes(features, distinct)) / 1e6:,.0f} MB beyond the features",
        markup=False,
        soft_wrap=True,
    )
    seen = features[sample]
    reduce = _reduction(seen, seed)
    model = _fit(reduce(seen), size)
    if model.labels_.max() < 0:
        return Clustering(np.full(n, -1, dtype=np.int64))
    model.generate_prediction_data()
    made = _assign(model, distinct, inverse, sample, reduce)
    others = np.delete(made.labels, sample)
    console().print(f"hdbscan: {(others >= 0).mean():.1%} of the {len(others):,} others got a cluster", markup=False)
    return made


def scaled_size(min_cluster_size: int, share: float) -> int:
    """The ``min_cluster_size`` for a sample that is ``share`` of the data.

    >>> scaled_size(100, 0.5), scaled_size(100, 0.01), scaled_size(3, 0.1)
    (50, 5, 3)
    """
    return max(min(LEAST_IN_SAMPLE, min_cluster_size), round(min_cluster_size * share))


def _assign(
    model: Any, distinct: Features, inverse: NDArray[np.int64], sample: NDArray[np.int64], reduce: Reduction
) -> Clustering:
    """The model's own labels for ``sample`` and rows identical to one of it, predicted ones for the others."""
    from hdbscan import approximate_predict

    labels = np.zeros(distinct.shape[0], dtype=np.int64)
    strengths = np.zeros(distinct.shape[0])
    labels[inverse[sample]], strengths[inverse[sample]] = model.labels_, model.probabilities_
    todo = np.setdiff1d(np.arange(distinct.shape[0]), inverse[sample])
    with track("hdbscan assigns", len(todo)) as advance:
        for start in range(0, len(todo), PREDICTED_AT_ONCE):
            rows = todo[start : start + PREDICTED_AT_ONCE]
            labels[rows], strengths[rows] = approximate_predict(model, reduce(distinct[rows]))
            advance(len(rows))
    return clustering(labels[inverse], strengths[inverse])


def _fit(rows: NDArray[np.float64], min_cluster_size: int) -> Any:
    from hdbscan import HDBSCAN

    # core_dist_n_jobs=1: joblib workers would outlive a killed run.
    return HDBSCAN(min_cluster_size=min_cluster_size, core_dist_n_jobs=1).fit(rows)


def _reduction(rows: Features, seed: int) -> Reduction:
    """From rows (m, F) to float64 (m, at most 24), as fitted to ``rows``."""
    from sklearn.decomposition import PCA, TruncatedSVD

    if rows.shape[1] <= HDBSCAN_DIMS:
        return _dense
    reduction = TruncatedSVD if sparse.issparse(rows) else PCA
    model = reduction(min(HDBSCAN_DIMS, *rows.shape), random_state=seed).fit(rows)
    return lambda given: _dense(model.transform(given))


def _dense(rows: Features) -> NDArray[np.float64]:
    return np.asarray(rows.toarray() if sparse.issparse(rows) else rows, dtype=np.float64)
