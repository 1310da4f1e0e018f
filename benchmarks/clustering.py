"""k-means and HDBSCAN of many rows: the package's ways against the libraries' own.

    python -m benchmarks.clustering                            # minutes
    python -m benchmarks.clustering --full                     # the sizes the large ways are for
    python -m benchmarks.clustering --features rows.npy        # k-means of your own (n, F) rows

Rows are drawn from normal clusters, a tenth of them (for HDBSCAN three tenths) from anywhere. Each run has a process of
its own, so that its peak memory is its own: what the process grew by beyond the rows. The runs of a table take turns,
and the median of the rounds counts. Beside the time of the clock stands that of the processors, which other work on the
machine disturbs less. Quality: the inertia (sum of squared distances to the mean of the own cluster) as a ratio to
MiniBatchKMeans', and the adjusted Rand index with the clusters the rows were drawn from.
"""

from __future__ import annotations

import argparse
import ctypes
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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


@dataclass(frozen=True)
class Outcome:
    """What a run took, and what came of it."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    labels: Labels


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


def hdbscan_of_a_sample(rows: Rows, k: int, *, sample: int) -> Labels:
    """The package's HDBSCAN, trained on ``sample`` rows."""
    import wscl_embed.clusterers.density as density

    density.EXACT_ROWS = sample
    return density.cluster_hdbscan(rows, 5, seed=0).labels


Way = Callable[[Rows, int], Labels]


def run(way: Way, problem: Problem) -> Outcome:
    """One run, in this process."""
    way(np.random.default_rng(0).normal(size=(200, problem.dims)).astype(np.float32), 2)  # imports
    rows, _ = problem.make()
    forget_peak()
    before, start, cpu = peak(), time.perf_counter(), time.process_time()
    labels = way(rows, problem.k)
    taken = time.perf_counter() - start, time.process_time() - cpu
    return Outcome(*taken, (peak() - before) / 1e6, labels)


def forget_peak() -> None:
    """Have Linux count the peak memory of this process from now on, and from what is really in use."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> float:
    """The peak resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return 1024 * float(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def turns(ways: dict[str, Way], problem: Problem, rounds: int) -> dict[str, Outcome]:
    """The median time, processor time and memory of each way, and its labels, which every round must repeat."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                outcomes[name].append(pool.submit(run, way, problem).result())
    for name, made in outcomes.items():
        assert all((one.labels == made[0].labels).all() for one in made), f"{name} is not repeatable"
    middle = statistics.median
    return {
        name: Outcome(
            middle(one.seconds for one in made),
            middle(one.cpu_seconds for one in made),
            middle(one.megabytes for one in made),
            made[0].labels,
        )
        for name, made in outcomes.items()
    }


def inertia(rows: Rows, labels: Labels) -> float:
    """The sum of squared distances to the mean of the own cluster."""
    sizes = np.bincount(labels)
    means = np.zeros((len(sizes), rows.shape[1]))
    np.add.at(means, labels, rows)
    means /= np.maximum(sizes, 1)[:, None]
    steps = range(0, len(rows), 10_000)
    return float(sum(((rows[a : a + 10_000] - means[labels[a : a + 10_000]]) ** 2).sum() for a in steps))


def kmeans_table(problem: Problem, rounds: int, with_lloyd: bool) -> None:
    """Print the table of k-means."""
    from sklearn.metrics import adjusted_rand_score

    ways: dict[str, Way] = {
        "ours, faiss": partial(ours, with_faiss=True),
        "ours, mini-batches": partial(ours, with_faiss=False),
        "faiss as it comes": faiss_as_it_comes,
        **({"scikit-learn KMeans": lloyd} if with_lloyd else {}),
    }
    rows, truth = problem.make()
    outcomes = turns(ways, problem, rounds)
    base = inertia(rows, outcomes["ours, mini-batches"].labels)
    print(f"\nk-means, {len(rows):,} x {rows.shape[1]}, k = {problem.k:,}\n")
    print("| way | time | processor time | peak memory | inertia / mini-batches' | ARI |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, one in outcomes.items():
        known = truth >= 0
        ari = f"{adjusted_rand_score(truth[known], one.labels[known]):.3f}" if known.any() else ""
        ratio = inertia(rows, one.labels) / base
        print(
            f"| {name} | {one.seconds:.1f} s | {one.cpu_seconds:.1f} s | {one.megabytes:.0f} MB | {ratio:.3f} | {ari} |"
        )


def hdbscan_table(problem: Problem, rounds: int, samples: Sequence[int], with_exact: bool) -> None:
    """Print the table of HDBSCAN."""
    from sklearn.metrics import adjusted_rand_score

    ways: dict[str, Way] = {"hdbscan, all rows": hdbscan_of_all, "scikit-learn, all rows": scikit_hdbscan}
    ways = ways if with_exact else {}
    for sample in samples:
        ways[f"ours, sample of {sample:,}"] = partial(hdbscan_of_a_sample, sample=sample)
    _, truth = problem.make()
    known = truth >= 0
    outcomes = turns(ways, problem, rounds)
    print(f"\nHDBSCAN, {problem.n:,} x {problem.dims}, {problem.k} clusters and {problem.noise:.0%} noise\n")
    print("| way | time | processor time | peak memory | clusters | noise | ARI of the rows in a cluster |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, one in outcomes.items():
        ari = adjusted_rand_score(truth[known], one.labels[known])
        print(
            f"| {name} | {one.seconds:.1f} s | {one.cpu_seconds:.1f} s | {one.megabytes:.0f} MB | "
            f"{one.labels.max() + 1} | {(one.labels < 0).mean():.1%} | {ari:.3f} |"
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--features", default="", help="a .npy file of (n, F) rows: k-means of them alone")
    parser.add_argument("--clusters", type=int, help="k; default 5 sqrt(n)")
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}")
    n = 200_000 if options.full else 20_000
    if options.features:
        n, dims = np.load(options.features, mmap_mode="r").shape
        problem = Problem(n, dims, round(5 * n**0.5), path=options.features)
    else:
        problem = Problem(n, 64, round(5 * n**0.5))
    if options.clusters:
        problem = replace(problem, k=options.clusters)
    kmeans_table(problem, options.rounds, with_lloyd=n <= 50_000)
    if not options.features and options.full:
        hdbscan_table(Problem(50_000, 24, 300, 0.3), options.rounds, (5_000, 10_000, 20_000), with_exact=False)
    elif not options.features:
        hdbscan_table(Problem(10_000, 24, 100, 0.3), options.rounds, (2_500, 5_000), with_exact=True)


if __name__ == "__main__":
    main()
