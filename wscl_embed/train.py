"""The fine-tuner: Cl-InfoNCE on cached features (``head``) or through the image tower (``full``)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from wscl_embed.checkpoint import Checkpoints
from wscl_embed.errors import WsclEmbedError
from wscl_embed.features import draft_size
from wscl_embed.image_rows import Batch, ImageRows, image_loader
from wscl_embed.loss import cl_infonce
from wscl_embed.progress import track
from wscl_embed.sampling import ClusterBatchSampler

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder

Projection = Literal["none", "linear", "mlp"]


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
    warmup: float = 0.05
    gradient_clip: float = 1.0
    seed: int = 0


class EpochLog(Protocol):
    """Called after each epoch."""

    def __call__(self, epoch: int, loss: float, learning_rate: float) -> None: ...


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
    projection = make_projection(options.projection, dim).to(device)
    sampler = ClusterBatchSampler(membership, options.batch_size, options.images_per_cluster, seed=options.seed)

    def batches(epoch: int) -> Iterable[tuple[list[int], Tensor]]:
        sampler.set_epoch(epoch)
        rng = np.random.default_rng([options.seed, epoch, 1])
        for rows in sampler:
            pairs = np.argsort(rng.random((len(rows), n_views)), axis=1)[:, :2]
            yield rows, cached[torch.tensor(rows)[:, None], torch.from_numpy(pairs)].float().to(device)

    module = nn.ModuleDict({"head": head, "projection": projection})
    _optimise(
        module, batches, lambda inputs: projection(head(inputs)), len(sampler), membership, options, checkpoints, log
    )
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
    model = encoder.model
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("visual."))
    if unlocked_groups is not None:
        encoder.lock(unlocked_groups)
    projection = make_projection(options.projection, encoder.embed_dim).to(encoder.device)
    sampler = ClusterBatchSampler(membership, options.batch_size, options.images_per_cluster, seed=options.seed)
    rows = ImageRows(dataset, [encoder.augmentation()] * 2, draft_size(encoder), options.seed)
    loader = image_loader(rows, workers, encoder.device, batch_sampler=sampler)

    def batches(epoch: int) -> Iterable[tuple[list[int], Tensor]]:
        sampler.set_epoch(epoch)
        rows.epoch = epoch
        for batch in loader:
            _all_readable(batch)
            yield batch.rows, batch.images

    def embed(images: Tensor) -> Tensor:
        encoded = encoder.encode(images.flatten(0, 1))
        projected: Tensor = projection(encoded)
        return projected.view(*images.shape[:2], -1)

    visual: Any = model.visual
    module = nn.ModuleDict({"visual": visual, "projection": projection})
    encoder.train()
    _optimise(module, batches, embed, len(sampler), membership, options, checkpoints, log)
    model.eval()


class HeadMap(nn.Module):
    """x -> (I + delta) x. Weight decay pulls delta to zero, that is towards the frozen embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(dim, dim))

    def weight(self) -> Tensor:
        """(D, D)"""
        return torch.eye(len(self.delta), device=self.delta.device) + self.delta

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return x + x @ self.delta.T


def make_projection(kind: Projection, dim: int, out: int = 128) -> nn.Module:
    """The head used only in training (Chen et al., 2020): D -> P, or the identity."""
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(dim, out, bias=False)
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, out, bias=False))


def _optimise(
    module: nn.Module,
    batches: Callable[[int], Iterable[tuple[list[int], Tensor]]],
    embed: Callable[[Tensor], Tensor],
    steps_per_epoch: int,
    membership: sparse.csr_array,
    options: TrainOptions,
    checkpoints: Checkpoints,
    log: EpochLog,
) -> None:
    """AdamW, cosine with warm-up, clipped gradients; a checkpoint after each epoch."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(_decay_groups(trainable, options.weight_decay), lr=options.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, cosine_with_warmup(options.epochs * steps_per_epoch, options.warmup)
    )
    state = {"module": module, "optimiser": optimiser, "schedule": schedule}
    first = checkpoints.restore(state)
    with track("training", options.epochs * steps_per_epoch) as advance:
        advance(first * steps_per_epoch)
        for epoch in range(first, options.epochs):
            losses = []
            # Dropout draws from the global generator: a resumed epoch must draw what an uninterrupted one does.
            torch.manual_seed(int(np.random.SeedSequence([options.seed, epoch]).generate_state(1)[0]))
            for rows, inputs in batches(epoch):
                z = functional.normalize(embed(inputs), dim=-1)
                loss = cl_infonce(z, membership[rows], options.temperature)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(trainable, options.gradient_clip)
                optimiser.step()
                schedule.step()
                losses.append(loss.detach())
                advance(1)
            mean_loss = float(torch.stack(losses).mean())
            if not math.isfinite(mean_loss):
                raise WsclEmbedError(
                    f"the loss became {mean_loss} in epoch {epoch + 1}; try a lower --learning-rate "
                    f"(now {options.learning_rate}) or a higher --temperature (now {options.temperature})."
                )
            log(epoch + 1, mean_loss, float(schedule.get_last_lr()[0]))
            checkpoints.save(epoch + 1, state)


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
