"""Cluster-aware batches: C clusters x M images, with noise images as instances of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


class ClusterBatchSampler:
    """Batches of row numbers in which most images meet others of their cluster.

    A batch holds noise images in the share they have of the data; the rest is filled with up to ``images_per_cluster``
    images of one cluster after another, the clusters drawn without replacement with probability proportional to
    size ** ``size_power`` times the weight of its strongest pair. 1 would draw clusters by their size, 0 all alike;
    between them large clusters are tempered and small ones still seen. A level of a hierarchy, or an adapter, that
    weighs little in the loss takes as little of the batches. No row occurs twice in a batch. Without any cluster,
    batches are a random permutation.

    Args:
        membership: SciPy CSR array (N, K); a row without entries is noise.
        batch_size: images a batch, 1 or more; lowered to N.
        images_per_cluster: M, 1 or more.
        size_power: tempering of the cluster sizes, 0 to 1.
        left_out: (N,) bool, rows of no cluster that are in no batch either. Default: none.
        seed: batches depend on it and on the epoch set by `set_epoch` alone.

    Raises:
        ValueError: a number below 1, another number of ``left_out`` than rows, or no row that is not left out.

    >>> membership = sparse.csr_array(np.kron(np.eye(3), np.ones((4, 1))))
    >>> batch = next(iter(ClusterBatchSampler(membership, batch_size=4, images_per_cluster=2)))
    >>> sorted(np.unique(np.asarray(batch) // 4, return_counts=True)[1].tolist())
    [2, 2]
    """

    def __init__(
        self,
        membership: sparse.csr_array,
        batch_size: int,
        images_per_cluster: int = 4,
        size_power: float = 0.5,
        seed: int = 0,
        *,
        left_out: NDArray[np.bool_] | None = None,
    ) -> None:
        if min(batch_size, images_per_cluster) < 1:
            raise ValueError(f"at least 1 image a batch and a cluster; got {batch_size} and {images_per_cluster}.")
        columns = sparse.csc_array(sparse.csr_array(membership))  # ours, whatever the layout of ``membership``
        columns.eliminate_zeros()
        n = columns.shape[0]
        noise = np.bincount(columns.indices, minlength=n) == 0
        out = np.zeros(n, dtype=np.bool_) if left_out is None else np.asarray(left_out, dtype=np.bool_)
        if out.shape != (n,) or out.all():
            raise ValueError(f"nothing to draw from {n} images, or left_out of shape {out.shape} is not one an image.")
        noise &= ~out
        self.n_images = n - int(out.sum())
        self.batch_size = min(batch_size, self.n_images)
        self.images_per_cluster = images_per_cluster
        self.seed = seed
        self.epoch = 0
        bounds = [(a, b) for a, b in zip(columns.indptr[:-1], columns.indptr[1:], strict=True) if b > a]
        self._members = [columns.indices[a:b] for a, b in bounds]
        strongest = np.array([columns.data[a:b].max() for a, b in bounds], dtype=np.float64)
        self._log_weight = size_power * np.log([len(rows) for rows in self._members]) + 2 * np.log(strongest)
        self._noise = np.flatnonzero(noise)

    def set_epoch(self, epoch: int) -> None:
        """Draw other batches, the same ones whenever this epoch is set."""
        self.epoch = epoch

    def __len__(self) -> int:
        return max(1, self.n_images // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        noise = _Cycle(self._noise, rng)
        per_batch = self.batch_size * len(self._noise) / max(1, self.n_images)
        for _ in range(len(self)):
            # The fraction is made up for at random, so that noise keeps its share in the long run.
            n_noise = min(int(per_batch + rng.random()), len(self._noise)) if self._members else self.batch_size
            batch = list(noise.take(n_noise))
            self._fill(batch, rng)
            yield [int(row) for row in batch]

    def _fill(self, batch: list[np.int64], rng: np.random.Generator) -> None:
        """Append images of clusters until the batch is full, or every image of every cluster is in it."""
        taken: set[np.int64] = set()
        n_rounds = -(-self.batch_size // self.images_per_cluster)
        for _ in range(n_rounds if self._members else 0):
            before = len(batch)
            # Gumbel keys in descending order are draws without replacement in proportion to the weights.
            for cluster in np.argsort(-(self._log_weight + rng.gumbel(size=len(self._members)))):
                room = min(self.images_per_cluster, self.batch_size - len(batch))
                if room <= 0:
                    return
                drawn = _draw(self._members[cluster], room, taken, rng)
                taken.update(drawn)
                batch.extend(drawn)
            if len(batch) == before:
                return


def _draw(members: NDArray[np.integer], count: int, taken: set[np.int64], rng: np.random.Generator) -> list[np.int64]:
    """Up to ``count`` of ``members`` that are not ``taken``."""
    drawn = rng.choice(members, min(len(members), count), replace=False)
    if taken.isdisjoint(drawn):
        return list(drawn)
    return list(rng.permutation([row for row in members if row not in taken])[:count])


class _Cycle:
    """Takes rows from one random permutation after another, never one twice in a single take."""

    def __init__(self, rows: NDArray[np.integer], rng: np.random.Generator) -> None:
        self._rows, self._rng = rows, rng
        self._queue: NDArray[np.integer] = rng.permutation(rows)

    def take(self, count: int) -> list[np.int64]:
        if count > len(self._queue):
            rest = np.setdiff1d(self._rows, self._queue)
            self._queue = np.concatenate([self._queue, self._rng.permutation(rest)])
        taken, self._queue = self._queue[:count], self._queue[count:]
        return list(taken)
