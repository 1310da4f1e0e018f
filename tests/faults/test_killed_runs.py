"""Runs of `fit` that are killed (SIGKILL) at random moments end, resumed, in the bits of a run nobody disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import IMAGE_SIZE

COMMON = ["--image-size", IMAGE_SIZE, "--workers", 0, "--device", "cpu", "--save-every", 1, "--cached-views", 1]
HEAD = ["--adapter", "image_features:n_clusters=8", "--recluster-every", 2, "--epochs", 5, "--batch-size", 32]
FULL = ["--adapter", "hashtags:n_clusters=8", "--tune", "full", "--epochs", 2, "--batch-size", 16]
FULL += ["--unlocked-groups", 2, "--projection", "mlp"]


def killed(tmp_path: Path, data: Path, kills: int, options: list[object]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.faults.killed_fit", tmp_path, kills, "--data", data, *options, *COMMON]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WSCL_EMBED_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("mode", "kills"),
    [
        ("head", 3),
        pytest.param("head", 20, marks=pytest.mark.slow),
        pytest.param("full", 20, marks=pytest.mark.slow),
    ],
)
def test_random_kills_change_no_bit(mode: str, kills: int, emoji_folder: Path, tmp_path: Path) -> None:
    found = killed(tmp_path, emoji_folder, kills, HEAD if mode == "head" else FULL)
    assert kills / 2 < len(found["kills"]) <= kills
    assert len(set(found["kills"])) > kills / 2  # at different moments, that is
    assert found["same"]
    assert found["hidden"] == []  # what the killed processes left under temporary names is cleared
