"""Full mode: through the image tower, on fresh augmented views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from wscl_embed.checkpoint import Checkpoints
from wscl_embed.distributed import rank, world_size
from wscl_embed.errors import LostInputError
from wscl_embed.features import draft_size, encode_images
from wscl_embed.image_rows import ImageRows, iterate_images
from wscl_embed.quarantine import BadRow
from wscl_embed.reclustering import Reclustering
from wscl_embed.sampling import ClusterBatchSampler
from wscl_embed.train.objective import make_heads
from wscl_embed.train.optimise import optimise
from wscl_embed.train.options import EpochLog, TrainOptions

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


def train_full(
    encoder: Encoder,
    dataset: datasets.Dataset,
    membership: sparse.csr_array,
    options: TrainOptions,
    *,
    unlocked_groups: int | None,
    workers: int | None,
    checkpoints: Checkpoints,
    log: EpochLog,
    reclustering: Reclustering | None = None,
) -> None:
    """Fine-tune the image tower of ``encoder`` in place, on two fresh augmented views of each image.

    Args:
        dataset: the n training images, all known to decode.
        membership: (n, K) of the same images.
        unlocked_groups: tune only this many of the tower's last layer groups; None: all of it.
        reclustering: makes the membership anew as the tower changes.
    """
    torch.manual_seed(options.seed)
    for name, parameter in encoder.model.named_parameters():
        parameter.requires_grad_(name.startswith("visual."))
    if unlocked_groups is not None:
        encoder.lock(unlocked_groups)
    embedder = TowerEmbedder(encoder, make_heads(options, encoder.embed_dim).to(encoder.device))
    rows = ImageRows(dataset, [encoder.augmentation()] * 2, draft_size(encoder), options.seed)

    def batches(sampler: ClusterBatchSampler, start: int) -> Iterable[tuple[list[int], Tensor]]:
        rows.epoch = sampler.epoch
        for batch in iterate_images(rows, workers, encoder.device, batch_sampler=OwnRows(sampler, start)):
            _all_readable(batch.bad)
            yield batch.rows, batch.images.to(encoder.device, non_blocking=True)

    encoder.train()
    if options.compile:
        embedder.visual.compile()
    if reclustering is not None:
        reclustering.follow(lambda: _current_features(encoder, dataset, workers))
    optimise(embedder, batches, membership, options, checkpoints, log, reclustering)
    encoder.model.eval()


class TowerEmbedder(nn.Module):
    """(b, V, 3, H, W) views -> (b, V, P): the image tower of an encoder, then the projection."""

    def __init__(self, encoder: Encoder, projection: nn.Module) -> None:
        super().__init__()
        self.visual = cast(nn.Module, encoder.model.visual)
        self.projection = projection
        self._encode = encoder.encode  # a method, not a module: the text tower is none of this one's parameters

    def forward(self, views: Tensor) -> Tensor:
        """(b, V, 3, H, W) -> (b, V, P)"""
        projected: Tensor = self.projection(self._encode(views.flatten(0, 1)))
        return projected.view(*views.shape[:2], -1)


class OwnRows:
    """This process's share of each batch of a sampler from number ``start`` on; all processes draw the same batches."""

    def __init__(self, sampler: ClusterBatchSampler, start: int = 0) -> None:
        self._sampler, self._start = sampler, start

    def __len__(self) -> int:
        return len(self._sampler) - self._start

    def __iter__(self) -> Iterator[list[int]]:
        for rows in islice(self._sampler, self._start, None):
            yield rows[rank() :: world_size()]


def _current_features(encoder: Encoder, dataset: datasets.Dataset, workers: int | None) -> NDArray[np.floating]:
    """(n, D) outputs of the tower as it is, for the images without augmentation."""
    found = encode_images(encoder, dataset, workers=workers, what="encoding images")
    encoder.train()
    _all_readable(found.bad)
    return found.values[:, 0]


def _all_readable(bad: Sequence[BadRow]) -> None:
    if bad:
        row = bad[0]
        raise LostInputError(
            f"image {row.id} ({row.path}) was readable at the start of the run and is not now: {row.reason}."
        )
