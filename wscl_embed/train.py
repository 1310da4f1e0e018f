"""The fine-tuner: Cl-InfoNCE on cached features (``head``) or through the image tower (``full``)."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from wscl_embed import gradcache
from wscl_embed.checkpoint import Checkpoints
from wscl_embed.distributed import copy_from_first, on_first, rank, world_size
from wscl_embed.errors import WsclEmbedError
from wscl_embed.features import draft_size
from wscl_embed.heads import DualHead, HeadMap, Projection, make_projection
from wscl_embed.image_rows import Batch, ImageRows, image_loader
from wscl_embed.loss import cl_infonce, dual_head_cl_infonce
from wscl_embed.loss.terms import Denominator
from wscl_embed.progress import track
from wscl_embed.sampling import ClusterBatchSampler

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


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
    warmup: float = 0.05
    gradient_clip: float = 1.0
    seed: int = 0


class EpochLog(Protocol):
    """Called after each epoch; what it keeps goes into the checkpoint."""

    def __call__(self, epoch: int, loss: float, learning_rate: float) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def train_head(
    features: NDArray[np.floating],
    membership: sparse.csr_array,
    options: TrainOptions,
    *,
    device: torch.device,
    checkpoints: Checkpoints,
    log: EpochLog,
) -> Tensor:
    """Learn a linear map of frozen features that starts as the identity, so that the frozen embedding is its origin.

    Args:
        features: (n, V, D) cached encoder outputs of V views; each step draws two of them an image.
        membership: (n, K) of the same images.

    Returns:
        (D, D) float32 on the CPU, for `Encoder.fold`.
    """
    torch.manual_seed(options.seed)
    n_views, dim = features.shape[1:]
    cached = torch.from_numpy(features)
    head = HeadMap(dim).to(device)
    projection = _make_heads(options, dim).to(device)
    sampler = ClusterBatchSampler(membership, options.batch_size, options.images_per_cluster, seed=options.seed)

    def batches(epoch: int) -> Iterable[tuple[list[int], Tensor]]:
        sampler.set_epoch(epoch)
        rng = np.random.default_rng([options.seed, epoch, 1])
        for rows in sampler:
            pairs = np.argsort(rng.random((len(rows), n_views)), axis=1)[:, :2]
            own, pairs = rows[rank() :: world_size()], pairs[rank() :: world_size()]
            yield own, cached[torch.tensor(own)[:, None], torch.from_numpy(pairs)].float().to(device)

    embedder = nn.Sequential(OrderedDict(head=head, projection=projection))
    _optimise(embedder, batches, len(sampler), membership, options, checkpoints, log)
    return head.weight().detach().cpu()


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
) -> None:
    """Fine-tune the image tower of ``encoder`` in place, on two fresh augmented views of each image.

    Args:
        dataset: the n training images, all known to decode.
        membership: (n, K) of the same images.
        unlocked_groups: tune only this many of the tower's last layer groups; None: all of it.
    """
    torch.manual_seed(options.seed)
    for name, parameter in encoder.model.named_parameters():
        parameter.requires_grad_(name.startswith("visual."))
    if unlocked_groups is not None:
        encoder.lock(unlocked_groups)
    embedder = TowerEmbedder(encoder, _make_heads(options, encoder.embed_dim).to(encoder.device))
    sampler = ClusterBatchSampler(membership, options.batch_size, options.images_per_cluster, seed=options.seed)
    rows = ImageRows(dataset, [encoder.augmentation()] * 2, draft_size(encoder), options.seed)
    loader = image_loader(rows, workers, encoder.device, batch_sampler=OwnRows(sampler))

    def batches(epoch: int) -> Iterable[tuple[list[int], Tensor]]:
        sampler.set_epoch(epoch)
        rows.epoch = epoch
        for batch in loader:
            _all_readable(batch)
            yield batch.rows, batch.images.to(encoder.device, non_blocking=True)

    encoder.train()
    if options.compile:
        embedder.visual.compile()
    _optimise(embedder, batches, len(sampler), membership, options, checkpoints, log)
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
    """This process's share of each batch of a sampler; all processes draw the same batches."""

    def __init__(self, sampler: ClusterBatchSampler) -> None:
        self._sampler = sampler

    def __len__(self) -> int:
        return len(self._sampler)

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self._sampler:
            yield rows[rank() :: world_size()]


def _optimise(
    embedder: nn.Module,
    batches: Callable[[int], Iterable[tuple[list[int], Tensor]]],
    steps_per_epoch: int,
    membership: sparse.csr_array,
    options: TrainOptions,
    checkpoints: Checkpoints,
    log: EpochLog,
) -> None:
    """AdamW, cosine with warm-up, clipped gradients; a checkpoint after each epoch.

    On several processes ``batches`` gives each its own rows; the loss is that of all of them, the gradient is averaged.
    """
    trainable = [parameter for parameter in embedder.parameters() if parameter.requires_grad]
    on_cuda = trainable[0].device.type == "cuda"
    optimiser = torch.optim.AdamW(
        _decay_groups(trainable, options.weight_decay), lr=options.learning_rate, fused=on_cuda
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, cosine_with_warmup(options.epochs * steps_per_epoch, options.warmup)
    )
    state = {"module": embedder, "optimiser": optimiser, "schedule": schedule, "log": log}
    first = checkpoints.restore(state)
    parallel = DistributedDataParallel(embedder) if world_size() > 1 else embedder
    with track("training", options.epochs * steps_per_epoch) as advance:
        advance(first * steps_per_epoch)
        for epoch in range(first, options.epochs):
            losses = []
            # Dropout draws from the global generator: a resumed epoch must draw what an uninterrupted one does.
            torch.manual_seed(int(np.random.SeedSequence([options.seed, epoch]).generate_state(1)[0]))
            for rows, inputs in batches(epoch):
                optimiser.zero_grad(set_to_none=True)
                loss = _backward(parallel, inputs, membership[rows], options)
                nn.utils.clip_grad_norm_(trainable, options.gradient_clip)
                optimiser.step()
                schedule.step()
                losses.append(loss)
                advance(1)
            mean_loss = float(torch.stack(losses).mean())
            if not math.isfinite(mean_loss):
                raise WsclEmbedError(
                    f"the loss became {mean_loss} in epoch {epoch + 1}; try a lower --learning-rate "
                    f"(now {options.learning_rate}) or a higher --temperature (now {options.temperature})."
                )
            log(epoch + 1, mean_loss, float(schedule.get_last_lr()[0]))
            copy_from_first(embedder)
            on_first(lambda done=epoch + 1: checkpoints.save(done, state))  # type: ignore[misc]


def _make_heads(options: TrainOptions, dim: int) -> nn.Module:
    if options.instance_weight > 0:
        return DualHead(options.projection, dim)
    return make_projection(options.projection, dim)


def batch_loss(z: Tensor, membership: sparse.csr_array, options: TrainOptions) -> Tensor:
    """The loss of (b, V, P) outputs, not yet normalised, with the options' variants."""
    variants: dict[str, Any] = {
        "denominator": options.denominator,
        "cross_view_only": options.cross_view_only,
        "q": options.q,
        "lam": options.lam,
    }
    if options.instance_weight == 0:
        return cl_infonce(functional.normalize(z, dim=-1), membership, options.temperature, **variants)
    cluster_z, instance_z = (functional.normalize(part, dim=-1) for part in DualHead.split(z))
    weight = options.instance_weight
    return dual_head_cl_infonce(
        cluster_z, instance_z, membership, options.temperature, instance_weight=weight, **variants
    )


def _backward(embedder: nn.Module, inputs: Tensor, membership: sparse.csr_array, options: TrainOptions) -> Tensor:
    """Give the parameters their gradient; the loss of the batch, on the device and without a graph."""

    def loss_of(z: Tensor) -> Tensor:
        return batch_loss(z, membership, options)

    if options.micro_batch_size is not None and options.micro_batch_size < len(inputs):
        return gradcache.backward(embedder, inputs, loss_of, options.micro_batch_size)
    loss = loss_of(embedder(inputs))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()


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


def _all_readable(batch: Batch) -> None:
    if batch.bad:
        row = batch.bad[0]
        raise WsclEmbedError(
            f"image {row.id} ({row.path}) was readable at the start of the run and is not now: {row.reason}."
        )
