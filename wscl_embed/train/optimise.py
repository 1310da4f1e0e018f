"""The loop both modes share: AdamW, a cosine with warm-up, a checkpoint after each epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from wscl_embed.checkpoint import Checkpoints
from wscl_embed.distributed import copy_from_first, on_first, world_size
from wscl_embed.errors import WsclEmbedError
from wscl_embed.progress import track
from wscl_embed.reclustering import Reclustering
from wscl_embed.sampling import ClusterBatchSampler
from wscl_embed.train.objective import backward
from wscl_embed.train.options import EpochLog, TrainOptions

Batches = Callable[[ClusterBatchSampler], Iterable[tuple[list[int], Tensor]]]


def optimise(
    embedder: nn.Module,
    batches: Batches,
    membership: sparse.csr_array,
    options: TrainOptions,
    checkpoints: Checkpoints,
    log: EpochLog,
    reclustering: Reclustering | None = None,
) -> None:
    """AdamW, cosine with warm-up, clipped gradients; a checkpoint after each epoch.

    On several processes ``batches`` gives each its own rows; the loss is that of all of them, the gradient is averaged.

    Args:
        batches: the rows and inputs of each batch of a sampler whose epoch is set.
        membership: (n, K) of the training images.
        reclustering: gives the membership of each epoch in its place.
    """
    optimiser = _adamw(trainable(embedder), options)
    state = {"module": embedder, "optimiser": optimiser, "log": log}
    if reclustering is not None:
        state["clusters"] = reclustering
    first = checkpoints.restore(state)
    parallel = DistributedDataParallel(embedder) if world_size() > 1 else embedder
    left_out = None
    for epoch in range(first, options.epochs):
        measured: dict[str, float] = {}
        if reclustering is not None:
            measured = reclustering.update(epoch)
            clusters = reclustering.at(epoch)
            membership, left_out = clusters.membership, clusters.dropped
        sampler = ClusterBatchSampler(
            membership, options.batch_size, options.images_per_cluster, seed=options.seed, left_out=left_out
        )
        sampler.set_epoch(epoch)
        # Dropout draws from the global generator: a resumed epoch must draw what an uninterrupted one does.
        torch.manual_seed(int(np.random.SeedSequence([options.seed, epoch]).generate_state(1)[0]))
        losses, learning_rate = _run_epoch(parallel, optimiser, batches, sampler, membership, options)
        log(epoch + 1, mean_loss(losses, epoch, options), learning_rate, **measured)
        copy_from_first(embedder)
        on_first(lambda done=epoch + 1: checkpoints.save(done, state))  # type: ignore[misc]


def _run_epoch(
    embedder: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Batches,
    sampler: ClusterBatchSampler,
    membership: sparse.csr_array,
    options: TrainOptions,
) -> tuple[list[Tensor], float]:
    """Train on the batches of ``sampler``; the loss of each step, and the learning rate they end at."""
    n_steps = len(sampler)
    factor = cosine_with_warmup(options.epochs * n_steps, options.warmup)
    losses = []
    with track(f"epoch {sampler.epoch + 1} of {options.epochs}", n_steps) as advance:
        for step, (rows, inputs) in enumerate(batches(sampler), sampler.epoch * n_steps):
            for group in optimiser.param_groups:
                group["lr"] = options.learning_rate * factor(step)
            optimiser.zero_grad(set_to_none=True)
            losses.append(backward(embedder, inputs, membership[rows], options))
            nn.utils.clip_grad_norm_(trainable(embedder), options.gradient_clip)
            optimiser.step()
            advance(1)
    return losses, options.learning_rate * factor((sampler.epoch + 1) * n_steps)


def mean_loss(losses: list[Tensor], epoch: int, options: TrainOptions) -> float:
    """The mean over the steps of an epoch.

    Raises:
        WsclEmbedError: it is no finite number.
    """
    mean = float(torch.stack(losses).mean())
    if not math.isfinite(mean):
        raise WsclEmbedError(
            f"the loss became {mean} in epoch {epoch + 1}; try a lower --learning-rate "
            f"(now {options.learning_rate}) or a higher --temperature (now {options.temperature})."
        )
    return mean


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
