"""`TrainOptions`, and the type of what is called after each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from wscl_embed.heads import Projection
from wscl_embed.loss.terms import Denominator


@dataclass(frozen=True)
class TrainOptions:
    """How to train; see `wscl_embed.config.FitConfig` for what each means and its default."""

    epochs: int
    batch_size: int
    images_per_cluster: int
    learning_rate: float
    weight_decay: float
    temperature: float
    projection: Projection
    denominator: Denominator = "all"
    cross_view_only: bool = False
    q: float = 0.0
    lam: float = 1.0
    instance_weight: float = 0.0
    micro_batch_size: int | None = None
    compile: bool = False
    save_every: str = "10m"
    warmup: float = 0.05
    gradient_clip: float = 1.0
    seed: int = 0


class EpochLog(Protocol):
    """Called after each epoch, with what else was measured in it; what it keeps goes into the checkpoint."""

    def __call__(self, epoch: int, loss: float, learning_rate: float, **measured: float) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...
