"""I(Z;T) over all images from the labels of a few: complete the labels many times over, and count each time.

Counting on the labelled images alone overstates I(Z;T) by bits as soon as there are as many clusters as labels. What
helps is that the clusters of all images are known. Only labels are missing, and they are drawn from their posterior
under a hierarchical Dirichlet process: the labels of a cluster's images are draws from p_z ~ Dirichlet(alpha_z m)
around the overall distribution m, which has room for labels not seen so far (Teh et al., "Hierarchical Dirichlet
Processes", JASA 2006; mutual information under such priors: Archer, Park, Pillow, Entropy 15, 2013). The concentrations
alpha_z, small in clusters of one label, come from a mixture over a grid whose weights are learned, times a learned
power of the cluster's size, for large clusters are often the mixed ones. Every draw is a whole population of labels,
whose I(Z;T) is counted exactly; the spread of the draws is the interval (Ghosh and Meeden, "Bayesian Methods for Finite
Population Sampling", 1997). With a label for every image nothing is left to draw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import gammaln

BURN_IN, DRAWS = 100, 200
CONCENTRATIONS = np.geomspace(0.03, 30, 9)
SIZE_POWERS = (0.0, 0.5, 1.0)
UNSEEN = 10  # labels not seen so far that a draw may hold
CHUNK_ENTRIES = 4_000_000

Floats = NDArray[np.float64]


def complete_labels(z: NDArray[np.int64], t: NDArray[np.int64], *, seed: int = 0) -> Floats:
    """(d, 2) draws from the posterior of I(Z;T) and H(T) over N images, in bits.

    Args:
        z: (N,) the cluster of each image.
        t: (N,) its label, -1 where it is unknown; some are known.
        seed: of the draws.
    """
    counts = _count(z, t)
    chain = _Chain(counts, np.random.default_rng(seed))
    draws = []
    for step in range(BURN_IN + DRAWS):
        chain.step()
        if step >= BURN_IN:
            draws.append(_information(*_complete(counts, chain)))
    return np.array(draws)


@dataclass(frozen=True, eq=False)
class _Counts:
    """What is known. The images that are alone in their cluster share the last row: their cluster tells their label.

    ``seen`` CSR (G, C) labelled images by cluster and label; ``rest`` (G,) images without a label.
    ``row``, ``column``, ``count``: the e entries of ``seen``.
    """

    seen: sparse.csr_array
    rest: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]
    count: NDArray[np.int64]


def _count(z: NDArray[np.int64], t: NDArray[np.int64]) -> _Counts:
    _, group, sizes = np.unique(z, return_inverse=True, return_counts=True)
    shared = sizes > 1
    number = np.where(shared, np.cumsum(shared) - 1, shared.sum())
    group, n_groups = number[group], int(shared.sum()) + 1
    known = t >= 0
    labels, code = np.unique(t[known], return_inverse=True)
    ones = np.ones(len(code), dtype=np.int64)
    seen = sparse.csr_array((ones, (group[known], code)), shape=(n_groups, len(labels)))
    seen.sum_duplicates()
    row = np.repeat(np.arange(n_groups), np.diff(seen.indptr))
    rest = np.bincount(group[~known], minlength=n_groups).astype(np.int64)
    return _Counts(seen, rest, row, seen.indices.astype(np.int64), seen.data)


class _Chain:
    """A Gibbs sampler over the concentration of each cluster and the overall distribution of the labels.

    ``alpha`` (G,), ``m`` (C + 1,) shares of the labels seen and of all others together, ``gamma`` how readily new ones
    come.
    """

    def __init__(self, counts: _Counts, rng: np.random.Generator) -> None:
        self.counts, self.rng = counts, rng
        self.gamma = 1.0
        share = np.append(np.bincount(counts.column, weights=counts.count), self.gamma)
        self.m: Floats = share / share.sum()
        self.alpha: Floats = np.ones(len(counts.rest))
        self._weights: Floats = np.full(len(CONCENTRATIONS), 1 / len(CONCENTRATIONS))
        self._n = np.bincount(counts.row, weights=counts.count, minlength=len(counts.rest))
        relative = _relative_sizes(self._n + counts.rest)
        self._grids = [CONCENTRATIONS * relative[:, None] ** power for power in SIZE_POWERS]  # (G, A) each
        # The labelled images one by one: their entry in the counts, and how many of the entry came before.
        self._entry = np.repeat(np.arange(len(counts.count)), counts.count)
        self._before = np.arange(len(self._entry)) - (np.cumsum(counts.count) - counts.count)[self._entry]

    def step(self) -> None:
        self._draw_concentrations()
        tables = self._draw_tables()
        self._draw_gamma(int(tables.sum()))
        self.m = np.maximum(self.rng.dirichlet(np.append(tables, self.gamma)), 1e-12)

    def _draw_concentrations(self) -> None:
        """The power of the size first, whatever the concentrations; then the concentrations, and their weights."""
        posteriors = [self._likelihood(grid) + np.log(self._weights + 1e-300) for grid in self._grids]  # (G, A) each
        evidence = np.array([np.logaddexp.reduce(posterior, axis=1).sum() for posterior in posteriors])
        power = int(_pick(evidence[None], self.rng)[0])
        drawn = _pick(posteriors[power], self.rng)
        self.alpha = self._grids[power][np.arange(len(drawn)), drawn]
        picked = np.bincount(drawn, minlength=len(CONCENTRATIONS))
        self._weights = self.rng.dirichlet(picked + 1 / len(CONCENTRATIONS))

    def _likelihood(self, grid: Floats) -> Floats:
        """(G, A) logarithm of the Dirichlet-multinomial likelihood of each cluster's counts."""
        counts = self.counts
        prior = grid[counts.row] * self.m[counts.column][:, None]  # (e, A)
        likelihood: Floats = gammaln(grid) - gammaln(grid + self._n[:, None])
        np.add.at(likelihood, counts.row, gammaln(prior + counts.count[:, None]) - gammaln(prior))
        return likelihood

    def _draw_tables(self) -> Floats:
        """(C,) how many of each label's images were drawn afresh from m rather than repeated within a cluster."""
        counts = self.counts
        strength = (self.alpha[counts.row] * self.m[counts.column])[self._entry]
        afresh = self.rng.random(len(strength)) < strength / (strength + self._before)
        tables = np.zeros(len(self.m) - 1)
        np.add.at(tables, counts.column[self._entry], afresh)
        return tables

    def _draw_gamma(self, n_tables: int) -> None:
        """Escobar and West (JASA 1995), under a Gamma(1, 1) prior."""
        n_labels = len(self.m) - 1
        eta = self.rng.beta(self.gamma + 1, n_tables)
        rate = 1 - np.log(eta)
        more = self.rng.random() < n_labels / (n_labels + n_tables * rate)
        self.gamma = self.rng.gamma(n_labels + bool(more), 1 / rate)


def _complete(counts: _Counts, chain: _Chain) -> tuple[Floats, Floats, Floats]:
    """One population of labels: (C + U,) images of each, and of each shared cluster its size and H(T|z) in bits."""
    m = np.append(chain.m[:-1], chain.m[-1] * _sticks(chain.gamma, chain.rng))
    totals = np.zeros(len(m))
    sizes, entropies = [], []
    step = max(1, CHUNK_ENTRIES // len(m))
    for start in range(0, len(counts.rest), step):
        rows = slice(start, start + step)
        known = np.pad(counts.seen[rows].toarray(), ((0, 0), (0, UNSEEN)))
        shares = _dirichlet(chain.alpha[rows, None] * m + known, chain.rng)
        full = known + chain.rng.multinomial(counts.rest[rows], shares)
        totals += full.sum(axis=0)
        sizes.append(full.sum(axis=1))
        entropies.append(_entropy(full))
    return totals, np.concatenate(sizes)[:-1], np.concatenate(entropies)[:-1]


def _information(totals: Floats, sizes: Floats, entropies: Floats) -> tuple[float, float]:
    """I(Z;T) = H(T) - H(T|Z), and H(T). Images alone in their cluster add nothing to H(T|Z)."""
    label_entropy = float(_entropy(totals[None])[0])
    return label_entropy - float(sizes @ entropies / totals.sum()), label_entropy


def _entropy(counts: NDArray[np.number]) -> Floats:
    """(r,) bits of each row of counts (r, c)."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    bits: Floats = -(shares * np.log2(np.where(shares > 0, shares, 1))).sum(axis=1)
    return bits


def _relative_sizes(sizes: NDArray[np.number]) -> Floats:
    """(G,) the size of each cluster over that of the cluster of a typical image; 1 for the images alone in theirs."""
    shared = sizes[:-1]
    typical = np.exp(shared @ np.log(shared) / max(1.0, shared.sum()))
    return np.append(shared / typical, 1.0)


def _pick(logs: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """(r,) a column of each row of (r, c), with probabilities whose logarithms are known but for a constant."""
    cumulated = np.exp(logs - logs.max(axis=1, keepdims=True)).cumsum(axis=1)
    below: NDArray[np.int64] = (cumulated < rng.random((len(logs), 1)) * cumulated[:, -1:]).sum(axis=1)
    return below


def _sticks(gamma: float, rng: np.random.Generator) -> Floats:
    """(U,) shares of the unseen labels among themselves, by stick-breaking."""
    broken = rng.beta(1, gamma, UNSEEN)
    broken[-1] = 1
    return np.asarray(broken * np.cumprod(np.append(1, 1 - broken[:-1])))


def _dirichlet(alpha: Floats, rng: np.random.Generator) -> Floats:
    """A draw for each row of (r, c). In logarithms: a gamma variate of shape 0.001 is below the smallest double."""
    shape = np.maximum(alpha, 1e-12)
    logs = np.log(rng.standard_gamma(shape + 1)) + np.log(1 - rng.random(shape.shape)) / shape
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))
