"""What becomes of the records a clusterer calls noise: the noise policies."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.clusterers.collapse import Features
from wscl_embed.clusterers.contract import Clustering
from wscl_embed.errors import InputError, nearest

Policy: TypeAlias = Literal["instance", "drop", "nearest", "soft"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
NEARBY = 5  # clusters a noise record shares under soft: fewer than a record of several tags has
CHUNK_ENTRIES = 4_000_000  # distances held at once: 32 MB


def check_policy(policy: str) -> None:
    """Raise `InputError` unless ``policy`` is a noise policy."""
    if policy not in POLICIES:
        raise InputError(f"unknown noise policy {policy!r}. {nearest(str(policy), POLICIES)}")


def memberships(found: Clustering, features: Features, policy: str = "instance") -> sparse.csr_array:
    """The membership matrix (n, K) of a clustering with labels 0..K-1, noise treated by ``policy``.

    ============ ===================================================================================================
    ``instance`` a noise row stays empty: the record's only positive is its own other view
    ``drop``     empty as well; who trains leaves the record out
    ``nearest``  1 in the cluster of the nearest centroid (Euclidean, in the space of the features; of equals the first)
    ``soft``     shares of the 5 clusters of the nearest centroids, in inverse proportion to the squared distances and
                 of sum 1: the memberships of fuzzy c-means with m = 2 (Bezdek, Pattern Recognition with Fuzzy Objective
                 Function Algorithms, 1981). Centroids at distance 0 share all.
    ============ ===================================================================================================

    Args:
        found: n labels; its strengths, where it has any, are the memberships of the rows in a cluster.
        features: (n, F) the rows that were clustered.
        policy: one of `POLICIES`.

    >>> features = np.array([[0.0], [0.0], [9.0], [9.0], [3.0]])
    >>> found = Clustering(np.array([0, 0, 1, 1, -1]))
    >>> memberships(found, features, "nearest").toarray()[4].tolist()
    [1.0, 0.0]
    >>> [round(float(share), 3) for share in memberships(found, features, "soft").toarray()[4]]
    [0.8, 0.2]
    """
    check_policy(policy)
    n, k = len(found.labels), int(found.labels.max(initial=-1)) + 1
    inside = np.flatnonzero(found.labels >= 0)
    values = np.ones(n, dtype=np.float32) if found.strengths is None else found.strengths
    entries: list[tuple[NDArray[Any], ...]] = [(inside, found.labels[inside], values[inside])]
    noise = np.flatnonzero(found.labels < 0)
    if policy in ("nearest", "soft") and len(noise) and k:
        middle = centroids(features, found.labels, k)
        step = max(1, CHUNK_ENTRIES // k)
        for start in range(0, len(noise), step):
            rows = noise[start : start + step]
            columns, shares = _nearby(features[rows], middle, 1 if policy == "nearest" else NEARBY)
            entries.append((np.repeat(rows, columns.shape[1]), columns.ravel(), shares.ravel()))
    rows, columns, data = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    matrix = sparse.csr_array((data.astype(np.float32), (rows, columns)), shape=(n, k))
    matrix.eliminate_zeros()
    return matrix


def centroids(features: Features, labels: NDArray[np.int64], k: int) -> Any:
    """(k, F) means of the rows of each label 0..k-1, dense or CSR as ``features`` (n, F) are."""
    inside = np.flatnonzero(labels >= 0)
    share = 1 / np.bincount(labels[inside], minlength=k)[labels[inside]]
    means = sparse.csr_array((share, (labels[inside], inside)), shape=(k, len(labels)))
    return means @ features


def _nearby(rows: Features, middle: Any, count: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ``count`` nearest of K centroids to each of m rows, nearest first: their numbers and shares (m, count)."""
    from sklearn.metrics.pairwise import euclidean_distances

    squared = np.asarray(euclidean_distances(rows, middle, squared=True), dtype=np.float64)  # (m, K)
    columns = np.argsort(squared, axis=1, kind="stable")[:, :count]
    return columns, inverse_shares(np.take_along_axis(squared, columns, axis=1))


def inverse_shares(squared: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m, c) shares in inverse proportion to (m, c) squared distances, each row of sum 1; zeros share all.

    >>> inverse_shares(np.array([[1.0, 4.0], [0.0, 4.0]])).tolist()
    [[0.8, 0.2], [1.0, 0.0]]
    """
    least = squared.min(axis=1, keepdims=True)
    zero = squared == 0
    # Relative to the least distance, so that neither tiny nor huge squares overflow.
    ratios = np.divide(least, squared, out=zero.astype(np.float64), where=~zero)
    weights = np.where(zero.any(axis=1, keepdims=True), zero, ratios)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))
