"""``torchrun``: a process that dies, a signal to one of them, and a run that continues with another number of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.faults.forked import hidden, last_checkpoint
from tests.faults.test_killed_runs import COMMON
from tests.test_torchrun import embeddings

pytestmark = pytest.mark.slow
OPTIONS = ["--adapter", "image_features:n_clusters=8", "--recluster-every", 2, "--epochs", 4, "--batch-size", 32]


def launch(data: Path, output: Path, processes: int, to: int = -1, signum: int = 0) -> subprocess.CompletedProcess[str]:
    """`fit` with ``--resume`` on so many processes, of which number ``to`` gets a signal in the second epoch."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes] if processes > 1 else []
    run = ["-m", "tests.faults.ranks", to, signum, "fit", "--data", data, *OPTIONS, *COMMON, "--resume"]
    command = [sys.executable, *torchrun, *run, "--output", output]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)


@pytest.fixture(scope="module")
def whole(emoji_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes, undisturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    assert launch(emoji_folder, output, 1).returncode == 0
    return output


def assert_alike(run: Path, whole: Path) -> None:
    """To rounding: sums over two processes are in another order than over one, and AdamW makes it visible."""
    ours, theirs = embeddings(run / "embeddings.h5"), embeddings(whole / "embeddings.h5")
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=1e-3)
    losses = [
        [epoch["loss"] for epoch in json.loads((one / "metrics.json").read_text())["training"]] for one in (run, whole)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert hidden(run) == []


def test_a_process_that_dies_is_said_and_one_process_continues(emoji_folder: Path, whole: Path, tmp_path: Path) -> None:
    done = launch(emoji_folder, tmp_path / "run", 2, to=1, signum=signal.SIGKILL)
    assert done.returncode != 0
    assert "error: another process of this run has died" in done.stderr
    assert (
        last_checkpoint(tmp_path / "run") == "epoch-00001-step-0000002"
    )  # --save-every 1, and step 3 was not agreed on
    assert launch(emoji_folder, tmp_path / "run", 1).returncode == 0
    assert_alike(tmp_path / "run", whole)


def test_a_signal_to_one_stops_all_after_the_same_step_and_two_continue_what_one_began(
    emoji_folder: Path, whole: Path, tmp_path: Path
) -> None:
    done = launch(emoji_folder, tmp_path / "two", 2, to=1, signum=signal.SIGTERM)
    assert done.returncode != 0
    assert "stopped by SIGTERM. Training up to step 3 of epoch 2" in done.stderr
    assert "Continue with: torchrun --nproc-per-node 2 -m wscl_embed fit" in done.stderr
    assert last_checkpoint(tmp_path / "two") == "epoch-00001-step-0000003"

    done = launch(emoji_folder, tmp_path / "run", 1, to=0, signum=signal.SIGTERM)
    assert done.returncode == 143
    done = launch(emoji_folder, tmp_path / "run", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_alike(tmp_path / "run", whole)
