"""The clusters of a run, for people to browse."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wscl_embed.clusters import Clusters

PICTURES = 8


@dataclass(frozen=True)
class ClusterCard:
    """One cluster: the ``number`` of its column, how it is called, its ``size``, and rows of some of its images."""

    number: int
    name: str
    terms: list[str]
    size: int
    rows: list[int]

    @property
    def title(self) -> str:
        """Its terms, or its name where it has none."""
        return ", ".join(self.terms) or self.name


class ClusterCards:
    """The clusters that have images, the largest first.

    Args:
        clusters: of some of the images of an embedding file.
        ids: the N ids of that file.
    """

    def __init__(self, clusters: Clusters, ids: Sequence[str]) -> None:
        position = {image_id: row for row, image_id in enumerate(ids)}
        self._rows = np.array([position.get(image_id, -1) for image_id in clusters.ids], dtype=np.int64)
        self._row_in_clusters = np.full(len(ids), -1, dtype=np.int64)
        known = np.flatnonzero(self._rows >= 0)
        self._row_in_clusters[self._rows[known]] = known
        self._membership = clusters.membership
        self._by_cluster = clusters.membership.tocsc()
        self._names = [str(name) for name in clusters.table["name"]]
        self._terms = [[*map(str, terms)] for terms in clusters.table["terms"]]
        sizes = np.diff(self._by_cluster.indptr)
        self._order = [int(column) for column in np.argsort(-sizes, kind="stable") if sizes[column]]
        self._sizes = sizes.tolist()

    def __len__(self) -> int:
        return len(self._order)

    def find(self, words: str) -> list[int]:
        """The numbers of the clusters whose name or terms hold ``words``, the largest first."""
        wanted = words.strip().lower()
        return [one for one in self._order if wanted in f"{self._names[one]} {' '.join(self._terms[one])}".lower()]

    def has(self, number: int) -> bool:
        """Whether there is such a cluster."""
        return 0 <= number < len(self._names)

    def card(self, number: int) -> ClusterCard:
        """What is said of a cluster, with images spread over all of it."""
        rows = self.rows(number)
        spread = rows[np.unique(np.linspace(0, len(rows) - 1, min(PICTURES, len(rows))).astype(int))]
        return ClusterCard(number, self._names[number], self._terms[number], self._sizes[number], spread.tolist())

    def rows(self, number: int) -> NDArray[np.int64]:
        """The rows of the embedding file in a cluster, the strongest members first."""
        column = slice(self._by_cluster.indptr[number], self._by_cluster.indptr[number + 1])
        order = np.argsort(-self._by_cluster.data[column], kind="stable")
        rows: NDArray[np.int64] = self._rows[self._by_cluster.indices[column][order]]
        return rows[rows >= 0]

    def of_row(self, row: int) -> list[ClusterCard]:
        """The clusters of an image, without pictures."""
        at = self._row_in_clusters[row]
        if at < 0:
            return []
        columns = self._membership.indices[self._membership.indptr[at] : self._membership.indptr[at + 1]]
        return [ClusterCard(one, self._names[one], self._terms[one], self._sizes[one], []) for one in columns.tolist()]
