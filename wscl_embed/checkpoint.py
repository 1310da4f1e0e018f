"""Checkpoints: the last two training states, each whole or absent, checked before it is believed.

Which parts there are, and when one is written, `wscl_embed.train` says.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from wscl_embed.checkpoint_file import DamagedError, Saved, read_checkpoint, write_checkpoint
from wscl_embed.distributed import on_first
from wscl_embed.errors import InputError
from wscl_embed.files import clear_leftovers, remove, storage_errors, sync_folder, temporary_path
from wscl_embed.progress import say

NAME = re.compile(r"epoch-(\d{5,})-step-(\d{7,})")
KEPT = 2
DAMAGED = ".damaged"


class Part(Protocol):
    """Something with a state: a module, an optimiser, a log."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> Any: ...


class Checkpoints:
    """The training states after some steps, the last two of them.

    ===================================== ===========================================================================
    ``epoch-00003-step-0000120/``         after 3 epochs and 120 steps of the next
    ``epoch-00003-step-0000120/state.pt`` the state, as ``torch.save`` writes it
    ``.../COMMITTED``                     written last: its size and SHA-256, and the facts
    ===================================== ===========================================================================

    Args:
        folder: where they are; it need not exist.
        facts: what the state belongs to, such as the dataset's fingerprint; a state of other facts is refused.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.facts = dict(facts or {})

    def save(self, epoch: int, step: int, state: Mapping[str, Part]) -> Path:
        """Write the state after ``epoch`` epochs and ``step`` steps of the next, then delete all but the last two.

        Raises:
            StorageError: the disk is full, or refuses for another reason; the checkpoints before are as they were.
        """
        path = self.folder / f"epoch-{epoch:05d}-step-{step:07d}"
        temporary = temporary_path(path)
        with storage_errors(path):
            self.folder.mkdir(parents=True, exist_ok=True)
            clear_leftovers(self.folder)
            try:
                temporary.mkdir()
                write_checkpoint(temporary, {name: part.state_dict() for name, part in state.items()}, self.facts)
                remove(path)
                temporary.replace(path)
                sync_folder(self.folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            self._prune()
        return path

    def _prune(self) -> None:
        """Delete what is older than the last two, and, now that these are whole, those that were found damaged."""
        known = self.paths()
        for path in known[:-KEPT]:
            remove(path)
        if len(known) >= KEPT:
            for path in self.folder.glob(f"*{DAMAGED}"):
                remove(path)

    def paths(self) -> list[Path]:
        """The checkpoints, the oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        named = ((NAME.fullmatch(path.name), path) for path in found)
        return [path for _, path in sorted(((int(name[1]), int(name[2])), path) for name, path in named if name)]

    def restore(self, state: Mapping[str, Part]) -> bool:
        """Load the last checkpoint into ``state``, on every process; whether there was one.

        One that is damaged is said, put aside as ``NAME.damaged``, and the one before it is taken.

        Raises:
            InputError: all are damaged, or the last good one is of another architecture or of other facts.
        """
        found = on_first(self._read)
        if found is None:
            return False
        try:
            for name, part in state.items():
                part.load_state_dict(found.state[name])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise InputError(
                f"{found.path}: the checkpoint is of another architecture. Give --overwrite to start anew."
            ) from error
        return True

    def _read(self) -> Saved | None:
        clear_leftovers(self.folder)
        damaged = []
        for path in reversed(self.paths()):
            try:
                saved = read_checkpoint(path)
            except DamagedError as error:
                damaged.append(path)
                say(f"{path} is damaged ({error}); the checkpoint before it is taken.", "red")
                continue
            self._check_facts(saved)
            for one in damaged:
                remove(one.with_name(one.name + DAMAGED))
                one.rename(one.with_name(one.name + DAMAGED))
            return saved
        if damaged:
            raise InputError(f"{self.folder}: every checkpoint is damaged. Give --overwrite to start anew.")
        return None

    def _check_facts(self, saved: Saved) -> None:
        then = saved.facts
        differing = [f"{name}: {then.get(name)} -> {now}" for name, now in self.facts.items() if then.get(name) != now]
        if differing:
            raise InputError(
                f"{saved.path}: the checkpoint is of something else: {', '.join(differing)}. Give --overwrite to "
                "start anew."
            )
