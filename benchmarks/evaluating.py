"""`evaluate` with every image as a query: time, memory, and its exact search against faiss's.

    export OMP_NUM_THREADS=1
    python -m benchmarks.evaluating                                                # 100,000 x 512, all of them query
    python -m benchmarks.evaluating --rows 1000000 --queries 134 402 --compare 0   # what a query more costs

Rows are drawn around directions, which are the labels (100 rows each at 100,000, 1,000 at a million), so that every
query looks as deep as its label has images. `evaluate` runs as a process of its own, its memory read every second; the
cost of a query is the slope between two numbers of queries. The search alone is compared on the same queries with
faiss's IndexFlatIP, taking turns, after both were seen to find the same similarities: faiss as it comes, and a chunk of
queries at a time, as ours has it.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.memory import Watched, watch

DIM, SPREAD, BLOCK = 512, 0.08, 65_536
Rows = NDArray[np.float32]


def centres_of(count: int) -> int:
    """How many labels: a thousand."""
    return max(2, min(1000, count // 100))


def labels_of(count: int) -> NDArray[np.int64]:
    """(n,) the label of each row."""
    return np.random.default_rng(1).integers(0, centres_of(count), count)


def write_rows(path: Path, count: int) -> None:
    """An embedding file of ``count`` rows around the directions of their labels, float16."""
    from wscl_embed import EmbeddingStore

    generator = np.random.default_rng(0)
    centres = generator.standard_normal((centres_of(count), DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = labels_of(count)
    with EmbeddingStore.create(path, DIM, dtype="float16") as writer:
        for start in range(0, count, BLOCK):
            block = labels[start : start + BLOCK]
            noise = SPREAD * generator.standard_normal((len(block), DIM), dtype=np.float32)
            writer.append([str(row) for row in range(start, start + len(block))], centres[block] + noise)


def score(path: Path, count: int, queries: int) -> None:
    """What the watched process does."""
    import datasets

    from wscl_embed import evaluate

    columns = {"id": [str(row) for row in range(count)], "label": labels_of(count).tolist()}
    data = datasets.Dataset.from_dict(columns)
    found = evaluate(path, data, "label", split=None, max_queries=queries)
    print(found["n_queries"], {name: round(value, 4) for name, value in found["after"].items()})


def watch_evaluate(path: Path, count: int, queries: int, limit: float) -> Watched:
    """`evaluate` with so many queries, watched."""
    command = ["benchmarks.evaluating", "--rows", str(count), "--score", str(path), "--queries", str(queries)]
    before = processor_seconds()
    run = watch(f"evaluate, {queries:,} queries", command, limit=limit)
    at = ", ".join(f"{run.at(share).own:,.0f}" for share in (0.1, 0.5, 0.95))
    print(
        f"{count:,} x {DIM}, {queries:,} queries: {run.seconds:.1f} s, processor "
        f"{processor_seconds() - before:.1f} s; MiB at 10, 50, 95 %: {at}; "
        f"peak {run.peak.own:,.0f}\n  {run.output.strip().splitlines()[-1]}",
        flush=True,
    )
    return run


def processor_seconds() -> float:
    """Of the processes that were watched, so far."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def compare_searches(path: Path, count: int, queries: int, rounds: int) -> None:
    """Seconds of our search and of faiss's for the same queries, taking turns."""
    import faiss

    from wscl_embed import EmbeddingStore
    from wscl_embed.evaluation.neighbours import chunk_size, nearest, unit_rows

    faiss.omp_set_num_threads(torch.get_num_threads())
    with EmbeddingStore(path) as store:
        unit = unit_rows(store.embeddings[:])
    k = count // centres_of(count) - 1
    rows = unit.numpy()
    flat = faiss.IndexFlatIP(DIM)
    flat.add(rows)
    step = chunk_size(count, 64 * k)

    def ours() -> Rows:
        return torch.cat([nearest(part, unit, k)[0] for part in torch.split(unit[:queries], step)]).numpy()

    def product() -> Rows:
        return torch.cat([(part @ unit.T)[:, :1] for part in torch.split(unit[:queries], step)]).numpy()

    def whole() -> Rows:
        return flat.search(rows[:queries], k)[0]  # type: ignore[no-any-return]

    def chunked() -> Rows:
        return np.concatenate([flat.search(rows[start : start + step], k)[0] for start in range(0, queries, step)])

    np.testing.assert_allclose(ours(), whole(), atol=1e-5)
    jobs: dict[str, Callable[[], Rows]] = {"ours": ours, "its product": product, "faiss": whole, "in chunks": chunked}
    times: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(rounds):
        for name, job in jobs.items():
            start = time.process_time()
            job()
            times[name].append(time.process_time() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    shown = ", ".join(f"{name} {value:.2f} s (x {medians['faiss'] / value:.2f})" for name, value in medians.items())
    print(f"search of {queries:,} queries at depth {k}, chunks of {step}, processor time (speed / faiss): {shown}")


def main() -> None:
    """Make the rows, compare the searches, run `evaluate`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--queries", type=int, nargs="+", help="[all]")
    parser.add_argument("--compare", type=int, default=2048, help="queries of the search alone; 0: leave it out")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--score", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, default=7200, help="seconds a command may take [%(default)s]")
    options = parser.parse_args()
    queries = options.queries or [options.rows]
    if options.score:
        return score(options.score, options.rows, queries[0])
    with tempfile.TemporaryDirectory(prefix="evaluating-") as folder:
        path = Path(folder) / "rows.h5"
        write_rows(path, options.rows)
        if options.compare:
            compare_searches(path, options.rows, options.compare, options.rounds)
        for number in queries:
            watch_evaluate(path, options.rows, number, options.limit)
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, load average {os.getloadavg()[0]:.1f}")
    return None


if __name__ == "__main__":
    main()
