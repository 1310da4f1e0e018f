"""Opens a stranger's input in a process of its own, and tells what came of it.

The process may not take more memory or time than it is given, and whatever it would run, unpickle or connect to is
refused and reported: nothing executes, nothing hangs, memory stays bounded.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from wscl_embed.store import trial

# A server that has imported what the doors need, and forks for each case.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.hostile.doors"])

SECONDS = 120  # for what takes a fraction of one: machines may be busy, but a hang has no end
MEGABYTES = 256
FORBIDDEN = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class",
             "socket.connect")  # fmt: skip
TRIAL = ["-I", "-S", "-c", trial.CODE]  # our own: it reads an embedding file, within the limits of this process


@dataclass
class Outcome:
    """What a door said.

    ============ ==========================================================================
    ``refused``  the message of its `InputError`; None where it gave none
    ``value``    what it returned
    ``broke``    any other error, or how the process ended
    ``executed`` what it tried to run, unpickle or connect to
    ============ ==========================================================================
    """

    refused: str | None = None
    value: Any = None
    broke: str | None = None
    executed: list[str] = field(default_factory=list)


def opened(door: Callable[..., Any], *arguments: Any, megabytes: int = MEGABYTES) -> Outcome:
    """The outcome of ``door(*arguments)`` within ``megabytes`` of memory beyond what the libraries take."""
    receiving, sending = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=_open, args=(sending, door, arguments, megabytes))
    process.start()
    sending.close()
    try:
        outcome: Outcome = receiving.recv() if receiving.poll(SECONDS) else Outcome(broke="hung")
    except EOFError:
        process.join()
        outcome = Outcome(broke=f"ended with {process.exitcode}")
    finally:
        process.kill()
        process.join()
    return outcome


def refusal(door: Callable[..., Any], *arguments: Any, megabytes: int = MEGABYTES) -> str:
    """The one line ``door(*arguments)`` is refused with."""
    outcome = opened(door, *arguments, megabytes=megabytes)
    assert outcome.broke is None, outcome
    assert outcome.executed == []
    assert outcome.refused is not None, f"read: {str(outcome.value)[:200]}"
    assert "\n" not in outcome.refused
    assert len(outcome.refused) < 2000
    return outcome.refused


def read(door: Callable[..., Any], *arguments: Any, megabytes: int = MEGABYTES) -> Any:
    """What ``door(*arguments)`` gives."""
    outcome = opened(door, *arguments, megabytes=megabytes)
    assert outcome.broke is None, outcome
    assert outcome.executed == []
    assert outcome.refused is None, outcome.refused
    return outcome.value


def _open(sending: Connection, door: Callable[..., Any], arguments: tuple[Any, ...], megabytes: int) -> None:
    from wscl_embed.errors import InputError

    outcome = Outcome()
    _watch(outcome.executed)
    if sys.platform == "linux":
        limit = _data_bytes() + (megabytes << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        outcome.value = door(*arguments)
    except InputError as error:
        outcome.refused = str(error)
    except BaseException as error:
        outcome.broke = f"{type(error).__name__}: {str(error)[:500]}"
    sending.send(outcome)
    os._exit(0)


def _data_bytes() -> int:
    """Memory this process holds for itself."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmData"))


def _watch(executed: list[str]) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN and not (event == "subprocess.Popen" and arguments[1][1:5] == TRIAL):
            executed.append(f"{event} {arguments!r}"[:200])
            raise PermissionError(f"refused: {event}")

    sys.addaudithook(hook)
