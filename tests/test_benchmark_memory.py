"""What benchmarks say of memory: a process and those it started, shared pages once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory import memory_of

pytestmark = pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="needs Linux's smaps_rollup")

PARENT = """
import os, sys
held = bytearray(os.urandom(1 << 20)) * 64
child = os.fork()
if child == 0:
    more = bytearray(os.urandom(1 << 20)) * 32
print("ready", flush=True)
sys.stdin.read()
"""


def test_memory_of_a_process_and_its_child() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert [process.stdout.readline(), process.stdout.readline()] == [b"ready\n"] * 2
        own, whole = memory_of(process.pid)
        process.stdin.close()
    assert 96 <= own < 96 + 40  # 64 shared, which count once, 32 of the child, and two interpreters
    assert whole >= own
