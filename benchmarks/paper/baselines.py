"""The objectives Cl-InfoNCE is compared with, over the same map, views, steps and optimiser."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import faiss
import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.paper.unlogged import NoCheckpoints, NoLog
from wscl_embed import cl_infonce
from wscl_embed.heads import HeadMap
from wscl_embed.sampling import ClusterBatchSampler
from wscl_embed.train import TrainOptions
from wscl_embed.train.head import pairs_of_views
from wscl_embed.train.objective import BatchLoss
from wscl_embed.train.optimise import Batches, optimise

CPU = torch.device("cpu")


def cross_entropy(views: NDArray[np.floating], labels: NDArray[np.int64], options: TrainOptions) -> Tensor:
    """A softmax over the clusters, between unit rows and unit class vectors at the loss's temperature.

    Zhai and Wu ("Classification is a Strong Baseline for Deep Metric Learning", BMVC 2019). Images of no cluster (-1)
    are left out.

    Returns:
        (D, D) float32.
    """
    torch.manual_seed(options.seed)
    head, classes = HeadMap(views.shape[2]), nn.Linear(views.shape[2], int(labels.max()) + 1, bias=False)
    cluster_of = torch.from_numpy(labels)

    def loss(z: Tensor, *, rows: list[int], membership: sparse.csr_array) -> Tensor:
        logits = functional.normalize(z, dim=-1) @ functional.normalize(classes.weight, dim=-1).T
        wanted = cluster_of[rows, None].expand(z.shape[:2])
        return functional.cross_entropy((logits / options.temperature).flatten(0, 1), wanted.flatten(), ignore_index=-1)

    return _train(Beside(head, classes), pairs_of_views(views, options.seed, CPU), loss, len(views), options)


def prototypes(views: NDArray[np.floating], n_clusters: Sequence[int], options: TrainOptions) -> Tensor:
    """InfoNCE plus, for several k, a softmax over k-means centres with a temperature of each, made anew each epoch.

    ProtoNCE of Li et al. ("Prototypical Contrastive Learning of Unsupervised Representations", ICLR 2021, arXiv
    2005.04966), with equations (11) and (12), against all other centres, without a momentum encoder.

    Returns:
        (D, D) float32.
    """
    plain = torch.from_numpy(views[:, 0]).float()
    head, pairs = HeadMap(views.shape[2]), pairs_of_views(views, options.seed, CPU)
    levels: list[tuple[Tensor, Tensor, Tensor]] = []

    def batches(sampler: ClusterBatchSampler, start: int) -> Iterable[tuple[list[int], Tensor]]:
        with torch.no_grad():
            unit = functional.normalize(head(plain), dim=-1)
        levels[:] = [_centres(unit, k, options) for k in n_clusters]
        return pairs(sampler, start)

    def loss(z: Tensor, *, rows: list[int], membership: sparse.csr_array) -> Tensor:
        z = functional.normalize(z, dim=-1)
        terms = []
        for cluster_of, centres, temperatures in levels:
            logits = (z @ centres.T / temperatures).flatten(0, 1)
            terms.append(functional.cross_entropy(logits, cluster_of[rows].repeat_interleave(z.shape[1])))
        return cl_infonce(z, membership[rows], options.temperature) + torch.stack(terms).mean()

    return _train(Beside(head), batches, loss, len(views), options)


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


class Beside(nn.Module):
    """The map alone, with modules that the loss uses beside it."""

    def __init__(self, head: HeadMap, *others: nn.Module) -> None:
        super().__init__()
        self.head, self.others = head, nn.ModuleList(others)

    def forward(self, x: Tensor) -> Tensor:
        mapped: Tensor = self.head(x)
        return mapped


def _train(embedder: Beside, batches: Batches, loss: BatchLoss, n_images: int, options: TrainOptions) -> Tensor:
    """The loop of `wscl_embed.train` over uniform batches, which is what it draws where there are no clusters."""
    no_clusters = sparse.csr_array(np.zeros((n_images, 0), dtype=np.float32))
    optimise(embedder, batches, no_clusters, options, NoCheckpoints(), NoLog(), loss_of=loss)
    return embedder.head.weight().detach()
