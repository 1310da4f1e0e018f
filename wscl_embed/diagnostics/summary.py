"""What a person should see of `Clusters` before training on them, and whether they can be trained on at all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.adapter import Adapter
from wscl_embed.clusterers import collapse_rows
from wscl_embed.clusters import Clusters
from wscl_embed.diagnostics.information import entropy, partition
from wscl_embed.errors import InputError
from wscl_embed.noise_summary import NoiseSummary, summarise_noise

CHUNK_ENTRIES = 20_000_000
SWALLOWED = 0.95
"""Share of the images in any cluster that one cluster may have before it is refused."""
MOST_MEETINGS = 2e8


@dataclass(frozen=True)
class LargeCluster:
    """One of the largest clusters."""

    name: str
    size: int
    terms: list[str]


@dataclass(frozen=True, eq=False)
class ClusterSummary:
    """Counts over N images and the clusters that have images; ratios are properties."""

    n_images: int
    n_noise: int
    """Images in no cluster."""
    n_dropped: int
    """Those of them that training leaves out."""
    sizes: NDArray[np.int64]
    """(K,) images of each cluster that has any, largest first."""
    n_positive_pairs: int
    """Ordered pairs of different images that share a cluster."""
    entropy: float
    """H(Z) in bits over the images to train on, one in none as a cluster of its own: log2 N without clusters."""
    batch_size: int
    largest: list[LargeCluster]
    noise: list[NoiseSummary]
    """Of each adapter with a clusterer."""

    @property
    def n_clusters(self) -> int:
        """Clusters with an image."""
        return len(self.sizes)

    @property
    def noise_share(self) -> float:
        """Share of the images in no cluster."""
        return self.n_noise / max(1, self.n_images)

    @property
    def singletons(self) -> int:
        """Clusters of one image: they train like noise."""
        return int((self.sizes == 1).sum())

    @property
    def size_quantiles(self) -> dict[str, float]:
        """Smallest, median, 90th percentile and largest size; zeros without clusters."""
        sizes = self.sizes if len(self.sizes) else np.zeros(1)
        values = np.quantile(sizes, [0, 0.5, 0.9, 1])
        return dict(zip(("min", "median", "p90", "max"), values.tolist(), strict=True))

    @property
    def expected_positives(self) -> float:
        """Mean number of other images in the batch that share a cluster with an image, for ``batch_size`` different
        images drawn uniformly from the N that are not left out: each of the d partners of an image is among the others
        with (B - 1) / (N - 1)."""
        n = self.n_images - self.n_dropped
        drawn = max(1, min(self.batch_size, n)) - 1
        return self.n_positive_pairs / max(1, n) * drawn / max(1, n - 1)

    def lines(self) -> list[str]:
        """The summary for the terminal, one fact a line."""
        size = self.size_quantiles
        lines = [
            f"{self.n_clusters} clusters over {self.n_images} images; "
            f"{self.n_noise} images ({self.noise_share:.1%}) in none, {self.singletons} clusters of one image",
            *(noise.line for noise in self.noise),
            f"cluster sizes: min {size['min']:g}, median {size['median']:g}, p90 {size['p90']:g}, max {size['max']:g}; "
            f"H(Z) = {self.entropy:.2f} bits",
            f"in a batch of {self.batch_size} drawn uniformly an image meets {self.expected_positives:.2f} others of "
            "its clusters on average",
        ]
        for cluster in self.largest:
            size_of_it = "1 image" if cluster.size == 1 else f"{cluster.size} images"
            lines.append(f"  {cluster.name}: {size_of_it}" + (f": {', '.join(cluster.terms)}" * bool(cluster.terms)))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "n_clusters": self.n_clusters,
            "noise_share": self.noise_share,
            "singletons": self.singletons,
            "sizes": self.size_quantiles,
            "cluster_entropy": self.entropy,
            "expected_positives": self.expected_positives,
            "noise": [noise.as_dict() for noise in self.noise],
            "batch_size": self.batch_size,
        }


def summarise(clusters: Clusters, batch_size: int, *, largest: int = 5) -> ClusterSummary:
    """Count what `ClusterSummary` holds.

    Args:
        clusters: N images.
        batch_size: images in a training batch, over all processes.
        largest: how many of the largest clusters to describe.
    """
    matrix = clusters.membership
    sizes = np.bincount(matrix.indices, minlength=clusters.n_clusters).astype(np.int64)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    described = [
        LargeCluster(str(row["name"]), int(sizes[column]), list(row["terms"]))
        for column, row in zip(order[:largest], clusters.table.iloc[order[:largest]].to_dict("records"), strict=True)
    ]
    return ClusterSummary(
        n_images=len(clusters),
        n_noise=int((np.diff(matrix.indptr) == 0).sum()),
        n_dropped=int(clusters.dropped.sum()),
        sizes=sizes[order],
        n_positive_pairs=positive_pairs(matrix),
        entropy=entropy(partition(clusters)[~clusters.dropped]),
        batch_size=batch_size,
        largest=described,
        noise=summarise_noise(clusters),
    )


def summary_lines(clusters: Clusters, batch_size: int) -> list[str]:
    """The summary of the clusters of one adapter for the terminal, each level of a hierarchy by itself."""
    levels = clusters.blocks()
    if len(levels) < 2:
        return summarise(clusters, batch_size).lines()
    lines = []
    for (_, level), block in levels.items():
        first, *rest = summarise(block, batch_size).lines()
        lines += [f"level {level}: {first}", *(f"  {line}" for line in rest)]
    return lines


def positive_pairs(membership: sparse.csr_array) -> int:
    """Ordered pairs (i, j), i != j, with an entry in the same column of ``membership`` (N, K).

    With at most one entry a row this is sum over clusters of s (s - 1). Otherwise the pattern of M M^T is counted over
    the u distinct rows, in chunks of bounded memory. Where that would take more than `MOST_MEETINGS` steps (one for
    each two distinct rows and column they share), it is counted for as many rows, drawn at random, as that allows, and
    scaled up: at a million posts, some ten thousand rows, and the estimate is within a few percent.
    """
    entries = np.diff(membership.indptr)
    if entries.max(initial=0) <= 1:
        sizes = np.bincount(membership.indices, minlength=membership.shape[1]).astype(np.int64)
        return int((sizes * (sizes - 1)).sum())
    pattern = sparse.csr_array(membership[entries > 0]).astype(np.float32)
    pattern.data[:] = 1
    rows, inverse, counts = collapse_rows(pattern)  # (u, K), (n,), (u,)
    rows = sparse.csr_array(rows)
    n_meetings = float((np.bincount(rows.indices).astype(np.float64) ** 2).sum())
    if n_meetings <= MOST_MEETINGS:
        return _partners(rows, rows, counts, counts) - len(inverse)
    n_drawn = max(1, int(len(inverse) * MOST_MEETINGS / n_meetings))
    drawn = inverse[np.random.default_rng(0).choice(len(inverse), n_drawn, replace=False)]
    partners = _partners(sparse.csr_array(rows[drawn]), rows, np.ones(n_drawn, dtype=np.int64), counts)
    return round((partners - n_drawn) / n_drawn * len(inverse))


def _partners(
    some: sparse.csr_array, rows: sparse.csr_array, times: NDArray[np.int64], counts: NDArray[np.int64]
) -> int:
    """Pairs of ``some`` (m, K) and ``rows`` (u, K) that share a column, each ``times`` (m,) x ``counts`` (u,) times."""
    step = max(1, CHUNK_ENTRIES // rows.shape[0])
    pairs = 0
    for start in range(0, some.shape[0], step):
        shared = sparse.csr_array(some[start : start + step] @ rows.T)  # (step, u): an entry where a column is shared
        shared.data = np.ones(len(shared.data), dtype=np.int64)
        pairs += int(times[start : start + step] @ (shared @ counts))
    return pairs


def check_clusters(clusters: Clusters, adapter: Adapter) -> None:
    """Make sure that there is something to learn from.

    Raises:
        InputError: from an adapter that is meant to make clusters, fewer than two clusters with an image; or, where a
            clusterer made them, one that has over 95 % of all images in a cluster.
    """
    if not adapter.expects_clusters:
        return
    sizes = np.bincount(clusters.membership.indices, minlength=1)
    found, largest = int((sizes > 0).sum()), int(sizes.max())
    inside = int((np.diff(clusters.membership.indptr) > 0).sum())
    if found == 0:
        problem = f"all {len(clusters)} images are noise, none is in a cluster"
    elif found == 1:
        problem = f"only 1 cluster was found among {len(clusters)} images, and at least 2 are needed"
    elif clusters.raw and largest > SWALLOWED * inside:
        problem = (
            f"one cluster has {largest} of the {inside} images that are in any ({largest / inside:.1%}), the other "
            f"{found - 1} share the rest: hardly a pair of images would be told apart"
        )
    else:
        return
    raise InputError(f"adapter {adapter.name}: {problem}. {adapter.remedy()}")
