"""A full or broken disk, and SIGKILL, at every single write of every kind of file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = Path(__file__).with_name("shim.c")


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``shim.c`` as a library to load before the others."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or not sys.platform.startswith("linux"):
        pytest.skip("NO C COMPILER (OR NO LINUX), SO NO WRITE WAS REFUSED. Install one: apt-get install gcc libc6-dev")
    library = tmp_path_factory.mktemp("shim") / "shim.so"
    options = ["-O1", "-Wall", "-shared", "-fPIC", "-U_FORTIFY_SOURCE"]
    subprocess.run([compiler, *options, "-o", str(library), str(SHIM), "-ldl"], check=True)
    return library


def run(module: str, shim: Path, *arguments: object) -> str:
    command = [sys.executable, "-m", module, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "LD_PRELOAD": str(shim)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 9])
def test_every_write_may_be_refused_or_the_last(step: int, shim: Path, tmp_path: Path) -> None:
    """`make test` takes every ninth fault, `make faults` all."""
    points = json.loads(run("tests.faults.refused_writes", shim, tmp_path, step))
    assert len(points) == 7
    assert min(points.values()) >= 6  # so many writes has even the smallest file
    assert points["checkpoint"] > 20
    assert points["embeddings.h5"] > 20
