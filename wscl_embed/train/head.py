"""Head mode: a linear map on cached features."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from wscl_embed.checkpoint import Checkpoints
from wscl_embed.distributed import rank, world_size
from wscl_embed.heads import HeadMap
from wscl_embed.reclustering import Reclustering
from wscl_embed.sampling import ClusterBatchSampler
from wscl_embed.train.objective import make_heads
from wscl_embed.train.optimise import Batches, optimise
from wscl_embed.train.options import EpochLog, TrainOptions


def train_head(
    features: NDArray[np.floating],
    membership: sparse.csr_array,
    options: TrainOptions,
    *,
    device: torch.device,
    checkpoints: Checkpoints,
    log: EpochLog,
    reclustering: Reclustering | None = None,
) -> Tensor:
    """Learn a linear map of frozen features that starts as the identity, so that the frozen embedding is its origin.

    Args:
        features: (n, V, D) cached encoder outputs of V views, the image as it is first; each step draws two an image.
        membership: (n, K) of the same images.
        reclustering: makes the membership anew as the map changes.

    Returns:
        (D, D) float32 on the CPU, for `Encoder.fold`.
    """
    torch.manual_seed(options.seed)
    dim = features.shape[2]
    head = HeadMap(dim).to(device)
    embedder = nn.Sequential(OrderedDict(head=head, projection=make_heads(options, dim).to(device)))
    if reclustering is not None:
        plain = torch.from_numpy(features[:, 0])
        reclustering.follow(lambda: (plain.float() @ head.weight().detach().cpu().T).numpy())
    batches = pairs_of_views(features, options.seed, device)
    optimise(embedder, batches, membership, options, checkpoints, log, reclustering)
    return head.weight().detach().cpu()


def pairs_of_views(features: NDArray[np.floating], seed: int, device: torch.device) -> Batches:
    """Batches of two of the V views of each image, drawn anew each step from (n, V, D) cached encoder outputs."""
    cached = torch.from_numpy(features)

    def batches(sampler: ClusterBatchSampler, start: int) -> Iterable[tuple[list[int], Tensor]]:
        rng = np.random.default_rng([seed, sampler.epoch, 1])
        for number, rows in enumerate(sampler):
            drawn = rng.random((len(rows), features.shape[1]))  # for those before the start as well
            if number < start:
                continue
            pairs = np.argsort(drawn, axis=1)[:, :2]
            own, pairs = rows[rank() :: world_size()], pairs[rank() :: world_size()]
            yield own, cached[torch.tensor(own)[:, None], torch.from_numpy(pairs)].float().to(device)

    return batches
