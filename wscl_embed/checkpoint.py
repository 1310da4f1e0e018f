"""Checkpoints between epochs: whole or absent, and read without unpickling anything but tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wscl_embed.errors import InputError
from wscl_embed.files import atomic_path


class Checkpoints:
    """The training state after the last finished epoch, ``last.pt`` in a folder.

    Every random draw of training depends on the seed and the epoch alone, so the state after an epoch is module,
    optimiser and, where they follow the encoder, clusters.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "last.pt"

    def save(self, epoch: int, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint by the state after ``epoch`` epochs."""
        import torch

        with atomic_path(self.path) as temporary:
            torch.save({"epoch": epoch, **{name: part.state_dict() for name, part in state.items()}}, temporary)

    def restore(self, state: Mapping[str, Any]) -> int:
        """Load the checkpoint into ``state``, if there is one; how many epochs it has behind it.

        Raises:
            InputError: it is damaged, or of another architecture.
        """
        import pickle

        import torch

        if not self.path.is_file():
            return 0
        try:
            saved = torch.load(self.path, map_location="cpu", weights_only=True)
            for name, part in state.items():
                part.load_state_dict(saved[name])
            return int(saved["epoch"])
        except (RuntimeError, KeyError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise InputError(
                f"{self.path}: the checkpoint cannot be continued, it is damaged or of another architecture. "
                "Give --overwrite to start anew."
            ) from error
