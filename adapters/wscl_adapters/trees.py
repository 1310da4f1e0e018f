"""Features to levels of nested clusters: hierarchical k-means, or HDBSCAN's condensed tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.clusterers import Features, cluster_rows

HDBSCAN_DIMS = 24  # as for the flat clusterer


def level_sizes(finest: int, levels: int) -> list[int]:
    """How many clusters each of ``levels`` has, coarse to fine, where every cluster has as many children as another.

    >>> level_sizes(398, 3)
    [7, 54, 398]
    """
    return [max(2, round(finest ** (level / levels))) for level in range(1, levels + 1)]


def kmeans_levels(features: Features, counts: Sequence[int], seed: int) -> list[NDArray[np.int64]]:
    """Labels (n,) of each level, coarse to fine: k-means, and k-means again within each of its clusters.

    Args:
        features: (n, F).
        counts: clusters of each level, ascending; a cluster has children in proportion to its rows, and at least one.
        seed: of k-means.
    """
    n = features.shape[0]
    levels = [np.zeros(n, dtype=np.int64)]
    for count in counts:
        finer = np.zeros(n, dtype=np.int64)
        begin = 0
        for cluster in np.unique(levels[-1]):
            rows = np.flatnonzero(levels[-1] == cluster)
            k = max(1, round(count * len(rows) / n))
            labels = cluster_rows(features[rows], "kmeans", n_clusters=k, seed=seed)
            finer[rows] = begin + labels
            begin += int(labels.max()) + 1
        levels.append(finer)
    return levels[1:]


def density_levels(
    features: Features, counts: Sequence[int] | None, levels: int, min_cluster_size: int, seed: int
) -> list[NDArray[np.int64]]:
    """Labels (n,) of each level, coarse to fine, -1 for noise, from HDBSCAN's condensed tree.

    The last level has the leaves. A coarser one for k clusters opens the tree from its root, replacing clusters by
    their children, until none that can be opened holds more than n / k rows. A row that leaves a cluster before the
    next split belongs to the levels above it, and to none below.

    Args:
        features: (n, F).
        counts: k of each level but the last, whose entry does not count; default `level_sizes` of the leaves.
        levels: how many, where counts are not given.
        min_cluster_size: of HDBSCAN.
        seed: of the reduction of features in more than 24 dimensions.
    """
    n = features.shape[0]
    if n < min_cluster_size:
        return [np.full(n, -1, dtype=np.int64)] * levels
    tree = CondensedTree(condensed_tree(features, min_cluster_size, seed), n)
    chosen = counts or level_sizes(tree.n_leaves, levels)
    return [tree.labels(largest=n / count) for count in chosen[:-1]] + [tree.labels(largest=0)]


def condensed_tree(features: Features, min_cluster_size: int, seed: int) -> NDArray[np.void]:
    """HDBSCAN's condensed tree: edges with ``parent``, ``child``, ``child_size``; children below n are rows."""
    from hdbscan import HDBSCAN
    from sklearn.decomposition import PCA, TruncatedSVD

    if features.shape[1] > HDBSCAN_DIMS:
        reduction = TruncatedSVD if sparse.issparse(features) else PCA
        features = reduction(min(HDBSCAN_DIMS, *features.shape), random_state=seed).fit_transform(features)
    dense = features.toarray() if sparse.issparse(features) else features
    # core_dist_n_jobs=1: joblib workers would outlive a killed run.
    model = HDBSCAN(min_cluster_size=min_cluster_size, core_dist_n_jobs=1).fit(np.asarray(dense, dtype=np.float64))
    return model.condensed_tree_.to_numpy()  # type: ignore[no-any-return]


class CondensedTree:
    """The clusters of a condensed tree over n rows; the root is n, and parents have smaller numbers than children."""

    def __init__(self, edges: NDArray[np.void], n: int) -> None:
        self.root = n
        inner = edges[edges["child"] >= n]
        self._parent = dict(zip(inner["child"].tolist(), inner["parent"].tolist(), strict=True))
        self._size = {n: n, **dict(zip(inner["child"].tolist(), inner["child_size"].tolist(), strict=True))}
        self._children: dict[int, list[int]] = defaultdict(list)
        for child, parent in self._parent.items():
            self._children[parent].append(child)
        leaving = edges[edges["child"] < n]
        self._left = np.full(n, n, dtype=np.int64)  # the last cluster each row was in
        self._left[leaving["child"]] = leaving["parent"]

    @property
    def n_leaves(self) -> int:
        """Clusters without children."""
        return len(self._size) - len(self._children)

    def labels(self, largest: float) -> NDArray[np.int64]:
        """(n,) the cluster of each row once every cluster with children and more than ``largest`` rows is opened.

        The root is no cluster: it is opened in any case.
        """
        chosen: set[int] = set()
        waiting = [self.root]
        while waiting:
            cluster = waiting.pop()
            if cluster in self._children and (cluster == self.root or self._size[cluster] > largest):
                waiting += self._children[cluster]
            elif cluster != self.root:
                chosen.add(cluster)
        label = {self.root: -1}
        for cluster in sorted(self._parent):
            above = label[self._parent[cluster]]
            label[cluster] = cluster if cluster in chosen else above
        return np.array([label[cluster] for cluster in self._left.tolist()], dtype=np.int64)
