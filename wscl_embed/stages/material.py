"""What training starts from: images that decode, their frozen features, their clusters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.adapter import Adapter
from wscl_embed.cache import default_cache_dir
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig
from wscl_embed.dataset import split_rows
from wscl_embed.distributed import on_first, world_size
from wscl_embed.errors import InputError
from wscl_embed.progress import console
from wscl_embed.quarantine import Quarantine
from wscl_embed.stages.clustering import (
    assign_others,
    assign_signals,
    batch_size_of,
    check_weights,
    combine,
    describe,
    named,
)
from wscl_embed.stages.inputs import read_labels

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder
    from wscl_embed.features import ImageFeatures


@dataclass(frozen=True)
class Material:
    """What training starts from.

    ============== ======================================================================
    ``dataset``    the n images that decode, all splits
    ``frozen``     (n, D) float32, the frozen encoder's outputs for them, not normalised
    ``hashes``     (n, 16) uint8, their content hashes
    ``train``      (t,) int64, the rows of ``dataset`` to train on
    ``clusters``   of those t images, in their order
    ``assigned``   clusters of all images of the training split: also of those that ``noise=drop`` leaves out of it
    ``summary``    what was said of those, for ``metrics.json``
    ``quarantine`` the images that were left out
    ============== ======================================================================
    """

    dataset: datasets.Dataset
    frozen: NDArray[np.floating]
    hashes: NDArray[np.uint8]
    train: NDArray[np.int64]
    clusters: Clusters
    assigned: Clusters
    summary: dict[str, Any]
    quarantine: Quarantine

    def with_clusters(self, assigned: Clusters, config: FitConfig) -> Material:
        """The same with other clusters of all images of the training split."""
        if assigned is self.assigned:
            return self
        return _material(self.dataset, self.frozen, self.hashes, assigned, self.quarantine, config)

    def with_dropped(self) -> Material:
        """The same with the images that ``noise=drop`` leaves out among those to train on."""
        return replace(self, train=_train_rows(self.dataset), clusters=self.assigned)


def cluster_signals(dataset: datasets.Dataset, adapters: Sequence[Adapter], config: FitConfig) -> dict[str, Clusters]:
    """The clusters of the adapters that look at no image, by name, over all images of the training split."""
    check_weights(adapters, config.adapter_weight)
    train = dataset.select(_train_rows(dataset))
    return on_first(lambda: assign_signals(named(adapters), train, batch_size_of(config)))


def prepare(
    dataset: datasets.Dataset,
    encoder: Encoder,
    adapters: Sequence[Adapter],
    config: FitConfig,
    clusters: Clusters | Mapping[str, Clusters],
) -> Material:
    """Frozen features, and the clusters.

    Args:
        clusters: those of an interrupted run, or what `cluster_signals` made, to which those of images are added.
    """
    found, dataset, quarantine = frozen_features(encoder, dataset, config)
    frozen = found.values[:, 0]
    quarantine.check_share(len(dataset) + len(quarantine), config.max_bad_share)
    if len(quarantine):
        console().print(f"[yellow]bad images left out: {len(quarantine)}; quarantine.csv names them[/yellow]")
    rows = _train_rows(dataset)
    train = dataset.select(rows)
    if isinstance(clusters, Mapping):
        signals = clusters
        if any(adapter.needs_image_features for adapter in adapters):
            train = with_features(train, frozen[rows])
        parts = on_first(lambda: assign_others(named(adapters), signals, train, batch_size_of(config)))
        clusters = combine(parts, config.adapter_weight)
    return _material(dataset, frozen, found.hashes, clusters.select(train["id"][:]), quarantine, config)


def _material(
    dataset: datasets.Dataset,
    frozen: NDArray[np.floating],
    hashes: NDArray[np.uint8],
    assigned: Clusters,
    quarantine: Quarantine,
    config: FitConfig,
) -> Material:
    rows = _train_rows(dataset)
    kept = np.flatnonzero(~assigned.dropped)
    check_processes(min(batch_size_of(config), len(kept)))
    clusters = assigned.select([assigned.ids[row] for row in kept])
    labels = None if config.label_column is None else read_labels(dataset.select(rows), config.label_column)
    # For the report alone: the labels end in this summary, training gets the clusters.
    summary = on_first(lambda: describe(assigned, batch_size_of(config), labels))
    return Material(dataset, frozen, hashes, rows[kept], clusters, assigned, summary, quarantine)


def check_processes(n_images: int) -> None:
    """See that each process gets an image of a batch of ``n_images``.

    Raises:
        InputError: there are more processes than images.
    """
    if n_images < world_size():
        raise InputError(
            f"a batch of {n_images} images (--batch-size, or all there are to train on) cannot be shared by "
            f"{world_size()} processes; start fewer."
        )


def _train_rows(dataset: datasets.Dataset) -> NDArray[np.int64]:
    if "split" not in dataset.column_names:
        return np.arange(len(dataset))
    return np.asarray(split_rows(dataset, "train"), dtype=np.int64)


def frozen_features(
    encoder: Encoder, dataset: datasets.Dataset, config: FitConfig
) -> tuple[ImageFeatures, datasets.Dataset, Quarantine]:
    """What the encoder makes of the images that decode, those n rows of the dataset, and the others."""
    from wscl_embed.features import encode_images

    found = encode_images(encoder, dataset, cache_dir=cache_dir(config), workers=config.workers, what="encoding images")
    quarantine = Quarantine()
    for row in found.bad:
        quarantine.add(row.id, row.path, row.reason)
    good = dataset if not found.bad else dataset.select(found.rows)
    return found, good, quarantine


def cache_dir(config: FitConfig) -> Path:
    """The folder of the feature cache, given or by default."""
    folder = Path(config.cache_dir) if config.cache_dir else default_cache_dir()
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; the cache of features (--cache-dir) must be a folder.")
    return folder


def with_features(dataset: datasets.Dataset, features: NDArray[np.floating]) -> datasets.Dataset:
    """``dataset`` with the column ``image_features``, (n, D) float32, for adapters that look at the images."""
    import datasets
    import pyarrow as pa

    from wscl_embed.dataset import quiet

    values = np.ascontiguousarray(features, dtype=np.float32)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    feature = datasets.Sequence(datasets.Value("float32"), length=values.shape[1])
    with quiet():
        return dataset.add_column("image_features", column, feature=feature)
