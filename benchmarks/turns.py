"""Ways of doing the same, each run in a process of its own, taking turns: time, processor time, peak memory, result.

A way is a picklable function that prepares (imports, reads or draws its input, warms up) and returns what is timed. Its
memory is what its process grew by beyond what it had prepared. The medians of the rounds count.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Way = Callable[[], Callable[[], Any]]


@dataclass(frozen=True)
class Outcome:
    """What a way took, and what came of it."""

    seconds: float
    cpu_seconds: float
    megabytes: float
    result: Any


def turns(ways: Mapping[str, Way], rounds: int) -> dict[str, list[Outcome]]:
    """The outcomes of each way, round by round."""
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            outcomes[name].append(alone(way))
    return outcomes


def alone(way: Way) -> Outcome:
    """One run, in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, way).result()


def middle(outcomes: list[Outcome]) -> Outcome:
    """The median of each figure; the result of the first."""
    return Outcome(
        statistics.median(one.seconds for one in outcomes),
        statistics.median(one.cpu_seconds for one in outcomes),
        statistics.median(one.megabytes for one in outcomes),
        outcomes[0].result,
    )


def ratio(ours: list[Outcome], theirs: list[Outcome]) -> str:
    """Their time by the clock over ours, taken within each round: the median, and the range."""
    ratios = [other.seconds / one.seconds for one, other in zip(ours, theirs, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})"


def machine() -> str:
    """What the tables were made on."""
    threads = os.environ.get("OMP_NUM_THREADS", "unset")
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, {platform.machine()}, OMP_NUM_THREADS={threads}, load average {load:.1f}"


def _run(way: Way) -> Outcome:
    job = way()
    forget_peak()
    before, start, cpu = peak(), time.perf_counter(), cpu_time()
    result = job()
    taken = time.perf_counter() - start, cpu_time() - cpu
    return Outcome(*taken, (peak() - before) / 1e6, result)


def cpu_time() -> float:
    """Seconds of the processors that this process took, and those it started that have ended."""
    return sum(os.times()[:4])


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
