"""Being asked to stop: SIGTERM (a scheduler, ``torchrun``) and Ctrl-C, answered between two steps of training.

Outside of training the answer comes at once, as an exception. Within, the step is finished first.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """A signal asked the process to stop. Ends the command line with exit code 128 + its number, as shells have it.

    A `KeyboardInterrupt`, so that nothing that handles errors takes it for one.

    ========== ==================================================================
    ``signum`` the signal
    ``kept``   what there is to continue with, a sentence; where nobody said, ""
    ========== ==================================================================
    """

    def __init__(self, signum: int, kept: str = "") -> None:
        super().__init__(signum, kept)
        self.signum, self.kept = signum, kept

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signum).name}. {self.kept}".rstrip()

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.signum


class _State:
    handled = False
    deferred = False
    received: int | None = None


@contextmanager
def handled() -> Iterator[None]:
    """Both signals raise `Interrupted` for the duration of a ``with`` block.

    Does nothing outside of the main thread, where Python handles no signals, and where it is in force already. A signal
    that somebody had ignored (``nohup``, a shell's ``&``) stays so.
    """
    if _State.handled or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {one: signal.getsignal(one) for one in SIGNALS if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, _receive)
    _State.handled, _State.received = True, None
    try:
        yield
    finally:
        _State.handled = False
        for one, handler in before.items():
            signal.signal(one, handler or signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[None]:
    """Within the ``with`` block the first signal is only noted, for `requested`; a second Ctrl-C ends the process.

    Raises:
        Interrupted: at the end of the block, when nobody asked any more.
    """
    _State.deferred = True
    try:
        yield
    finally:
        _State.deferred = False
    if _State.received is not None:
        raise Interrupted(_State.received)


def requested() -> int:
    """The signal that asked to stop, within `deferred`; 0: none."""
    return _State.received or 0


@contextmanager
def keeping(kept: str) -> Iterator[None]:
    """Have an `Interrupted` that leaves the ``with`` block say what is kept, unless somebody within has."""
    try:
        yield
    except Interrupted as interrupted:
        interrupted.kept = interrupted.kept or kept
        raise


def _receive(signum: int, frame: FrameType | None) -> None:
    if not _State.deferred:
        raise Interrupted(signum)
    if _State.received is None and not int(os.environ.get("RANK", "0")):
        again = "; Ctrl-C again leaves at once" if signum == signal.SIGINT else ""
        # Not print: the signal may have come in the middle of one.
        os.write(2, f"{signal.Signals(signum).name}: stopping after this step{again}\n".encode())
    _State.received = signum
    if signum == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # the system's: it ends a process that waits for something, too
