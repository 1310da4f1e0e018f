"""The loop both modes share: AdamW, a cosine with warm-up, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wscl_embed.checkpoint import Checkpoints, Part
from wscl_embed.distributed import copy_from_first, world_size
from wscl_embed.errors import LostInputError, LostProcessError
from wscl_embed.interruption import deferred
from wscl_embed.progress import track
from wscl_embed.reclustering import Reclustering
from wscl_embed.sampling import ClusterBatchSampler
from wscl_embed.train.memory import FittingSteps
from wscl_embed.train.objective import BatchLoss, cluster_loss
from wscl_embed.train.options import EpochLog, TrainOptions
from wscl_embed.train.saving import Saving

Batches = Callable[[ClusterBatchSampler, int], Iterable[tuple[list[int], Tensor]]]
"""A sampler whose epoch is set, and a number of batches to leave out -> the rows and inputs of each of the others"""


def optimise(
    embedder: nn.Module,
    batches: Batches,
    membership: sparse.csr_array,
    options: TrainOptions,
    checkpoints: Checkpoints,
    log: EpochLog,
    reclustering: Reclustering | None = None,
    loss_of: BatchLoss | None = None,
) -> None:
    """AdamW, cosine with warm-up, clipped gradients; a checkpoint after each epoch, and within it when one is due.

    On several processes ``batches`` gives each its own rows; the loss is that of all of them, the gradient is averaged.

    Args:
        batches: what to train on.
        membership: (n, K) of the training images.
        reclustering: gives the membership of each epoch in its place.
        loss_of: what is minimised. Default: Cl-InfoNCE with the options' variants.

    Raises:
        Interrupted: a signal asked to stop; the state is in a checkpoint.
        DivergedError: loss or weights are no finite numbers; the last checkpoint is of before.
    """
    optimiser = _adamw(trainable(embedder), options)
    state: dict[str, Part] = {"optimiser": optimiser, "log": log}
    if reclustering is not None:
        state["clusters"] = reclustering
    saving = Saving(checkpoints, state, embedder, options)
    saving.restore()
    parallel = DistributedDataParallel(embedder) if world_size() > 1 else embedder
    backward = FittingSteps(parallel, options)
    loss_of = loss_of or cluster_loss(options)
    left_out = None
    progress = saving.progress
    while progress.epoch < options.epochs:
        if reclustering is not None:
            if progress.step == 0:
                progress.measured = reclustering.update(progress.epoch)
            clusters = reclustering.at(progress.epoch)
            membership, left_out = clusters.membership, clusters.dropped
        sampler = ClusterBatchSampler(
            membership, options.batch_size, options.images_per_cluster, seed=options.seed, left_out=left_out
        )
        sampler.set_epoch(progress.epoch)
        with deferred():
            loss_of_rows = partial(loss_of, membership=membership)
            learning_rate = _run_epoch(backward, optimiser, batches, sampler, loss_of_rows, saving)
            saving.check_finite()
            log(progress.epoch + 1, progress.mean_loss(), learning_rate, **progress.measured)
            progress.next_epoch()
            copy_from_first(embedder)
            saving.after_epoch()


def _run_epoch(
    backward: FittingSteps,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    sampler: ClusterBatchSampler,
    loss_of_rows: Callable[..., Tensor],
    saving: Saving,
) -> float:
    """Train on the batches of ``sampler`` that are not behind us; the learning rate they end at."""
    n_steps, options, progress = len(sampler), backward.options, saving.progress
    factor = cosine_with_warmup(options.epochs * n_steps, options.warmup)
    with track(f"epoch {sampler.epoch + 1} of {options.epochs}", n_steps) as advance:
        advance(progress.step)
        try:
            for rows, inputs in batches(sampler, progress.step):
                for group in optimiser.param_groups:
                    group["lr"] = options.learning_rate * factor(sampler.epoch * n_steps + progress.step)
                seed = _seed(options.seed, sampler.epoch, progress.step)
                loss = backward(inputs, partial(loss_of_rows, rows=rows), seed)
                nn.utils.clip_grad_norm_(trainable(backward.embedder), options.gradient_clip)
                optimiser.step()
                progress.losses.append(loss)
                progress.step += 1
                advance(1)
                saving.after_step()
        except (LostInputError, LostProcessError):  # of the next batch: the state is whole
            saving.save_here()
            raise
    return options.learning_rate * factor((sampler.epoch + 1) * n_steps)


def _seed(*numbers: int) -> int:
    """Of one step: dropout draws from the global generator, and must draw the same in a run that was resumed."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def trainable(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that are tuned."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def _adamw(parameters: list[nn.Parameter], options: TrainOptions) -> torch.optim.AdamW:
    """Weight decay for matrices and filters; none for biases and norms."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=options.learning_rate, fused=parameters[0].device.type == "cuda")


def cosine_with_warmup(n_steps: int, warmup: float) -> Callable[[int], float]:
    """Step -> factor of the learning rate: linear over the first ``warmup`` share of steps, then half a cosine to 0.

    >>> factor = cosine_with_warmup(100, 0.1)
    >>> factor(0), factor(9), round(factor(100), 6)
    (0.1, 1.0, 0.0)
    """
    warm = max(1, round(warmup * n_steps))

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, n_steps - warm)))

    return factor
