"""How long a command takes to answer: ours against those of other tools, each started anew, taking turns.

    python -m benchmarks.startup

What is not installed is left out. The bare interpreter stands for what nobody can save.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec

from benchmarks.turns import machine

PYTHON = sys.executable
OURS = "wscl-embed --help"
COMMANDS: dict[str, tuple[str, list[str]]] = {  # name -> the module that must be there, the command
    OURS: ("wscl_embed", ["-m", "wscl_embed", "--help"]),
    "wscl-embed --version": ("wscl_embed", ["-m", "wscl_embed", "--version"]),
    "wscl-embed fit --help": ("wscl_embed", ["-m", "wscl_embed", "fit", "--help"]),
    "wscl-embed adapters": ("wscl_embed", ["-m", "wscl_embed", "adapters"]),
    "python -c pass": ("sys", ["-c", "pass"]),
    "open_clip_train --help": ("open_clip_train", ["-m", "open_clip_train.main", "--help"]),
    "hf --help": ("huggingface_hub", ["-m", "huggingface_hub.cli.hf", "--help"]),
    "datasets-cli --help": ("datasets", ["-m", "datasets.commands.datasets_cli", "--help"]),
    "torchrun --help": ("torch", ["-m", "torch.distributed.run", "--help"]),
}


def take(arguments: Sequence[str]) -> tuple[float, float]:
    """Seconds by the clock and of the processors."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([PYTHON, *arguments], capture_output=True, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)}: {done.stderr.decode()[-500:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    there = {name: command for name, (module, command) in COMMANDS.items() if find_spec(module) is not None}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in there}
    for number in range(options.rounds + 1):
        for name, command in there.items():
            one = take(command)
            if number:  # the first round reads the files from the disk
                taken[name].append(one)
    print(f"median of {options.rounds}; {machine()}\n")
    print(f"| command | time | processor time | its time / that of {OURS} |\n| --- | --- | --- | --- |")
    for name, rounds in taken.items():
        ratios = [theirs[0] / own[0] for own, theirs in zip(taken[OURS], rounds, strict=True)]
        clock, processor = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(f"| {name} | {1000 * clock:.0f} ms | {1000 * processor:.0f} ms | {statistics.median(ratios):.1f} |")


if __name__ == "__main__":
    main()
