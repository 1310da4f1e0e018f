"""No clusters: the self-supervised baseline (InfoNCE), in which an image's only positive is its own other view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters, cluster_table

if TYPE_CHECKING:
    import datasets


@dataclass(kw_only=True)
class NoneAdapter(Adapter):
    """An empty membership matrix."""

    name = "none"
    expects_clusters = False

    def assign(self, dataset: datasets.Dataset) -> Clusters:
        """Membership of shape (N, 0)."""
        membership = sparse.csr_array(np.zeros((len(dataset), 0), dtype=np.float32))
        return Clusters(dataset["id"][:], membership, cluster_table(membership, source=self.name))
