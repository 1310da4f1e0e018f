"""SIGTERM and Ctrl-C: a checkpoint, a line that says how to continue, an exit code, and the same end in the end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_killed_runs import COMMON
from wscl_embed import interruption
from wscl_embed.interruption import Interrupted


@pytest.fixture(scope="module")
def stopped(emoji_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("stopped")
    options = ["--adapter", "none", "--epochs", 3, "--batch-size", 16, *COMMON]
    command = [sys.executable, "-m", "tests.faults.stopped_fit", folder, "--data", emoji_folder, *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WSCL_EMBED_CACHE": str(folder / "cache")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_a_signal_in_training_is_answered_after_the_step(name: str, code: int, stopped: dict[str, Any]) -> None:
    found = stopped[name]
    assert found["code"] == code
    *_, noted, said = filter(None, found["lines"])  # rich 13 leaves a blank line where a bar was
    again = "; Ctrl-C again leaves at once" if name == "SIGINT" else ""
    assert noted == f"{name}: stopping after this step{again}"
    assert said.startswith(f"stopped by {name}. Training up to step 3 of epoch 2 is in ")
    assert found["checkpoint"] == "epoch-00001-step-0000003"
    assert "Continue with: wscl-embed fit --data" in said


def test_a_signal_before_training_is_answered_at_once(stopped: dict[str, Any]) -> None:
    found = stopped["early"]
    assert found["code"] == 143
    assert found["lines"][-1].startswith("stopped by SIGTERM. Training had not begun; features of all images that were")
    assert not found["written"]


def test_the_command_that_was_said_continues_to_the_same_end(stopped: dict[str, Any]) -> None:
    assert stopped["after"] == {"code": 0, "same": True, "hidden": []}


def test_a_second_ctrl_c_leaves_at_once() -> None:
    """Also from within something that never comes back to Python: the system ends the process."""
    code = (
        "import sys, time\nfrom wscl_embed.interruption import deferred, handled, requested\n"
        "with handled(), deferred():\n    print('ready', flush=True)\n"
        "    while not requested():\n        time.sleep(0.01)\n"
        "    print('first', flush=True)\n    import threading\n    threading.Lock().acquire()\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "first\n"
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGINT
    assert said == "SIGINT: stopping after this step; Ctrl-C again leaves at once\n"


def test_outside_of_training_a_signal_is_an_exception_nothing_swallows() -> None:
    def decode() -> None:
        with interruption.handled(), interruption.keeping("All is kept."), interruption.keeping(""):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            except Exception as error:  # what a decoder of images does
                raise AssertionError from error

    with pytest.raises(Interrupted, match=r"^stopped by SIGTERM\. All is kept\.$") as stopped:
        decode()
    assert stopped.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_signal_somebody_ignores_stays_ignored() -> None:
    """nohup, and a shell's background jobs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruption.handled():
            os.kill(os.getpid(), signal.SIGINT)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
