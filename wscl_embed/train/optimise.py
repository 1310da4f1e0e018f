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
) -> None:
    """AdamW, cosine with warm-up, clipped gradients; a checkpoint after each epoch.

    On several processes ``batches`` gives each its own rows; the loss is that of all of them, the gradient is averaged.

    Args:
        batches: the rows and inputs of each batch of a sampler whose epoch is set.
        membership: (n, K) of the training images.
    """
    trainable = [parameter for parameter in embedder.parameters() if parameter.requires_grad]
    on_cuda = trainable[0].device.type == "cuda"
    optimiser = torch.optim.AdamW(
        _decay_groups(trainable, options.weight_decay), lr=options.learning_rate, fused=on_cuda
    )
    sampler = ClusterBatchSampler(membership, options.batch_size, options.images_per_cluster, seed=options.seed)
    steps = len(sampler)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, cosine_with_warmup(options.epochs * steps, options.warmup))
    state = {"module": embedder, "optimiser": optimiser, "schedule": schedule, "log": log}
    first = checkpoints.restore(state)
    parallel = DistributedDataParallel(embedder) if world_size() > 1 else embedder
    with track("training", options.epochs * steps) as advance:
        advance(first * steps)
        for epoch in range(first, options.epochs):
            sampler.set_epoch(epoch)
            losses = []
            # Dropout draws from the global generator: a resumed epoch must draw what an uninterrupted one does.
            torch.manual_seed(int(np.random.SeedSequence([options.seed, epoch]).generate_state(1)[0]))
            for rows, inputs in batches(sampler):
                optimiser.zero_grad(set_to_none=True)
                loss = backward(parallel, inputs, membership[rows], options)
                nn.utils.clip_grad_norm_(trainable, options.gradient_clip)
                optimiser.step()
                schedule.step()
                losses.append(loss)
                advance(1)
            log(epoch + 1, mean_loss(losses, epoch, options), float(schedule.get_last_lr()[0]))
            copy_from_first(embedder)
            on_first(lambda done=epoch + 1: checkpoints.save(done, state))  # type: ignore[misc]


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


def _decay_groups(parameters: list[nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and filters; none for biases and norms."""
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


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
