"""The information plane: how many bits the clusters hold about the labels, and how many besides.

The plane is that of Tsai et al., "Learning Weakly-supervised Contrastive Representations", ICLR 2022 (arXiv
2202.06670): clusters are good when I(Z;T) is high (they tell the labels) and H(Z|T) is low (and little else).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.clusters import Clusters
from wscl_embed.diagnostics.few_labels import complete_labels
from wscl_embed.errors import InputError
from wscl_embed.label_codes import label_codes


@dataclass(frozen=True)
class Interval:
    """From ``low`` to ``high``, at 95 %."""

    low: float
    high: float


@dataclass(frozen=True)
class InformationPlane:
    """Where a clustering Z of N images stands towards their labels T, in bits.

    ============================== ======================================================================
    ``cluster_entropy``            H(Z), counted over all N images
    ``label_entropy``              H(T)
    ``mutual_information``         I(Z;T), how much of H(T) the clusters tell: the more the better
    ``label_entropy_interval``     of H(T) over all N images; without width when all are labelled
    ``mutual_information_interval`` of I(Z;T) over all N images; without width when all are labelled
    ``n_images``                   N
    ``n_labelled``                 how many of them have a label
    ============================== ======================================================================
    """

    cluster_entropy: float
    label_entropy: float
    mutual_information: float
    label_entropy_interval: Interval
    mutual_information_interval: Interval
    n_images: int
    n_labelled: int

    @property
    def conditional_entropy(self) -> float:
        """H(Z|T) = H(Z) - I(Z;T), what the clusters tell besides the labels: the less the better."""
        return self.cluster_entropy - self.mutual_information

    @property
    def conditional_entropy_interval(self) -> Interval:
        """That of I(Z;T) taken from H(Z), which is known."""
        known = self.mutual_information_interval
        return Interval(self.cluster_entropy - known.high, self.cluster_entropy - known.low)

    @property
    def is_estimate(self) -> bool:
        """Some images have no label."""
        return self.n_labelled < self.n_images

    def lines(self) -> list[str]:
        """The plane for the terminal."""
        information = _with_interval(self.mutual_information, self.mutual_information_interval)
        rest = _with_interval(self.conditional_entropy, self.conditional_entropy_interval)
        lines = [f"I(Z;T) = {information} of H(T) = {self.label_entropy:.2f} bits; H(Z|T) = {rest} bits"]
        if self.is_estimate:
            lines.append(f"estimated from the labels of {self.n_labelled} of {self.n_images} images, at 95 %")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """For JSON; intervals are [low, high], and there only for estimates."""
        values = {
            "mutual_information": self.mutual_information,
            "conditional_entropy": self.conditional_entropy,
            "cluster_entropy": self.cluster_entropy,
            "label_entropy": self.label_entropy,
            "n_images": self.n_images,
            "n_labelled": self.n_labelled,
        }
        if not self.is_estimate:
            return values
        names = ("mutual_information", "conditional_entropy", "label_entropy")
        intervals = {f"{name}_interval": getattr(self, f"{name}_interval") for name in names}
        return values | {name: [interval.low, interval.high] for name, interval in intervals.items()}


def information_plane(clusters: Clusters, labels: Sequence[object], *, seed: int = 0) -> InformationPlane:
    """Where ``clusters`` stand towards ``labels``.

    Every image counts in one cluster, the one it belongs to most (`Clusters.labels`), and an image in none is a cluster
    of its own, as it is for the loss: so no clusters at all (SimCLR) have H(Z) = log2 N and I(Z;T) = H(T), the most of
    both, and the labels themselves (SupCon) I(Z;T) = H(T) and H(Z|T) = 0. Clusters of several adapters or levels are
    first taken apart by `blocks`. Images that a noise policy drops from training are left out.

    With a label for every image these are counts. With fewer they are estimates, on the assumption that the labelled
    images are a random sample: see `wscl_embed.diagnostics.few_labels`.

    Args:
        clusters: of N images.
        labels: N labels in the same order, compared as text; None, NaN or a blank string where there is none.
        seed: of the estimate.

    Raises:
        InputError: not one label an image, or none at all.

    >>> clusters = Clusters.from_labels(list("abcd"), [0, 0, 1, 1], name="toy")
    >>> plane = information_plane(clusters, ["cat", "cat", "dog", "eel"])
    >>> plane.cluster_entropy, plane.label_entropy, plane.mutual_information, plane.conditional_entropy
    (1.0, 1.5, 1.0, 0.0)
    """
    if len(labels) != len(clusters):
        raise InputError(f"information_plane: {len(labels)} labels for {len(clusters)} images; give one an image.")
    kept = ~clusters.dropped
    z, t = partition(clusters)[kept], label_codes(labels)[kept]
    n_labelled = int((t >= 0).sum())
    if not n_labelled:
        raise InputError(f"none of the {len(t)} images has a label: nothing can be said about the labels.")
    if n_labelled == len(t):
        exact = mutual_information(z, t), entropy(t)
        return _plane(z, n_labelled, np.array([exact]))
    return _plane(z, n_labelled, complete_labels(z, t, seed=seed))


def _plane(z: NDArray[np.int64], n_labelled: int, draws: NDArray[np.float64]) -> InformationPlane:
    """From (d, 2) draws of I(Z;T) and H(T)."""
    information, label_entropy = draws.mean(axis=0).tolist()
    (low, low_entropy), (high, high_entropy) = np.quantile(draws, [0.025, 0.975], axis=0).tolist()
    return InformationPlane(
        cluster_entropy=entropy(z),
        label_entropy=label_entropy,
        mutual_information=information,
        label_entropy_interval=Interval(low_entropy, high_entropy),
        mutual_information_interval=Interval(low, high),
        n_images=len(z),
        n_labelled=n_labelled,
    )


def _with_interval(value: float, interval: Interval) -> str:
    if interval.low == interval.high:
        return f"{value:.2f}"
    return f"{value:.2f} ({interval.low:.2f} .. {interval.high:.2f})"


def partition(clusters: Clusters) -> NDArray[np.int64]:
    """(N,) one non-negative cluster an image: the strongest column, for an image in none a number of its own."""
    z = clusters.labels
    alone = z < 0
    z[alone] = clusters.n_clusters + np.arange(int(alone.sum()))
    return z


def blocks(clusters: Clusters) -> dict[str, Clusters]:
    """The clusters of each adapter and level apart, by name: ``tags``, or ``tags level 1`` where it has several levels.

    No clusters at all are called ``none``.

    >>> hard = Clusters.from_labels(["a", "b"], [0, 1], name="toy")
    >>> [(name, block.n_clusters) for name, block in blocks(Clusters.combine([hard, hard])).items()]
    [('toy.1', 2), ('toy.2', 2)]
    """
    found = clusters.blocks() or {("none", 0): clusters}
    levels = Counter(source for source, _ in found)
    return {
        source if levels[source] == 1 else f"{source} level {level}": block for (source, level), block in found.items()
    }


def entropy(codes: NDArray[np.integer]) -> float:
    """H in bits of (N,) codes, by their shares.

    >>> entropy(np.array([0, 0, 1, 2]))
    1.5
    """
    _, counts = np.unique(codes, return_counts=True)
    shares = counts / max(1, counts.sum())
    return float(-(shares * np.log2(shares)).sum()) + 0.0


def mutual_information(z: NDArray[np.integer], t: NDArray[np.integer]) -> float:
    """I(Z;T) in bits of two non-negative codes (N,), by their shares: H(Z) + H(T) - H(Z,T)."""
    both = z.astype(np.int64) * (int(t.max(initial=0)) + 1) + t
    return max(0.0, entropy(z) + entropy(t) - entropy(both))
