"""The audit and the lock of a release."""

from __future__ import annotations

import doctest
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from release import audit, lock

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("module", [audit, lock])
def test_the_examples_in_docstrings(module: Any) -> None:
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.parametrize("trouble", ["no answer", "no network"])
def test_without_advisories_the_audit_says_so_and_passes(
    trouble: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        if trouble == "no answer":
            raise subprocess.TimeoutExpired(command, options["timeout"])
        return subprocess.CompletedProcess(command, 1, "", "warnings\nConnectionError: no route to host\n")

    monkeypatch.setattr(subprocess, "run", run)
    assert audit.main() == 0
    assert "nothing was audited" in capsys.readouterr().out


def test_every_line_of_the_lock_has_a_hash_and_the_pinned_version() -> None:
    line = re.compile(r"([a-z0-9._-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")
    text = (ROOT / "release" / "linux-x86_64-python3.11.txt").read_text(encoding="utf-8")
    locked = {found[1]: found[2] for found in map(line.fullmatch, text.splitlines()) if found}
    assert len(locked) == len(text.splitlines())
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(one.partition(" ;")[0].split("==") for one in constraints if "==" in one and one[0] != "#")
    pinned = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    assert {name: version for name, version in locked.items() if pinned.get(name, version) != version} == {}
    assert {"torch", "numpy", "pillow"} <= locked.keys()
