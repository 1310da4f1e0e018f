"""Run by test_stopped_runs.py: runs of `fit` that are asked to stop by a signal, and continued as they say.

    python -m tests.faults.stopped_fit FOLDER OPTION...

Prints, as JSON, of each kind of stop: exit code, last line, checkpoint, and whether continuing gave the same weights.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tests.faults.forked import hidden, last_checkpoint, load_everything, run, start, wait
from tests.faults.killed_fit import results
from wscl_embed import stages
from wscl_embed.train.saving import Saving


def stop(command: list[str], output: Path, prepare: Callable[[], None]) -> dict[str, Any]:
    """Run ``command`` in a process that gets a signal; what came of it."""
    log = output.with_suffix(".log")
    code = wait(start([*command, "--output", str(output), "--resume"], log, prepare))
    found = {"code": code, "lines": log.read_text().splitlines(), "checkpoint": last_checkpoint(output)}
    found["written"] = output.exists()
    return found


def continued(said: str, log: Path) -> int:
    """Run the command a message ends in; its exit code."""
    program, *arguments = shlex.split(said.partition("Continue with: ")[2])
    assert program == "wscl-embed"
    return run(arguments, log)


def in_training(signum: int) -> None:
    """Have this process get the signal in the third step of the second epoch."""
    step = Saving.after_step

    def after_step(self: Saving) -> None:
        if (self.progress.epoch, self.progress.step) == (1, 3):
            os.kill(os.getpid(), signum)
        step(self)

    Saving.after_step = after_step  # type: ignore[method-assign]


def before_training(signum: int) -> None:
    """Have this process get the signal while it reads the dataset."""
    stages.open_dataset = lambda *arguments: os.kill(os.getpid(), signum)  # type: ignore[assignment]


def main(folder: Path, command: list[str]) -> None:
    """One undisturbed run, then those that are stopped."""
    load_everything()
    assert run([*command, "--output", str(folder / "whole")], folder / "whole.log") == 0
    whole = results(folder / "whole")
    found: dict[str, dict[str, Any]] = {}
    for name, prepare in (
        ("SIGTERM", partial(in_training, signal.SIGTERM)),
        ("SIGINT", partial(in_training, signal.SIGINT)),
        ("early", partial(before_training, signal.SIGTERM)),
    ):
        found[name] = stop(command, folder / name, prepare)
    code = continued(found["SIGTERM"]["lines"][-1], folder / "continued.log")
    found["after"] = {"code": code, "same": results(folder / "SIGTERM") == whole, "hidden": hidden(folder)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), ["fit", *sys.argv[2:]])
