"""Runs of the command line that lose an image, their disk or their numbers: one line, an exit code, and --resume."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_killed_runs import COMMON
from tests.faults.test_refused_writes import shim  # noqa: F401 - a fixture

Found = dict[str, dict[str, Any]]
FULL = ["--adapter", "none", "--tune", "full", "--unlocked-groups", 1, "--epochs", 2, "--batch-size", 16]


@pytest.fixture(scope="module")
def found(shim: Path, emoji_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:  # noqa: F811
    folder = tmp_path_factory.mktemp("broken")
    data = folder / "data"
    (data / "images").mkdir(parents=True)
    records = (emoji_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[::4]
    (data / "metadata.jsonl").write_text("".join(records), encoding="utf-8")
    for record in records:
        name = json.loads(record)["file_name"]
        shutil.copyfile(emoji_folder / name, data / name)
    command = [sys.executable, "-m", "tests.faults.broken_fit", folder, data, *FULL, *COMMON]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WSCL_EMBED_CACHE": str(folder / "cache")}
    environment["LD_PRELOAD"] = str(shim)
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    report: Found = json.loads(done.stdout.splitlines()[-1])
    return report


@pytest.mark.parametrize(
    ("name", "code", "said", "checkpoint"),
    [
        ("image", 6, r"image \S+ \(\S+\.png\) was readable at the start of the run .+", "00001-step-0000001"),
        ("checkpoint", 5, r"\S+: cannot be written \(No space left on device\)\.", "00000-step-0000001"),
        ("embeddings", 5, r"\S+/embeddings\.h5: cannot be written \(No space .+\)\.", "00002-step-0000000"),
    ],
)
def test_what_breaks_is_said_in_a_line_and_continued_to_the_same_end(
    name: str, code: int, said: str, checkpoint: str, found: Found
) -> None:
    broken = found[name]
    assert broken["code"] == code
    assert len(broken["lines"]) == 1
    assert re.fullmatch(f"error: {said}", broken["lines"][0])
    assert broken["checkpoint"].startswith(f"epoch-{checkpoint}")
    assert not broken["finished"]
    assert broken["then"] == {"code": 0, "same": True, "hidden": []}


def test_a_learning_rate_that_is_far_too_high(found: Found) -> None:
    broken = found["rate"]
    assert broken["code"] == 3
    assert len(broken["lines"]) == 1
    assert "try a lower --learning-rate (now 1000000000.0)" in broken["lines"][0]
    assert not broken["finished"]
    assert broken["hidden"] == []
