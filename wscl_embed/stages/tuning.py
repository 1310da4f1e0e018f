"""The fine-tuner on the material of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig
from wscl_embed.dataset import dataset_fingerprint
from wscl_embed.distributed import check_alike
from wscl_embed.errors import InputError
from wscl_embed.run import Run
from wscl_embed.stages.guarding import HeadMixture, Mixture, TowerMixture, weights_of
from wscl_embed.stages.material import Material, cache_dir
from wscl_embed.stages.rounds import make_reclustering

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


@dataclass(frozen=True)
class Tuned:
    """What training made.

    ============ =====================================================================
    ``mixture``  the encoder anywhere between the frozen and the tuned one
    ``clusters`` `Clusters` of all images of the training split, those of the last round
    ``history``  loss, learning rate, and what else was measured, a mapping an epoch
    ============ =====================================================================
    """

    mixture: Mixture
    clusters: Clusters
    history: list[dict[str, float]]


def tune(encoder: Encoder, material: Material, adapters: Sequence[Adapter], config: FitConfig, run: Run) -> Tuned:
    """Fine-tune ``encoder`` on the material's clusters, or on those its adapters make as it changes."""
    from wscl_embed.checkpoint import Checkpoints
    from wscl_embed.train import train_full, train_head
    from wscl_embed.training_log import TrainingLog

    if config.recluster_every is not None:
        material = material.with_dropped()
    train = material.dataset.select(material.train)
    membership = material.clusters.membership
    with TrainingLog(run.tensorboard if config.tensorboard else None) as log:
        rounds = make_reclustering(material, adapters, config)
        common: dict[str, Any] = {"options": _train_options(config), "log": log, "reclustering": rounds}
        facts = {"dataset": dataset_fingerprint(material.dataset), "encoder": encoder.weights_hash()}
        check_alike(facts, "the images, or the encoder's weights,")
        common["checkpoints"] = Checkpoints(run.checkpoints, facts)
        if config.tune == "full":
            locked = config.unlocked_groups
            frozen = weights_of(encoder)
            train_full(encoder, train, membership, unlocked_groups=locked, workers=config.workers, **common)
            mixture: Mixture = TowerMixture(encoder, material, frozen, config.workers)
        else:
            views = _cached_views(encoder, train, material.frozen[material.train], config)
            mixture = HeadMixture(encoder, material, train_head(views, membership, device=encoder.device, **common))
        return Tuned(mixture, rounds.clusters if rounds else material.assigned, log.history)


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
