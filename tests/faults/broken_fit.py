"""Run by test_broken_runs.py: runs of `fit` that lose an image, their disk or their numbers, and are continued.

    LD_PRELOAD=shim.so python -m tests.faults.broken_fit FOLDER DATA OPTION...

Prints, as JSON, of each kind of break: exit code, last line, checkpoint; and whether, mended and continued by
``--resume``, it came to the same end as a run nobody disturbed.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.forked import hidden, last_checkpoint, load_everything, run, start, wait
from tests.faults.killed_fit import results
from tests.faults.refused_writes import KINDS
from wscl_embed.train.saving import Saving

STEP = (1, 1)  # the first step of the second epoch is done


def move_images(data: Path) -> None:
    """Have all images be gone after `STEP`, as when a network disk is."""
    after_step = Saving.after_step

    def moving(self: Saving) -> None:
        after_step(self)
        if (self.progress.epoch, self.progress.step) == STEP:
            (data / "images").rename(data / "away")

    Saving.after_step = moving  # type: ignore[method-assign]


def fill_disk(below: str, write: int) -> None:
    """Have the disk be full from this write on, of those to paths that begin so."""
    ctypes.CDLL(None).arm(ctypes.c_long(write), *KINDS["ENOSPC"], below.encode())


def broken(command: list[str], output: Path, prepare: Callable[[], None], *more: str) -> dict[str, Any]:
    """Run ``command``, which ends before its end; what came of it."""
    log = output.with_suffix(".log")
    code = wait(start([*command, "--output", str(output), "--resume", *more], log, prepare))
    lines = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    report = {"code": code, "lines": lines, "checkpoint": last_checkpoint(output), "hidden": hidden(output)}
    return {**report, "finished": (output / "metrics.json").exists()}


def continued(command: list[str], output: Path, whole: object) -> dict[str, Any]:
    """Run it again."""
    code = run([*command, "--output", str(output), "--resume"], output.with_suffix(".log"))
    return {"code": code, "same": code == 0 and results(output) == whole, "hidden": hidden(output)}


def main(folder: Path, data: Path, options: list[str]) -> None:
    """One undisturbed run, then those that are broken."""
    load_everything()
    command = ["fit", "--data", str(data), *options]
    assert run([*command, "--output", str(folder / "whole")], folder / "whole.log") == 0
    whole = results(folder / "whole")
    found = {}
    for name, prepare in (
        ("image", partial(move_images, data)),
        (
            "checkpoint",
            partial(fill_disk, f"{folder}/checkpoint/checkpoints/.epoch-00000-step-0000002", 5),
        ),
        ("embeddings", partial(fill_disk, f"{folder / 'embeddings'}/.embeddings.h5", 20)),
    ):
        found[name] = broken(command, folder / name, prepare)
        if (data / "away").exists():
            (data / "away").rename(data / "images")
        found[name]["then"] = continued(command, folder / name, whole)
    found["rate"] = broken(command, folder / "rate", lambda: None, "--learning-rate", "1e9", "--weight-decay", "1e9")
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
