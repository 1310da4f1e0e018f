"""Run by test_killed_runs.py: a run of `fit` is killed (SIGKILL) again and again at random moments, and resumed.

    python -m tests.faults.killed_fit FOLDER KILLS OPTION...

The moment is a random step, and a random time after its checkpoint appeared, mostly while the next is written. Prints,
as JSON, after which checkpoint each kill came, and whether the end is that of a run nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.faults.forked import hidden, last_checkpoint, load_everything, run, start, wait, wait_until


def killed_and_resumed(command: list[str], output: Path, steps: list[str], kills: int) -> list[str]:
    """Run ``command`` to its end, killed so many times on the way; the last checkpoint at each kill.

    Args:
        steps: the names of all checkpoints of a whole run, in their order.
    """
    rng = random.Random(0)
    seen = []
    log = output.with_name("killed.log")
    for number in range(kills):
        behind = steps.index(last) + 1 if (last := last_checkpoint(output)) else 0
        ahead = len(steps) - behind
        target = steps[min(behind + rng.randrange(max(1, ahead // (kills - number))), len(steps) - 1)]
        pid = start([*command, "--output", str(output), "--resume"], log)
        if not wait_until(lambda name=target: last_checkpoint(output) >= name, pid):  # type: ignore[misc]
            raise AssertionError(log.read_text())
        time.sleep(rng.random() * 0.06)
        os.kill(pid, signal.SIGKILL)
        if wait(pid) != -signal.SIGKILL:  # it was quicker
            break
        seen.append(last_checkpoint(output))
    if run([*command, "--output", str(output), "--resume"], log) != 0:
        raise AssertionError(log.read_text())
    return seen


def results(output: Path) -> tuple[bytes, bytes, object]:
    """What must be the same bit by bit: weights, clusters, and what was said of each epoch."""
    weights = (output / "model" / "open_clip_model.safetensors").read_bytes()
    training = json.loads((output / "metrics.json").read_text())["training"]
    return weights, (output / "clusters.parquet").read_bytes(), training


def main(folder: Path, kills: int, command: list[str]) -> None:
    """A whole run, then one that is killed."""
    load_everything()
    whole, killed, names = folder / "whole", folder / "killed", []
    pid = start([*command, "--output", str(whole)], folder / "whole.log")

    def noted() -> bool:
        names.append(last_checkpoint(whole))
        return False

    wait_until(noted, pid)
    if wait(pid) != 0:
        raise AssertionError((folder / "whole.log").read_text())
    steps = sorted(set(filter(None, names)))
    seen = killed_and_resumed(command, killed, steps, kills)
    same = results(killed) == results(whole)
    print(json.dumps({"steps": len(steps), "kills": seen, "same": same, "hidden": hidden(folder)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), ["fit", *sys.argv[3:]])
