"""`Partial`: the hidden folder in which an output grows, with its lock and the facts a resumed job must agree with."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wscl_embed.errors import InputError
from wscl_embed.files import write_text


class Partial:
    """``.NAME.partial`` beside the output NAME: what is there of it so far.

    ============== ============================================================
    ``lock``       held by the process that writes
    ``owner.json`` which one that is
    ``facts.json`` what the rows were made from
    the rest       the rows, `wscl_embed.store.rows.RowFiles`
    ============== ============================================================
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = output.with_name(f".{output.name}.partial")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who writes this output, for the duration of a ``with`` block.

        The operating system's lock: it ends with the process that holds it, so one that was killed locks out nobody.

        Raises:
            InputError: somebody else writes it (says who).
        """
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"{self.output}: is being written by {self._owner()}. Wait for it, or stop it.") from error
        try:
            since = datetime.now(UTC).isoformat(timespec="seconds")
            owner = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
            write_text(self.folder / "owner.json", json.dumps(owner))
            yield
        finally:
            if not self.started:
                self.remove()
            lock.release()

    def _owner(self) -> str:
        try:
            owner = json.loads((self.folder / "owner.json").read_text(encoding="utf-8"))
            return f"process {owner['process']} on {owner['host']} since {owner['since']}"
        except (OSError, ValueError, KeyError):  # it has only just begun
            return "another process"

    @property
    def has_rows(self) -> bool:
        """Whether any process has begun to write rows, and they were not moved to the output."""
        return any(self.folder.glob("*.vectors"))

    def facts(self) -> dict[str, Any]:
        """What the rows were made from."""
        facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text(encoding="utf-8"))
        return facts

    @property
    def started(self) -> bool:
        """Whether there are rows to continue with."""
        return (self.folder / "facts.json").is_file()

    def begin(self, facts: Mapping[str, Any], *, resume: bool) -> None:
        """Begin anew, or see that what is there was made from the same.

        Raises:
            InputError: rows of an interrupted job, and no ``resume``; or made from something else (names it).
        """
        if not self.started:
            write_text(self.folder / "facts.json", json.dumps(facts))
            return
        if not resume:
            raise InputError(
                f"{self.output}: an interrupted job left its rows in {self.folder}. Give --resume to continue it, or "
                "delete that folder."
            )
        check_same(self.output, self.facts(), facts)

    def clear(self) -> None:
        """Forget the rows of an interrupted job."""
        for path in self.folder.iterdir():
            if path.name not in ("lock", "owner.json"):
                path.unlink()

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def check_same(output: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """See that an interrupted job and the one that is to continue it make the same rows.

    Raises:
        InputError: names what differs.
    """
    differing = [f"{key}: {old.get(key)!r} -> {value!r}" for key, value in new.items() if old.get(key) != value]
    if differing:
        raise InputError(f"{output}: --resume with something else than before, which is {', '.join(differing)}.")
