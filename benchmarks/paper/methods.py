"""The methods by name: each gives a (D, D) map of the frozen features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.paper.baselines import cross_entropy, prototypes
from benchmarks.paper.setting import Setting, budget
from benchmarks.paper.unlogged import NoCheckpoints, NoLog
from wscl_embed.clusters import Clusters
from wscl_embed.reclustering import Reclustering
from wscl_embed.registry import make_adapter
from wscl_embed.stages.material import with_features
from wscl_embed.train import TrainOptions, train_head

Method = Callable[[Setting, int], torch.Tensor]
"""(setting, seed) -> the (D, D) map of the frozen features, float32"""


def cluster(setting: Setting, adapters: tuple[str, ...], weights: tuple[float, ...], seed: int) -> Clusters:
    """What the adapters make of the training images, each with the seed where it draws."""
    parts = [make_adapter(with_seed(spec, seed)).assign(setting.train) for spec in adapters]
    return Clusters.combine(parts, list(weights) or None)


def with_seed(spec: str, seed: int) -> str:
    """The same adapter with a seed, where it takes one.

    >>> with_seed("captions:n_clusters=50", 3), with_seed("none", 3)
    ('captions:n_clusters=50,seed=3', 'none')
    """
    if "seed" not in make_adapter(spec).options():
        return spec
    return f"{spec}{',' if ':' in spec else ':'}seed={seed}"


@dataclass(frozen=True)
class ClInfoNCE:
    """Cl-InfoNCE on the clusters of one or several adapters; ``options`` change those of `fit`."""

    adapters: tuple[str, ...]
    weights: tuple[float, ...] = ()
    recluster_every: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, setting: Setting, seed: int) -> torch.Tensor:
        clusters = cluster(setting, self.adapters, self.weights, seed)
        rounds = None
        if self.recluster_every is not None:
            rounds = Reclustering(
                clusters, set(clusters.table["source"]), self._again(setting, seed), every=self.recluster_every
            )
        return train(setting, clusters, seed, rounds, **self.options)

    def _again(self, setting: Setting, seed: int) -> Callable[[NDArray[np.floating], int], Clusters]:
        images = setting.train.remove_columns("image_features")

        def assign(features: NDArray[np.floating], number: int) -> Clusters:
            seen = with_features(images, features)
            parts = [make_adapter(with_seed(spec, 1000 * seed + number)).assign(seen) for spec in self.adapters]
            return Clusters.combine(parts, list(self.weights) or None)

        return assign


def train(
    setting: Setting, clusters: Clusters, seed: int, rounds: Reclustering | None = None, **options: Any
) -> torch.Tensor:
    """`wscl_embed.train.train_head` on the clusters, in the budget that all methods have."""
    return train_head(
        setting.views,
        clusters.membership,
        budget(seed, **options),
        device=torch.device("cpu"),
        checkpoints=NoCheckpoints(),
        log=NoLog(),
        reclustering=rounds,
    )


@dataclass(frozen=True)
class OnClusters:
    """Another objective on the labels of an adapter's clusters."""

    objective: Callable[[NDArray[np.floating], NDArray[np.int64], TrainOptions], torch.Tensor]
    adapter: str

    def __call__(self, setting: Setting, seed: int) -> torch.Tensor:
        clusters = cluster(setting, (self.adapter,), (), seed)
        return self.objective(setting.views, clusters.labels, budget(seed))


def pcl(setting: Setting, seed: int) -> torch.Tensor:
    """PCL's prototypes at three numbers of clusters, made anew each epoch."""
    return prototypes(setting.views, (200, 400, 800), budget(seed))


def captions(**options: Any) -> ClInfoNCE:
    """Cl-InfoNCE on the captions' clusters with other options of `fit`."""
    return ClInfoNCE(("captions",), options=options)


IMAGES = "image_features"
SEVERAL_K = (f"{IMAGES}:n_clusters=200", f"{IMAGES}:n_clusters=400", f"{IMAGES}:n_clusters=800")

METHODS: dict[str, Method] = {
    "SimCLR": ClInfoNCE(("none",)),
    "cross-entropy, image clusters": OnClusters(cross_entropy, IMAGES),
    "PCL prototypes": pcl,
    "image clusters": ClInfoNCE((IMAGES,)),
    "image clusters, again every 5 epochs": ClInfoNCE((IMAGES,), recluster_every=5),
    "image clusters, three k": ClInfoNCE(SEVERAL_K),
    "hashtags": ClInfoNCE(("hashtags",)),
    "attributes": ClInfoNCE(("attributes",)),
    "cross-entropy, captions": OnClusters(cross_entropy, "captions"),
    "captions": ClInfoNCE(("captions",)),
    "captions + image clusters": ClInfoNCE(("captions", IMAGES)),
    "all together": ClInfoNCE(("captions", IMAGES, "hashtags", "attributes")),
    "SupCon": ClInfoNCE(("labels",)),
    **{
        f"{name}, temperature {value}": ClInfoNCE((adapter,), options={"temperature": value})
        for value in (0.15, 0.1)
        for name, adapter in (("SimCLR", "none"), ("captions", "captions"), ("SupCon", "labels"))
    },
}

ABLATIONS: dict[str, Method] = {
    **{f"captions, {k} clusters": ClInfoNCE((f"captions:n_clusters={k}",)) for k in (50, 100, 200, 800, 1200)},
    **{f"image clusters, {k}": ClInfoNCE((f"{IMAGES}:n_clusters={k}",)) for k in (50, 100, 200, 800, 1200)},
    **{f"attributes, top_k {k}": ClInfoNCE((f"attributes:top_k={k}",)) for k in (1, 3, 6, 20)},
}

REMEDIES: dict[str, Method] = {
    **{name: METHODS[name] for name in ("SimCLR", "cross-entropy, captions", "captions", "SupCon")},
    **{name: METHODS[name] for name in METHODS if "temperature" in name},
    "captions, temperature 0.07": captions(temperature=0.07),
    "captions, SINCERE": captions(denominator="negatives"),
    "captions, SINCERE, temperature 0.1": captions(denominator="negatives", temperature=0.1),
    "captions, RINCE 0.1": captions(q=0.1),
    "captions, RINCE 0.3": captions(q=0.3),
    "captions, dual head 0.5": captions(instance_weight=0.5),
    "captions, views across only": captions(cross_view_only=True),
    "captions, batches of 128": captions(batch_size=128),
    "captions, batches of 1024": captions(batch_size=1024, learning_rate=6e-3),
    "captions, 2 images a cluster": captions(images_per_cluster=2),
    "captions, weight decay 0.3": captions(weight_decay=0.3),
    "captions, weight 0.3": ClInfoNCE(("captions",), weights=(0.3,)),
    **{f"captions, {k} clusters": ClInfoNCE((f"captions:n_clusters={k}",)) for k in (77, 154, 616)},
    "captions, three k": ClInfoNCE(tuple(f"captions:n_clusters={k}" for k in (100, 308, 740))),
}
"""What might close more of the gap, for `hold_out`."""
