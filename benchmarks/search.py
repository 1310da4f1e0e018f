"""Exact search, the k most similar of n rows: the package's against faiss, usearch and NumPy on the same rows.

    python -m benchmarks.search                        # 100,000 x 512
    python -m benchmarks.search --rows 1000000 --queries 1 10

Ours reads the rows from an embedding file, as `search` does; the others have them in memory as an array. All give the
same rows and scores, which is checked first, and take turns in one process; the median of the rounds counts. Memory is
measured once more, each way in a process of its own: what it grew by for the queries, the file's mapped pages included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.turns import alone, machine
from wscl_embed import EmbeddingStore
from wscl_embed.store.exact import nearest

Rows = NDArray[np.float32]
Found = tuple[Rows, NDArray[np.int64]]
Search = Callable[[Rows, int], Found]


def draw(n: int, dim: int) -> Rows:
    """(n, dim) rows of unit length."""
    rows = np.random.default_rng(0).standard_normal((n, dim), dtype=np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def ours(path: Path) -> Search:
    """`search` of an embedding file."""
    store = EmbeddingStore(path)
    return lambda queries, k: nearest(queries, store.embeddings, k)


def faiss_flat(path: Path) -> Search:
    """An `IndexFlatIP`."""
    import faiss

    rows = in_memory(path)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    return lambda queries, k: index.search(queries, k)


def usearch_exact(path: Path) -> Search:
    """usearch's search without an index."""
    from usearch.index import MetricKind, search

    rows = in_memory(path)
    threads = int(os.environ.get("OMP_NUM_THREADS", 0))

    def find(queries: Rows, k: int) -> Found:
        found = search(rows, queries, k, MetricKind.IP, exact=True, threads=threads)
        shape = len(queries), k
        return 1 - found.distances.reshape(shape), found.keys.reshape(shape).astype(np.int64)

    return find


def numpy_sorted(path: Path) -> Search:
    """A product and an argpartition."""
    rows = in_memory(path)

    def find(queries: Rows, k: int) -> Found:
        scores = queries @ rows.T
        some = np.argpartition(-scores, k, axis=1)[:, :k]
        order = np.argsort(-np.take_along_axis(scores, some, axis=1), axis=1)
        numbers = np.take_along_axis(some, order, axis=1)
        return np.take_along_axis(scores, numbers, axis=1), numbers

    return find


def in_memory(path: Path) -> Rows:
    """All rows as an array."""
    with EmbeddingStore(path) as store:
        return np.array(store.embeddings[:])


WAYS: dict[str, Callable[[Path], Search]] = {
    "ours": ours,
    "faiss IndexFlatIP": faiss_flat,
    "usearch, exact": usearch_exact,
    "NumPy, argpartition": numpy_sorted,
}


def prepare(way: Callable[[Path], Search], path: Path, queries: Rows, k: int) -> Callable[[], Found]:
    """For `benchmarks.turns.alone`."""
    return partial(way(path), queries, k)


def check_equal(one: Found, other: Found, name: str) -> None:
    """The same scores to rounding, and the same rows but where two scores are equal to rounding."""
    np.testing.assert_allclose(one[0], other[0], rtol=0, atol=1e-5, err_msg=name)
    assert (one[1] == other[1]).mean() > 0.999, name


def measure(path: Path, queries: Rows, k: int, rounds: int) -> None:
    """Print the lines of one number of queries."""
    searches = {name: way(path) for name, way in WAYS.items()}
    expected = searches["ours"](queries, k)
    for name, search in searches.items():
        check_equal(expected, search(queries, k), name)
    seconds: dict[str, list[float]] = {name: [] for name in searches}
    for _ in range(rounds):
        for name, search in searches.items():
            start = time.perf_counter()
            search(queries, k)
            seconds[name].append(time.perf_counter() - start)
    for name, taken in seconds.items():
        ratios = [theirs / own for own, theirs in zip(seconds["ours"], taken, strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})"
        memory = alone(partial(prepare, WAYS[name], path, queries, k)).megabytes
        time_a_query = 1000 * statistics.median(taken) / len(queries)
        print(f"| {len(queries):,} | {name} | {time_a_query:.2f} ms | {spread} | {memory:.0f} MB |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, nargs="+", default=[1, 100])
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.h5"
        rows = draw(options.rows + max(options.queries), options.dim)
        with EmbeddingStore.create(path, options.dim) as writer:
            writer.append([str(row) for row in range(options.rows)], rows[: options.rows])
        print(f"{options.rows:,} x {options.dim} float32, k = {options.k}, median of {options.rounds}; {machine()}\n")
        print("| queries at once | way | time a query | its time / ours, range | memory |\n" + "| --- " * 5 + "|")
        for count in options.queries:
            measure(path, rows[options.rows :][:count], options.k, options.rounds)


if __name__ == "__main__":
    main()
