"""The fine-tuner on the material of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.config import FitConfig
from wscl_embed.errors import InputError
from wscl_embed.run import Run
from wscl_embed.stages.material import Material, cache_dir

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


def tune(
    encoder: Encoder, material: Material, config: FitConfig, run: Run
) -> tuple[NDArray[np.floating], list[dict[str, float]]]:
    """Fine-tune ``encoder`` in place; its new outputs (n, D), and the loss and learning rate of each epoch."""
    from wscl_embed.checkpoint import Checkpoints
    from wscl_embed.features import encode_images
    from wscl_embed.train import train_full, train_head
    from wscl_embed.training_log import TrainingLog

    train = material.dataset.select(material.train)
    membership = material.clusters.membership
    with TrainingLog(run.tensorboard if config.tensorboard else None) as log:
        common = {"options": _train_options(config), "checkpoints": Checkpoints(run.checkpoints), "log": log}
        if config.tune == "full":
            locked = config.unlocked_groups
            train_full(encoder, train, membership, unlocked_groups=locked, workers=config.workers, **common)
            tuned = encode_images(encoder, material.dataset, workers=config.workers, what="writing embeddings")
            return tuned.values[:, 0], log.history
        views = _cached_views(encoder, train, material.frozen[material.train], config)
        weight = train_head(views, membership, device=encoder.device, **common)
        encoder.fold(weight)
        return material.frozen @ weight.numpy().T, log.history


def _train_options(config: FitConfig) -> Any:
    from wscl_embed.train import TrainOptions

    chosen = config.resolved().model_dump(include=set(TrainOptions.__dataclass_fields__))
    return TrainOptions(**chosen)


def _cached_views(
    encoder: Encoder, train: datasets.Dataset, frozen: NDArray[np.floating], config: FitConfig
) -> NDArray[np.floating]:
    """(t, 1 + V, D) float16: the plain view and V augmented ones."""
    from wscl_embed.features import encode_images

    views = encode_images(
        encoder,
        train,
        n_views=config.cached_views,
        seed=config.seed,
        cache_dir=cache_dir(config),
        workers=config.workers,
        what="encoding views",
    )
    if len(views.rows) != len(train):
        raise InputError(f"image {views.bad[0].id} could be read a moment ago and no longer: {views.bad[0].reason}.")
    return np.concatenate([frozen[:, None].astype(np.float16), views.values], axis=1)
