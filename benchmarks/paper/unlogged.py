"""Runs of seconds: without checkpoints, and without a log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wscl_embed.checkpoint import Checkpoints


class NoCheckpoints(Checkpoints):
    """Runs of seconds are not continued."""

    def __init__(self) -> None:
        super().__init__(Path("nowhere"))

    def save(self, *_: Any, **__: Any) -> Path:
        """Keep nothing."""
        return self.folder

    def restore(self, *_: Any, **__: Any) -> bool:
        """Begin at the beginning."""
        return False


class NoLog:
    """Nobody reads the losses."""

    def __call__(self, *_: Any, **__: Any) -> None: ...
    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, _: dict[str, Any]) -> None: ...
