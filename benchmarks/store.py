"""Writing and reading an embedding file against a raw file, and against HDF5 as one would write it first.

    python -m benchmarks.store                          # 200,000 x 512 float32
    python -m benchmarks.store --rows 1000000 --dtype float16 --folder /where/there/is/a/disk

Writing: the same rows, of unit length, in blocks of 8,192; every file is synced to the disk before the clock stops.
`EmbeddingStore` writes ids as well, which the raw file does not have. Reading: 20,000 random rows one at a time, from a
file in the page cache. Opening: a file this process knows, and one that another process tries first
(`wscl_embed.store.trial`). All take turns in one process, and the median of the rounds counts. Before, every file is
read back and checked to hold the rows.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from wscl_embed import EmbeddingStore

BLOCK = 8192
READS = 20_000
Rows = NDArray[np.floating]
Writer = Callable[[Path, Rows, list[str]], None]


def tofile(path: Path, rows: Rows, ids: list[str]) -> None:
    """One array into one raw file."""
    with path.open("wb") as file:
        rows.tofile(file)
        file.flush()
        os.fsync(file.fileno())


def ours(path: Path, rows: Rows, ids: list[str]) -> None:
    """`EmbeddingStore.create`."""
    with EmbeddingStore.create(path, rows.shape[1], dtype=rows.dtype.name) as writer:
        for start in range(0, len(rows), BLOCK):
            writer.append(ids[start : start + BLOCK], rows[start : start + BLOCK])


def scaled(path: Path, rows: Rows, ids: list[str]) -> None:
    """The same with rows that must be scaled to unit length first."""
    ours(path, LONGER[0], ids)


def chunked(path: Path, rows: Rows, ids: list[str]) -> None:
    """Resizable datasets in chunks of 256 rows, flushed after every block so that a kill leaves them readable."""
    with h5py.File(path, "w") as file:
        dim = rows.shape[1]
        embeddings = file.create_dataset("embeddings", (0, dim), rows.dtype, maxshape=(None, dim), chunks=(256, dim))
        names = file.create_dataset("ids", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(4096,))
        for start in range(0, len(rows), BLOCK):
            stop = min(len(rows), start + BLOCK)
            embeddings.resize((stop, dim))
            names.resize((stop,))
            embeddings[start:stop], names[start:stop] = rows[start:stop], ids[start:stop]
            file.flush()
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


LONGER: list[Rows] = []  # twice the rows
WRITERS: dict[str, Writer] = {
    "ndarray.tofile": tofile,
    "EmbeddingStore": ours,
    "EmbeddingStore, rows to be scaled": scaled,
    "h5py, chunks of 256 rows": chunked,
}


def time_writers(folder: Path, rows: Rows, ids: list[str], rounds: int) -> dict[str, float]:
    """The median seconds of each, taking turns."""
    seconds: dict[str, list[float]] = {name: [] for name in WRITERS}
    for number in range(rounds + 1):
        for name, write in WRITERS.items():
            path = folder / name.replace(" ", "-")
            path.unlink(missing_ok=True)
            os.sync()
            start = time.perf_counter()
            write(path, rows, ids)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def open_readers(folder: Path, rows: Rows) -> dict[str, Callable[[int], Rows]]:
    """How each gives one row, after a check that all hold the same."""
    raw = np.memmap(folder / "ndarray.tofile", rows.dtype, "r", shape=rows.shape)
    store = EmbeddingStore(folder / "EmbeddingStore")
    naive = h5py.File(folder / "h5py,-chunks-of-256-rows", "r")["embeddings"]
    plain = h5py.File(folder / "EmbeddingStore", "r")["embeddings"]
    sources = {"np.memmap": raw, "EmbeddingStore": store.embeddings, "its file with plain h5py": plain, "h5py": naive}
    for name, source in sources.items():
        np.testing.assert_array_equal(source[:], rows, err_msg=name)
    return {
        "np.memmap of the raw file": raw.__getitem__,
        "EmbeddingStore": store.embeddings.__getitem__,
        "its file with plain h5py": plain.__getitem__,
        "h5py, chunks of 256 rows": naive.__getitem__,
    }


def time_readers(readers: dict[str, Callable[[int], Rows]], n: int, rounds: int) -> dict[str, float]:
    """The median seconds for `READS` random rows, taking turns."""
    chosen = np.random.default_rng(0).integers(0, n, READS).tolist()
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for number in range(rounds + 1):
        for name, read in readers.items():
            start = time.perf_counter()
            for row in chosen:
                read(row).sum()  # the row itself, not a promise of it
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def time_opening(path: Path, rounds: int) -> dict[str, float]:
    """The median seconds of opening a file, taking turns: known to this process, and to be tried by another first."""

    def open_once() -> float:
        start = time.perf_counter()
        EmbeddingStore(path).close()
        return time.perf_counter() - start

    seconds: dict[str, list[float]] = {"tried before": [], "not tried before": []}
    for _ in range(rounds):
        seconds["tried before"].append(open_once())
        os.utime(path)  # as if by somebody else
        seconds["not tried before"].append(open_once())
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--dtype", choices=["float32", "float16"], default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where to write [the system's temporary folder]")
    options = parser.parse_args()
    rows = np.random.default_rng(0).standard_normal((options.rows, options.dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows.astype(options.dtype)
    LONGER.append(rows * np.asarray(2, rows.dtype))
    ids = [f"images/photo-{number:08d}.jpg" for number in range(options.rows)]
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        writing = time_writers(folder, rows, ids, options.rounds)
        reading = time_readers(open_readers(folder, rows), options.rows, options.rounds)
        opening = time_opening(folder / "EmbeddingStore", options.rounds)
    finally:
        shutil.rmtree(folder)
    where = f"{os.cpu_count()} cores, {platform.machine()}, h5py {h5py.version.version}, NumPy {np.__version__}"
    what = f"{options.rows:,} x {options.dim} {options.dtype}, {rows.nbytes / 1e6:.0f} MB"
    print(f"{what}, median of {options.rounds}; {where}")
    print("\n| written by | time | MB/s | speed / tofile |\n| --- | --- | --- | --- |")
    for name, taken in writing.items():
        speed = writing["ndarray.tofile"] / taken
        print(f"| {name} | {1000 * taken:.0f} ms | {rows.nbytes / 1e6 / taken:.0f} | {speed:.2f} |")
    print(f"\n| {READS:,} random rows by | rows/s | time / memmap |\n| --- | --- | --- |")
    for name, taken in reading.items():
        print(f"| {name} | {READS / taken:,.0f} | {taken / reading['np.memmap of the raw file']:.2f} |")
    print("\n| opening a file | time |\n| --- | --- |")
    for name, taken in opening.items():
        print(f"| {name} | {1000 * taken:.1f} ms |")


if __name__ == "__main__":
    main()
