"""Do several adapters see the same in the images?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.clusters import Clusters

MAX_IMAGES = 20_000


@dataclass(frozen=True, eq=False)
class Agreement:
    """Adjusted mutual information of each pair of A clusterings.

    ========== =======================================================================================
    ``names``  A names
    ``values`` (A, A) float64, symmetric, 1 on the diagonal: 1 is the same clusters, 0 what chance gives; NaN for a
               pair with fewer than 2 images that both have in a cluster
    ``shared`` (A, A) int64, how many images both have in a cluster
    ========== =======================================================================================
    """

    names: list[str]
    values: NDArray[np.float64]
    shared: NDArray[np.int64]

    def lines(self) -> list[str]:
        """One line a pair."""
        pairs = combinations(range(len(self.names)), 2)
        return [
            f"adjusted mutual information of {self.names[a]} and {self.names[b]}: {self.values[a, b]:.2f}, "
            f"on the {self.shared[a, b]} images both have in a cluster"
            for a, b in pairs
        ]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; null where there is no value."""
        values = [[None if np.isnan(value) else float(value) for value in row] for row in self.values]
        return {"names": self.names, "adjusted_mutual_information": values, "shared_images": self.shared.tolist()}


def agreement(parts: Mapping[str, Clusters], *, max_images: int = MAX_IMAGES, seed: int = 0) -> Agreement:
    """Adjusted mutual information (Vinh, Epps, Bailey, JMLR 2010) between all ``parts``, over the same images.

    An image that one of a pair has in no cluster is left out: having no signal is no opinion. Of several memberships
    the strongest counts.

    Args:
        parts: name -> `Clusters`.
        max_images: of more a random sample is compared.
        seed: of that sample.

    >>> hard = Clusters.from_labels(list("abcd"), [0, 0, 1, 1], name="toy")
    >>> agreement({"one": hard, "other": hard}).values.tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """
    from sklearn.metrics import adjusted_mutual_info_score

    names = list(parts)
    ids = parts[names[0]].ids
    labels = np.stack([parts[name].select(ids).labels for name in names])  # (A, N)
    if labels.shape[1] > max_images:
        labels = labels[:, np.sort(np.random.default_rng(seed).permutation(labels.shape[1])[:max_images])]
    clustered = (labels >= 0).astype(np.int64)
    shared = clustered @ clustered.T
    values = np.full(shared.shape, np.nan)
    np.fill_diagonal(values, 1.0)
    for a, b in combinations(range(len(names)), 2):
        both = (labels[a] >= 0) & (labels[b] >= 0)
        if shared[a, b] >= 2:
            values[a, b] = values[b, a] = adjusted_mutual_info_score(labels[a, both], labels[b, both])
    return Agreement(names, values, shared)
