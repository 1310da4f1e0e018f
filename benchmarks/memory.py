"""What a command takes over time: it is run as a process, and the memory of all its processes is read every second.

Counted is the proportional share of every page (``/proc/PID/smaps_rollup``, Linux), so that what a parent and its
workers share counts once. ``own`` is memory only the kill of the process frees; pages of mapped files, which the system
takes back when it needs them, come on top in ``whole``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

MIB = 1024.0  # kB, as /proc has it


@dataclass(frozen=True)
class Sample:
    """After ``seconds`` a share ``done`` (0 to 1) of the work; ``own`` and ``whole`` memory in MiB."""

    seconds: float
    done: float
    own: float
    whole: float


@dataclass(frozen=True)
class Watched:
    """A command that ended: its name, the samples, the seconds from start to end, and what it printed."""

    name: str
    samples: list[Sample]
    seconds: float
    output: str

    @property
    def peak(self) -> Sample:
        """The sample with the most memory of its own."""
        return max(self.samples, key=lambda sample: sample.own)

    @property
    def most_mapped(self) -> float:
        """The most memory with mapped files, MiB."""
        return max(sample.whole for sample in self.samples)

    def at(self, share: float) -> Sample:
        """The first sample at which so much of the work was done."""
        return next((sample for sample in self.samples if sample.done >= share), self.samples[-1])


def watch(
    name: str, command: Sequence[str], *, done: Callable[[], float] | None = None, every: float = 1.0, limit: float
) -> Watched:
    """Run ``python -m COMMAND`` to its end.

    Args:
        name: in the table and the picture.
        command: the module and its arguments.
        done: tells how much of the work is done; None: counted by time.
        every: seconds between samples.
        limit: seconds after which it is killed.

    Raises:
        RuntimeError: it failed (with what it said), or took longer than ``limit``.
    """
    samples: list[Sample] = []
    with tempfile.TemporaryFile("w+") as said:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=said, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                own, whole = memory_of(process.pid)
                seconds = time.perf_counter() - start
                samples.append(Sample(seconds, done() if done else 0.0, own, whole))
                if seconds > limit:
                    raise RuntimeError(f"{name}: more than {limit:.0f} s")
                time.sleep(every)
        finally:
            process.kill()
            process.wait()
        seconds = time.perf_counter() - start
        said.seek(0)
        output = said.read()
    if process.returncode:
        raise RuntimeError(f"{name}: exit code {process.returncode}\n{output}")
    if done is None:
        samples = [replace(one, done=one.seconds / seconds) for one in samples]
    return Watched(name, samples, seconds, output)


def memory_of(pid: int) -> tuple[float, float]:
    """MiB of a process and all it started: its own, and with the pages of mapped files."""
    own = whole = 0.0
    for one in [pid, *descendants(pid)]:
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        except OSError:  # it has just ended
            continue
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        whole += sizes["Pss"] / MIB
        own += (sizes["Pss"] - sizes["Pss_File"]) / MIB
    return own, whole


def descendants(pid: int) -> list[int]:
    """The processes a process started, and those they started."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        found = {int(child) for task in tasks for child in (task / "children").read_text(encoding="ascii").split()}
    except OSError:
        return []
    return [one for child in sorted(found) for one in (child, *descendants(child))]
