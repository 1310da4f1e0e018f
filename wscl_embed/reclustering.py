"""Clusters that follow the encoder: made anew from its current features every few epochs.

Where the images themselves are the only signal, clusters and encoder improve each other in turn: the unsupervised case
of Tsai et al. (ICLR 2022, arXiv 2202.06670), after PCL (Li et al., "Prototypical Contrastive Learning of Unsupervised
Representations", ICLR 2021, arXiv 2005.04966), whose warm-up of epochs without clusters is here as well.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.clusters import Clusters
from wscl_embed.distributed import on_first

Assign = Callable[[NDArray[np.floating], int], Clusters]
"""(n, D) current features and the number of the round -> the clusters of the adapters that read images"""


class Reclustering:
    """The clusters of the n training images, some of them made anew every few epochs.

    Round 0 are the clusters of the frozen features. With ``warmup`` epochs, training begins without the clusters that
    read images, and round 1 comes after these epochs; else it begins with round 0. Rounds then follow every ``every``
    epochs. `clusters` are those of the last round. Each round of an adapter with ``noise=drop`` decides anew
    which images it leaves out.

    Args:
        clusters: round 0, of all adapters.
        sources: those in the table of clusters whose columns are made anew; the other columns stay as they are.
        assign: makes them; called on the first process alone.
        every: epochs between two rounds, at least 1.
        warmup: epochs before round 1, trained on the other adapters' clusters, or, where there are none, on instances.
    """

    def __init__(
        self, clusters: Clusters, sources: Collection[str], assign: Assign, *, every: int, warmup: int = 0
    ) -> None:
        self.clusters = clusters
        self.round = 0
        self._sources = frozenset(sources)
        self._assign = assign
        self._every, self._warmup = every, warmup
        self._features: Callable[[], NDArray[np.floating]] | None = None

    def follow(self, features: Callable[[], NDArray[np.floating]]) -> None:
        """Take the current outputs (n, D) for the training images from ``features``; all processes call it."""
        self._features = features

    def due(self, epoch: int) -> int | None:
        """The round that comes before ``epoch`` (counted from 0), if one does."""
        first = self._warmup or self._every
        behind = epoch - first
        return behind // self._every + 1 if behind >= 0 and behind % self._every == 0 else None

    def update(self, epoch: int) -> dict[str, float]:
        """Make the clusters anew if a round is due before ``epoch``.

        Returns:
            ``cluster_ari``, the adjusted Rand index of the new clusters to the last round's, the mean over adapters
            and levels: 1 is no change. Nothing where no round was due.
        """
        number = self.due(epoch)
        if number is None:
            return {}
        assert self._features is not None, "follow() comes first"
        features = self._features()
        fresh = on_first(lambda: self._assign(features, number))
        old, new = columns_of(self.clusters, self._sources).blocks(), fresh.blocks()
        agreement = [adjusted_rand(old[block].labels, new[block].labels) for block in new if block in old]
        self.clusters = Clusters.combine([self._others(), fresh])
        self.round = number
        return {"cluster_ari": float(np.mean(agreement))}

    def at(self, epoch: int) -> Clusters:
        """The clusters to train ``epoch`` with, after `update`."""
        return self._others() if epoch < self._warmup else self.clusters

    def _others(self) -> Clusters:
        return columns_of(self.clusters, set(self.clusters.table["source"]) - self._sources)

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint: the number of the round, and its clusters as the bytes of their file."""
        import pyarrow.parquet as pq

        file = io.BytesIO()
        pq.write_table(self.clusters.to_arrow(), file, compression="zstd")
        return {"round": self.round, "clusters": torch.frombuffer(file.getbuffer(), dtype=torch.uint8)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave, over the same images."""
        file = io.BytesIO(state["clusters"].numpy().tobytes())
        self.clusters = Clusters.load(file).select(self.clusters.ids)
        self.round = int(state["round"])


def columns_of(clusters: Clusters, sources: Collection[str]) -> Clusters:
    """The same images with the clusters of some adapters only.

    >>> both = Clusters.combine([Clusters.from_labels(["a", "b"], labels, name=name) for labels, name in
    ...                          [([0, 1], "tags"), ([0, 0], "images")]])
    >>> columns_of(both, {"images"}).membership.toarray().tolist()
    [[1.0], [1.0]]
    """
    columns = np.flatnonzero(clusters.table["source"].isin(list(sources)).to_numpy(dtype=bool))
    table = clusters.table.iloc[columns].reset_index(drop=True)
    place = np.full(clusters.n_clusters, -1)  # where a column stands among those
    place[columns] = np.arange(len(columns))
    raw = [
        replace(one, labels=np.where(one.labels >= 0, place[one.labels], one.labels))
        for one in clusters.raw
        if one.source in sources
    ]
    return Clusters(clusters.ids, sparse.csr_array(clusters.membership[:, columns]), table, tuple(raw))


def adjusted_rand(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """The adjusted Rand index of two clusterings of the same images; noise (-1) is a cluster of its own each.

    >>> adjusted_rand(np.array([0, 0, 1, 1]), np.array([5, 5, 3, 3]))
    1.0
    """
    from sklearn.metrics import adjusted_rand_score

    def alone(labels: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(labels < 0, -1 - np.arange(len(labels)), labels)

    return float(adjusted_rand_score(alone(first), alone(second)))
