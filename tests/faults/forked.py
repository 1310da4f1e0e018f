"""The command line in forked children: a process of its own for each, without importing everything again each time."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from wscl_embed.checkpoint import Checkpoints

PATIENCE = 120  # seconds until something that never comes is a failure; nothing depends on how long it takes


def load_everything() -> None:
    """Import what a run imports, in the parent; it must not compute, or the children's autograd refuses to work."""
    import open_clip  # noqa: F401
    import timm  # noqa: F401
    import torch

    import wscl_embed.pipeline.fitting
    import wscl_embed.train  # noqa: F401
    from wscl_embed import stages

    torch.set_num_threads(1)
    stages.write_report = lambda *arguments: None  # takes longer than all the rest, and comes after it


def start(arguments: list[str], log: Path, prepare: Callable[[], None] = lambda: None) -> int:
    """Run ``wscl-embed ARGUMENTS`` in a child, whose output goes to ``log``, after ``prepare``; its process id."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    pid = os.fork()
    if pid:
        os.close(output)
        return pid
    code = 1
    try:
        os.dup2(output, 1)
        os.dup2(output, 2)
        from wscl_embed.cli import main

        prepare()
        sys.argv = ["wscl-embed", *arguments]
        main()
        code = 0
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int) -> int:
    """The exit code of a child; minus the signal that killed it."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def run(arguments: list[str], log: Path) -> int:
    """`start` and `wait`."""
    return wait(start(arguments, log))


def wait_until(true: Callable[[], bool], pid: int) -> bool:
    """Whether it became true before the child had ended, which `wait` may still be asked about."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if true():
            return True
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return true()
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    raise TimeoutError(f"nothing happened in {PATIENCE} s")


def last_checkpoint(run: Path) -> str:
    """The name of the last; "" where there is none. Names are in the order of time."""
    paths = Checkpoints(run / "checkpoints").paths()
    return paths[-1].name if paths else ""


def hidden(folder: Path) -> list[str]:
    """Files and folders that somebody forgot."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.startswith("."))
