"""Would the clusters come out the same from slightly other records, or another seed?"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters
from wscl_embed.diagnostics.information import blocks, partition
from wscl_embed.errors import InputError
from wscl_embed.limits import MAX_SEED

if TYPE_CHECKING:
    import datasets

MAX_RECORDS = 2_000
SHARE = 0.8


@dataclass(frozen=True)
class Spread:
    """Adjusted Rand indices of all pairs of repeats: 1 is the same clusters, 0 what chance gives."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def low(self) -> float:
        """The least of them."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The greatest of them."""
        return max(self.values)

    def __str__(self) -> str:
        return f"{self.mean:.2f} ({self.low:.2f} .. {self.high:.2f})"

    def to_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Stability:
    """How much the clusters of one adapter depend on chance.

    ============== ===================================================================================================
    ``records``    how many records the repeats drew from
    ``subsamples`` `Spread` over overlapping subsamples of them, one seed
    ``seeds``      `Spread` over seeds, one subsample; None where the adapter has no seed, so that nothing could differ
    ============== ===================================================================================================
    """

    records: int
    subsamples: Spread
    seeds: Spread | None

    def lines(self) -> list[str]:
        """The stability for the terminal."""
        lines = [f"adjusted Rand index between subsamples of {self.records} records: {self.subsamples}"]
        return [*lines, f"between seeds: {self.seeds or 'the adapter has none'}"]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        seeds = None if self.seeds is None else self.seeds.to_dict()
        return {"records": self.records, "subsamples": self.subsamples.to_dict(), "seeds": seeds}


def measure_stability(
    adapter: Adapter,
    dataset: datasets.Dataset,
    *,
    repeats: int = 3,
    max_records: int = MAX_RECORDS,
    seed: int = 0,
) -> Stability:
    """Cluster again and again, and compare by the adjusted Rand index (Hubert and Arabie, 1985).

    Each repeat clusters another 80 % of the records, from the signal on, and two repeats are compared on the records
    both have (Ben-Hur, Elisseeff, Guyon, "A stability based method for discovering structure in clustered data", 2002).
    Then the first 80 % again with other seeds. A record in no cluster counts as a cluster of its own; of a hierarchy
    the first level is compared.

    Args:
        adapter: what to measure; it is not changed.
        dataset: its records.
        repeats: clusterings of each kind, at least 2; 2 ``repeats`` - 1 in all.
        max_records: of a larger dataset so many are drawn first, which bounds the cost: the figure is then of the
            adapter on so many records.
        seed: of the draws.

    Raises:
        InputError: fewer than 2 repeats, fewer than 10 records, or the adapter refuses a subsample.
    """
    if repeats < 2:
        raise InputError(f"stability compares clusterings: at least 2 repeats are needed, not {repeats}.")
    if len(dataset) < 10:
        raise InputError(f"stability takes subsamples of at least 10 records; there are {len(dataset)}.")
    rng = np.random.default_rng(seed)
    pool = rng.permutation(len(dataset))[:max_records]
    samples = [np.sort(rng.permutation(pool)[: round(SHARE * len(pool))]) for _ in range(repeats)]
    with _without_warnings():
        runs = [_cluster(adapter, dataset, rows) for rows in samples]
        seeded: list[Any] = []
        if "seed" in adapter.options():
            others = [replace(adapter, seed=(adapter.seed + step) % (MAX_SEED + 1)) for step in range(1, repeats)]
            seeded = [runs[0], *(_cluster(other, dataset, samples[0]) for other in others)]
    return Stability(len(pool), _compare(runs), _compare(seeded) if seeded else None)


def _cluster(
    adapter: Adapter, dataset: datasets.Dataset, rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows, and the cluster of each."""
    return rows, partition(first_level(adapter.assign(dataset.select(rows))))


def first_level(clusters: Clusters) -> Clusters:
    """Its first block, or itself where there is no cluster at all."""
    return next(iter(blocks(clusters).values()))


def _compare(runs: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> Spread:
    from sklearn.metrics import adjusted_rand_score

    values = []
    for (rows_a, z_a), (rows_b, z_b) in combinations(runs, 2):
        _, in_a, in_b = np.intersect1d(rows_a, rows_b, return_indices=True)
        values.append(float(adjusted_rand_score(z_a[in_a], z_b[in_b])))
    return Spread(tuple(values))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """What an adapter has to say of its signal it said of the whole dataset."""
    logger = logging.getLogger("wscl_embed")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
