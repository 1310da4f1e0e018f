"""How training goes: kept for ``metrics.json``, said on the terminal, and written for TensorBoard if asked."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from wscl_embed.errors import import_extra
from wscl_embed.progress import console


class TrainingLog:
    """Called after each epoch; ``history`` has one mapping an epoch."""

    def __init__(self, tensorboard: Path | None) -> None:
        self.history: list[dict[str, float]] = []
        self._writer: Any = None
        if tensorboard is not None:
            import_extra("tensorboard", package="tensorboard", extra="tensorboard", needed_for="--tensorboard")
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard))

    def __call__(self, epoch: int, loss: float, learning_rate: float, **measured: float) -> None:
        self.history.append({"epoch": epoch, "loss": loss, "learning_rate": learning_rate, **measured})
        more = "".join(f", {name.replace('_', ' ')} {value:.3f}" for name, value in measured.items())
        console().print(f"[dim]epoch {epoch}: loss {loss:.4f}{more}[/dim]")
        if self._writer is not None:
            for name, value in {"loss": loss, "learning_rate": learning_rate, **measured}.items():
                self._writer.add_scalar(name, value, epoch)

    def state_dict(self) -> dict[str, list[dict[str, float]]]:
        """For the checkpoint: a resumed run keeps the epochs before it."""
        return {"history": self.history}

    def load_state_dict(self, state: dict[str, list[dict[str, float]]]) -> None:
        """Take up what `state_dict` gave."""
        self.history = list(state["history"])

    def __enter__(self) -> TrainingLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
