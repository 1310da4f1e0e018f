"""`Finding`: what was looked at, what it is, and what to do about it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["fine", "note", "broken"]
SECONDS = 120


@dataclass(frozen=True)
class Finding:
    """One line of the examination.

    ========= =======================================================================
    ``what``  the part
    ``state`` fine; note: something is missing that only some commands need; broken:
              a run would fail
    ``said``  what was found, in a line
    ``mend``  the command that mends it; empty where nothing is to be mended
    ========= =======================================================================
    """

    what: str
    state: State
    said: str
    mend: str = ""


def in_new_python(code: str, *arguments: str) -> tuple[str, str]:
    """What ``code`` prints in an interpreter of its own, and the last line of its error; one of them is empty.

    A library that was built for another one may end the whole process.
    """
    command = [sys.executable, "-c", code, *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return "", f"no answer within {SECONDS} s"
    if done.returncode == 0:
        return done.stdout.strip(), ""
    return "", last_line(done.stderr.splitlines()) or f"it ended with {done.returncode}"


def last_line(lines: Sequence[str]) -> str:
    """The last line with something in it, which of a traceback says what is wrong."""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
