"""The objectives Cl-InfoNCE is compared with, over the same map, views, steps and optimiser."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from wscl_embed import cl_infonce
from wscl_embed.heads import HeadMap
from wscl_embed.sampling import ClusterBatchSampler
from wscl_embed.train import TrainOptions
from wscl_embed.train.optimise import cosine_with_warmup

Loss = Callable[[Tensor, Tensor], Tensor]
"""((b, V, D) outputs of the map, (b,) rows) -> scalar"""


def cross_entropy(views: NDArray[np.floating], labels: NDArray[np.int64], options: TrainOptions) -> Tensor:
    """A softmax over the clusters, between unit rows and unit class vectors at the loss's temperature.

    Zhai and Wu ("Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019). Images of no cluster (-1)
    are left out.

    Returns:
        (D, D) float32.
    """
    classes = nn.Linear(views.shape[2], int(labels.max()) + 1, bias=False)
    cluster_of = torch.from_numpy(labels)

    def loss(z: Tensor, rows: Tensor) -> Tensor:
        logits = functional.normalize(z, dim=-1) @ functional.normalize(classes.weight, dim=-1).T
        wanted = cluster_of[rows, None].expand(z.shape[:2])
        return functional.cross_entropy((logits / options.temperature).flatten(0, 1), wanted.flatten(), ignore_index=-1)

    return _train(views, lambda _: loss, options, classes)


def prototypes(views: NDArray[np.floating], n_clusters: Sequence[int], options: TrainOptions) -> Tensor:
    """InfoNCE plus, for several k, a softmax over k-means centres with a temperature of each, made anew each epoch.

    ProtoNCE of Li et al. ("Prototypical Contrastive Learning of Unsupervised Representations", ICLR 2021, arXiv
    2005.04966), with equations (11) and (12), against all other centres, without a momentum encoder.

    Returns:
        (D, D) float32.
    """
    plain = torch.from_numpy(views[:, 0]).float()
    empty = sparse.csr_array((len(views), 0), dtype=np.float32)

    def for_epoch(head: HeadMap) -> Loss:
        with torch.no_grad():
            unit = functional.normalize(head(plain), dim=-1)
        levels = [_centres(unit, k, options) for k in n_clusters]

        def loss(z: Tensor, rows: Tensor) -> Tensor:
            z = functional.normalize(z, dim=-1)
            terms = []
            for cluster_of, centres, temperatures in levels:
                logits = (z @ centres.T / temperatures).flatten(0, 1)
                terms.append(functional.cross_entropy(logits, cluster_of[rows].repeat_interleave(z.shape[1])))
            return cl_infonce(z, empty[rows.numpy()], options.temperature) + torch.stack(terms).mean()

        return loss

    return _train(views, for_epoch, options)


def _centres(unit: Tensor, k: int, options: TrainOptions) -> tuple[Tensor, Tensor, Tensor]:
    """The cluster of each row, (K, D) unit centres, and (K,) temperatures: PCL's concentrations, of the loss's mean."""
    # As PCL does, by faiss; five iterations, because with more they take most of the time.
    kmeans = faiss.Kmeans(unit.shape[1], k, niter=5, seed=options.seed, max_points_per_centroid=len(unit))
    kmeans.train(unit.numpy())
    nearest = kmeans.index.search(unit.numpy(), 1)[1][:, 0]
    labels = torch.from_numpy(np.unique(nearest, return_inverse=True)[1])
    sizes = torch.bincount(labels)
    sums = torch.zeros(len(sizes), unit.shape[1]).index_add_(0, labels, unit)
    centres = functional.normalize(sums, dim=-1)
    distances = (unit - centres[labels]).norm(dim=-1)
    spread = torch.zeros(len(sizes)).index_add_(0, labels, distances) / (sizes * torch.log(sizes + 10.0))
    spread = spread.clamp(*torch.quantile(spread, torch.tensor([0.1, 0.9])))  # a cluster of one image has no spread
    return labels, centres, spread * options.temperature / spread.mean()


def _train(
    views: NDArray[np.floating], loss_of: Callable[[HeadMap], Loss], options: TrainOptions, *extra: nn.Module
) -> Tensor:
    """AdamW over uniform batches of two views, the schedule of `wscl_embed.train`; ``loss_of`` is asked each epoch."""
    torch.manual_seed(options.seed)
    head = HeadMap(views.shape[2])
    parameters = [parameter for module in (head, *extra) for parameter in module.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=options.weight_decay)
    sampler = ClusterBatchSampler(
        sparse.csr_array((len(views), 0), dtype=np.float32), options.batch_size, seed=options.seed
    )
    factor = cosine_with_warmup(options.epochs * len(sampler), options.warmup)
    for epoch in range(options.epochs):
        sampler.set_epoch(epoch)
        rng = np.random.default_rng([options.seed, epoch, 1])
        loss = loss_of(head)
        for step, rows in enumerate(sampler, epoch * len(sampler)):
            pairs = np.argsort(rng.random((len(rows), views.shape[1])), axis=1)[:, :2]
            inputs = torch.from_numpy(views[np.asarray(rows)[:, None], pairs]).float()
            optimiser.param_groups[0]["lr"] = options.learning_rate * factor(step)
            optimiser.zero_grad()
            loss(head(inputs), torch.tensor(rows)).backward()
            nn.utils.clip_grad_norm_(parameters, options.gradient_clip)
            optimiser.step()
    return head.weight().detach()
