"""When the training state is written, and what belongs to it."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wscl_embed import interruption
from wscl_embed.checkpoint import Checkpoints, Part
from wscl_embed.distributed import agree, on_first, rank
from wscl_embed.errors import DivergedError
from wscl_embed.interruption import Interrupted
from wscl_embed.save_every import SaveEvery
from wscl_embed.train.options import TrainOptions


@dataclass
class Progress:
    """Where training stands: with (seed, epoch, step), on which every random draw depends, this is all of it.

    ============ =========================================================
    ``epoch``    epochs that are done
    ``step``     steps of the next that are done
    ``losses``   of those steps, scalars
    ``measured`` what was measured before the epoch, for the log
    ============ =========================================================
    """

    epoch: int = 0
    step: int = 0
    losses: list[Tensor] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)

    def next_epoch(self) -> None:
        """The epoch is done."""
        self.epoch, self.step, self.losses, self.measured = self.epoch + 1, 0, [], {}

    def mean_loss(self) -> float:
        """Over the steps of the epoch so far."""
        if not self.losses:
            return 0.0
        device = self.losses[-1].device  # those of before a resume come from the checkpoint, and lie elsewhere
        return float(torch.stack([loss.to(device) for loss in self.losses]).mean())

    def state_dict(self) -> dict[str, Any]:
        """For the checkpoint."""
        losses = torch.stack([loss.cpu() for loss in self.losses]) if self.losses else torch.empty(0)
        return {"epoch": self.epoch, "step": self.step, "losses": losses, "measured": self.measured}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self.epoch, self.step = int(state["epoch"]), int(state["step"])
        self.losses, self.measured = list(state["losses"]), dict(state["measured"])


class Saving:
    """Writes checkpoints when they are due, and before the process leaves.

    Args:
        checkpoints: where.
        state: all parts; a `Progress` called ``progress`` and a module called ``module`` among them.
        options: of training.
    """

    def __init__(self, checkpoints: Checkpoints, state: dict[str, Part], module: nn.Module, options: TrainOptions):
        self.progress = Progress()
        self._state = {**state, "module": module, "progress": self.progress}
        self._checkpoints, self._module, self._options = checkpoints, module, options
        self._every = SaveEvery.parse(options.save_every)
        self._last = (0, 0)
        self._since = time.monotonic()  # a clock that is set must neither put off a checkpoint nor hasten it

    def restore(self) -> None:
        """Take up the last checkpoint, if there is one."""
        self._checkpoints.restore(self._state)
        self._last = (self.progress.epoch, self.progress.step)

    def after_step(self) -> None:
        """Write a checkpoint if one is due, or if somebody asked any of the processes to stop.

        Raises:
            Interrupted: somebody did.
        """
        signum, due = agree([interruption.requested(), int(self._due())])
        if signum or due:
            self._save_and_leave(signum)

    def after_epoch(self) -> None:
        """Write a checkpoint.

        Raises:
            Interrupted: as `after_step`.
        """
        self._save_and_leave(*agree([interruption.requested()]))

    def _save_and_leave(self, signum: int) -> None:
        kept = self.save()
        if signum:
            raise Interrupted(signum, f"{self._where()} is in {kept}.")

    def _due(self) -> bool:
        if self._every.steps is not None:
            return self.progress.step % self._every.steps == 0
        return rank() == 0 and time.monotonic() - self._since >= (self._every.seconds or 0)

    def _where(self) -> str:
        epoch, step = self.progress.epoch, self.progress.step
        return f"Training up to step {step} of epoch {epoch + 1}" if step else f"Training up to epoch {epoch}"

    def save(self) -> Path:
        """Have the first process write a checkpoint now; all processes call it.

        Raises:
            DivergedError: there is nothing worth keeping.
        """
        return on_first(self.save_here)

    def save_here(self) -> Path:
        """Write a checkpoint from this process alone, if it is the first."""
        progress = self.progress
        self.check_finite()
        if (progress.epoch, progress.step) != self._last and rank() == 0:
            self._checkpoints.save(progress.epoch, progress.step, self._state)
        self._last, self._since = (progress.epoch, progress.step), time.monotonic()
        return self._checkpoints.folder

    def check_finite(self) -> None:
        """See that losses and weights are numbers: a checkpoint of others would take the place of a good one.

        Raises:
            DivergedError: they are not.
        """
        loss = self.progress.mean_loss()
        if not math.isfinite(loss):
            what = f"the loss became {loss}"
        elif not all(bool(torch.isfinite(parameter).all()) for parameter in self._module.parameters()):
            what = "the weights became infinite"
        else:
            return
        kept = self._checkpoints.paths()
        raise DivergedError(
            f"{what} in epoch {self.progress.epoch + 1}; try a lower --learning-rate "
            f"(now {self._options.learning_rate}) or a higher --temperature (now {self._options.temperature}). "
            + (f"The last good state is {kept[-1]}." if kept else "There is no checkpoint yet.")
        )
