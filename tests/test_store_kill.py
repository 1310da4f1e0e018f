"""Embedding jobs that are killed (SIGKILL) before each of their writes, locked out, interrupted, or out of disk."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from wscl_embed.errors import InputError, WsclEmbedError
from wscl_embed.store import EmbeddingStore, matrix
from wscl_embed.store.partial import Partial


@pytest.mark.parametrize("job", ["fresh", "update"])
def test_killed_before_every_write(job: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.store_killed", str(tmp_path), job]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 80  # so many moments to be killed at


def hold(output: Path) -> subprocess.Popen[str]:
    """Another process that holds the lock of ``output`` until it is told to stop."""
    code = (
        "import sys; from pathlib import Path; from wscl_embed.store.partial import Partial\n"
        f"with Partial(Path({str(output)!r})).lock():\n    print('locked', flush=True); sys.stdin.readline()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_a_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    first = hold(tmp_path / "e.h5")
    with pytest.raises(InputError, match=rf"is being written by process {first.pid} on \S+ since 20"):
        Partial(tmp_path / "e.h5").lock().__enter__()
    with Partial(tmp_path / "other.h5").lock():
        pass  # another output is another lock
    first.communicate("stop\n")
    with Partial(tmp_path / "e.h5").lock():
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_a_killed_writer_is_taken_over(tmp_path: Path) -> None:
    first = hold(tmp_path / "e.h5")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    partial = Partial(tmp_path / "e.h5")
    with partial.lock():
        assert json.loads((partial.folder / "owner.json").read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_resumed_job_must_be_the_same(tmp_path: Path) -> None:
    partial = Partial(tmp_path / "e.h5")
    with partial.lock():
        partial.begin({"weights_hash": "a", "dtype": "float32"}, resume=False)
    with partial.lock(), pytest.raises(InputError, match=r"dtype: 'float32' -> 'float16'\.$"):
        partial.begin({"weights_hash": "a", "dtype": "float16"}, resume=True)
    with partial.lock(), pytest.raises(InputError, match=r"left its rows in .*\.e\.h5\.partial\. Give --resume"):
        partial.begin({"weights_hash": "a", "dtype": "float32"}, resume=False)


def test_a_full_disk_is_said_and_leaves_no_file(tmp_path: Path) -> None:
    """The limit on the size of a file stands for the disk's."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(WsclEmbedError, match="cannot be written"):
            write_rows(tmp_path / "e.h5")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fails_while_rows_are_put_on_it_is_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the thread that does so; the sync at the end would be told nothing of it."""
    real, calls = os.fsync, []

    def fail_once(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(handle)

    monkeypatch.setattr(matrix, "SYNC_BYTES", 1)
    monkeypatch.setattr(os, "fsync", fail_once)
    with (
        pytest.raises(WsclEmbedError, match=r"e\.h5: cannot be written \(Input/output error\)"),
        EmbeddingStore.create(tmp_path / "e.h5", dim=64) as writer,
    ):
        writer.append(["only"], np.ones((1, 64)))
    assert list(tmp_path.iterdir()) == []


def write_rows(path: Path) -> None:
    with EmbeddingStore.create(path, dim=64) as writer:
        for number in range(10):
            writer.append([str(number)] * 16, np.ones((16, 64)))
