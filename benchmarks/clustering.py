"""k-means and HDBSCAN of many rows: the package's ways against the libraries' own.

    python -m benchmarks.clustering                            # minutes
    python -m benchmarks.clustering --full                     # the sizes the large ways are for
    python -m benchmarks.clustering --features rows.npy        # k-means of your own (n, F) rows

Rows are drawn from normal clusters, a tenth of them (for HDBSCAN three tenths) from anywhere. The ways take turns
(`benchmarks.turns`), and the median of the rounds counts; memory is what a process grew by beyond the rows. Beside the
time of the clock stands that of the processors, which other work on the machine disturbs less. Quality: the inertia
(sum of squared distances to the mean of the own cluster) as a ratio to MiniBatchKMeans', and the adjusted Rand index
with the clusters the rows were drawn from.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from benchmarks.turns import Outcome, machine, middle, ratio, turns

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Problem:
    """Rows to cluster: drawn, or read from a file."""

    n: int
    dims: int
    k: int
    noise: float = 0.1
    path: str = ""

    def make(self) -> tuple[Rows, Labels]:
        """(n, dims) float32 rows and (n,) the cluster each was drawn from, -1 for anywhere and in a file."""
        if self.path:
            rows = np.ascontiguousarray(np.load(self.path), dtype=np.float32)
            return rows, np.full(len(rows), -1)
        rng = np.random.default_rng(0)
        truth = rng.choice(self.k, self.n, p=rng.dirichlet(np.full(self.k, 2.0)))
        centres = rng.normal(size=(self.k, self.dims)).astype(np.float32)
        rows = rng.normal(scale=0.5, size=(self.n, self.dims)).astype(np.float32)
        anywhere = rng.random(self.n) < self.noise
        rows[anywhere] *= 2.2
        rows[~anywhere] += centres[truth[~anywhere]]
        truth[anywhere] = -1
        return rows, truth


def ours(rows: Rows, k: int, *, with_faiss: bool) -> Labels:
    """The package's k-means."""
    from wscl_embed.clusterers import make_clustering

    if not with_faiss:
        sys.modules["faiss"] = None  # type: ignore[assignment]
    return make_clustering(rows, "kmeans", n_clusters=k).labels


def faiss_as_it_comes(rows: Rows, k: int) -> Labels:
    """faiss with its defaults: 25 iterations from random rows."""
    import faiss

    model = faiss.Kmeans(rows.shape[1], k, seed=1, min_points_per_centroid=1)
    model.train(rows)
    return np.asarray(model.index.search(rows, 1)[1][:, 0], dtype=np.int64)


def lloyd(rows: Rows, k: int) -> Labels:
    """scikit-learn's KMeans."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(k, n_init=1, random_state=0).fit_predict(rows), dtype=np.int64)


def hdbscan_of_all(rows: Rows, k: int) -> Labels:
    """hdbscan, every row at once."""
    from hdbscan import HDBSCAN

    return np.asarray(HDBSCAN(min_cluster_size=5, core_dist_n_jobs=1).fit_predict(rows.astype(np.float64)))


def scikit_hdbscan(rows: Rows, k: int) -> Labels:
    """scikit-learn's HDBSCAN."""
    from sklearn.cluster import HDBSCAN

    return np.asarray(HDBSCAN(min_cluster_size=5, copy=False).fit_predict(rows))


def fast_hdbscan_of_all(rows: Rows, k: int) -> Labels:
    """fast_hdbscan, whose compiling is not counted; NUMBA_NUM_THREADS says how many threads it takes."""
    from fast_hdbscan import HDBSCAN

    return np.asarray(HDBSCAN(min_cluster_size=5).fit_predict(rows), dtype=np.int64)


def our_hdbscan(rows: Rows, k: int) -> Labels:
    """The package's HDBSCAN."""
    from wscl_embed.clusterers.density import cluster_hdbscan

    return cluster_hdbscan(rows, 5, seed=0).labels


def hdbscan_of_a_sample(rows: Rows, k: int, *, sample: int) -> Labels:
    """The package's HDBSCAN, trained on ``sample`` rows."""
    import wscl_embed.clusterers.density as density

    density.EXACT_ROWS = sample
    return density.cluster_hdbscan(rows, 5, seed=0).labels


Cluster = Callable[[Rows, int], Labels]


def prepare(way: Cluster, problem: Problem) -> Callable[[], Labels]:
    """The rows, and ``way`` ready to cluster them."""
    way(np.random.default_rng(0).normal(size=(200, problem.dims)).astype(np.float32), 2)  # imports, compiles
    rows, _ = problem.make()
    return partial(way, rows, problem.k)


def measured(ways: dict[str, Cluster], problem: Problem, rounds: int) -> dict[str, list[Outcome]]:
    """The outcomes of each way, whose labels every round must repeat."""
    outcomes = turns({name: partial(prepare, way, problem) for name, way in ways.items()}, rounds)
    for name, made in outcomes.items():
        assert all((one.result == made[0].result).all() for one in made), f"{name} is not repeatable"
    return outcomes


def inertia(rows: Rows, labels: Labels) -> float:
    """The sum of squared distances to the mean of the own cluster."""
    sizes = np.bincount(labels)
    means = np.zeros((len(sizes), rows.shape[1]))
    np.add.at(means, labels, rows)
    means /= np.maximum(sizes, 1)[:, None]
    steps = range(0, len(rows), 10_000)
    return float(sum(((rows[a : a + 10_000] - means[labels[a : a + 10_000]]) ** 2).sum() for a in steps))


def print_table(outcomes: dict[str, list[Outcome]], first: str, header: str, cells: Callable[[Labels], str]) -> None:
    """A line a way: time, its ratio to the ``first`` way's, memory, and what ``cells`` says of the labels."""
    print(f"| way | time | its time / ours, range | processor time | peak memory | {header} |")
    print("| --- " * (5 + len(header.split("|"))) + "|")
    for name, made in outcomes.items():
        one = middle(made)
        costs = (
            f"{one.seconds:.2f} s | {ratio(outcomes[first], made)} | {one.cpu_seconds:.2f} s | {one.megabytes:.0f} MB"
        )
        print(f"| {name} | {costs} | {cells(one.result)} |", flush=True)


def kmeans_table(problem: Problem, rounds: int, with_lloyd: bool) -> None:
    """Print the table of k-means."""
    from sklearn.metrics import adjusted_rand_score

    ways: dict[str, Cluster] = {
        "ours, faiss": partial(ours, with_faiss=True),
        "ours, mini-batches": partial(ours, with_faiss=False),
        "faiss as it comes": faiss_as_it_comes,
        **({"scikit-learn KMeans": lloyd} if with_lloyd else {}),
    }
    rows, truth = problem.make()
    outcomes = measured(ways, problem, rounds)
    base = inertia(rows, outcomes["ours, mini-batches"][0].result)
    known = truth >= 0

    def quality(labels: Labels) -> str:
        ari = f"{adjusted_rand_score(truth[known], labels[known]):.3f}" if known.any() else ""
        return f"{inertia(rows, labels) / base:.3f} | {ari}"

    print(f"\nk-means, {len(rows):,} x {rows.shape[1]}, k = {problem.k:,}\n")
    print_table(outcomes, "ours, faiss", "inertia / mini-batches' | ARI", quality)


def hdbscan_table(problem: Problem, rounds: int, samples: Sequence[int], with_exact: bool) -> None:
    """Print the table of HDBSCAN."""
    from sklearn.metrics import adjusted_rand_score

    ways: dict[str, Cluster] = {}
    if with_exact:
        ways = {"ours": our_hdbscan, "hdbscan": hdbscan_of_all, "scikit-learn": scikit_hdbscan}
    if with_exact and find_spec("fast_hdbscan") is not None:
        ways["fast_hdbscan"] = fast_hdbscan_of_all
    for sample in samples:
        ways[f"ours, sample of {sample:,}"] = partial(hdbscan_of_a_sample, sample=sample)
    _, truth = problem.make()
    known = truth >= 0
    outcomes = measured(ways, problem, rounds)

    def quality(labels: Labels) -> str:
        ari = adjusted_rand_score(truth[known], labels[known])
        return f"{labels.max() + 1} | {(labels < 0).mean():.1%} | {ari:.3f}"

    print(f"\nHDBSCAN, {problem.n:,} x {problem.dims}, {problem.k} clusters and {problem.noise:.0%} noise\n")
    print_table(outcomes, next(iter(ways)), "clusters | noise | ARI of the rows in a cluster", quality)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--features", default="", help="a .npy file of (n, F) rows: k-means of them alone")
    parser.add_argument("--clusters", type=int, help="k; default 5 sqrt(n)")
    options = parser.parse_args()
    n = 200_000 if options.full else 20_000
    if options.features:
        n, dims = np.load(options.features, mmap_mode="r").shape
        problem = Problem(n, dims, round(5 * n**0.5), path=options.features)
    else:
        problem = Problem(n, 64, round(5 * n**0.5))
    if options.clusters:
        problem = replace(problem, k=options.clusters)
    print(f"median of {options.rounds}; {machine()}")
    kmeans_table(problem, options.rounds, with_lloyd=n <= 50_000)
    if not options.features and options.full:
        hdbscan_table(Problem(50_000, 24, 300, 0.3), options.rounds, (5_000, 10_000, 20_000), with_exact=False)
    elif not options.features:
        hdbscan_table(Problem(10_000, 24, 100, 0.3), options.rounds, (5_000,), with_exact=True)


if __name__ == "__main__":
    main()
