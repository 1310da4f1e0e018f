"""The stages `wscl_embed.pipeline` strings together, each a function of what the one before made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig
from wscl_embed.dataset import assign_splits, dataset_fingerprint, load_dataset, rows_of_split, split_rows
from wscl_embed.distributed import on_first
from wscl_embed.errors import InputError
from wscl_embed.progress import console
from wscl_embed.quarantine import Quarantine
from wscl_embed.run import Run
from wscl_embed.summary import check_clusters, summarise

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


@dataclass(frozen=True)
class Material:
    """What training starts from.

    ============== ======================================================================
    ``dataset``    the n images that decode, all splits
    ``frozen``     (n, D) float32, the frozen encoder's outputs for them, not normalised
    ``train``      (t,) int64, the rows of ``dataset`` to train on
    ``clusters``   of those t images, in their order
    ``summary``    what was said of the clusters, for ``metrics.json``
    ``quarantine`` the images that were left out
    ============== ======================================================================
    """

    dataset: datasets.Dataset
    frozen: NDArray[np.floating]
    train: NDArray[np.int64]
    clusters: Clusters
    summary: dict[str, Any]
    quarantine: Quarantine


def open_dataset(data: str | Path | datasets.Dataset, config: FitConfig) -> datasets.Dataset:
    """The dataset with a ``split`` column, held out here when it has none and labels are there to score by."""
    dataset = load_dataset(data) if isinstance(data, (str, Path)) else data
    if config.label_column is None:
        return dataset
    check_label_column(dataset, config.label_column)
    dataset = assign_splits(dataset, holdout=config.holdout)
    # An unknown split, or one in which nothing can be scored, is said now and not after training.
    labels = rows_of_split(dataset, config.eval_split)[config.label_column]
    if max(Counter(str(label) for label in labels if label is not None).values(), default=0) < 2:
        raise InputError(
            f"--label-column {config.label_column!r}: no label occurs twice among the {len(labels)} images of the "
            f"split {config.eval_split}, so nothing can be retrieved there. Name another column or --eval-split."
        )
    return dataset


def open_split(data: str | Path | datasets.Dataset, split: str | None) -> datasets.Dataset:
    """The rows of ``split``, or all of them."""
    dataset = load_dataset(data) if isinstance(data, (str, Path)) else data
    return dataset if split is None else rows_of_split(dataset, split)


def check_label_column(dataset: datasets.Dataset, column: str) -> None:
    """Refuse a label column that is not there, naming those that are."""
    if column not in dataset.column_names:
        known = [name for name in dataset.column_names if name not in ("id", "image")]
        raise InputError(f"--label-column {column!r}: no such column. The dataset has: {', '.join(known)}.")


def open_encoder(config: FitConfig) -> Encoder:
    """The encoder ``config`` names."""
    from wscl_embed.encoder_sources import load_encoder

    return load_encoder(config.model, config.pretrained, image_size=config.image_size, device=config.device)


def prepare(
    dataset: datasets.Dataset,
    encoder: Encoder,
    adapters: Sequence[Adapter],
    config: FitConfig,
    *,
    known: Path | None = None,
) -> Material:
    """Clusters and frozen features. Adapters that need no images go first: a wrong column is said within seconds.

    Args:
        known: the clusters of an interrupted run, to continue with instead of making them anew.
    """
    train = rows_of_split(dataset, "train") if "split" in dataset.column_names else dataset
    reads_images = any(adapter.needs_image_features for adapter in adapters)
    clusters = on_first(lambda: Clusters.load(known) if known is not None and known.is_file() else None)
    if clusters is None and not reads_images:
        clusters = on_first(lambda: assign(adapters, train, config.adapter_weight, _batch_size(config)))
    frozen, dataset, quarantine = frozen_features(encoder, dataset, config)
    quarantine.check_share(len(dataset) + len(quarantine), config.max_bad_share)
    if len(quarantine):
        console().print(f"[yellow]bad images left out: {len(quarantine)}; quarantine.csv names them[/yellow]")
    rows = _train_rows(dataset)
    train = dataset.select(rows)
    if clusters is None:
        seen = with_features(train, frozen[rows])
        clusters = on_first(lambda: assign(adapters, seen, config.adapter_weight, _batch_size(config)))
    clusters = clusters.select(list(train["id"]))
    return Material(dataset, frozen, rows, clusters, _describe(clusters, _batch_size(config)), quarantine)


def _batch_size(config: FitConfig) -> int:
    return config.resolved().batch_size or 1


def _train_rows(dataset: datasets.Dataset) -> NDArray[np.int64]:
    if "split" not in dataset.column_names:
        return np.arange(len(dataset))
    return np.asarray(split_rows(dataset, "train"), dtype=np.int64)


def frozen_features(
    encoder: Encoder, dataset: datasets.Dataset, config: FitConfig
) -> tuple[NDArray[np.floating], datasets.Dataset, Quarantine]:
    """The encoder's outputs (n, D) for the images that decode, those n rows of the dataset, and the others."""
    from wscl_embed.features import encode_images

    found = encode_images(
        encoder, dataset, cache_dir=_cache_dir(config), workers=config.workers, what="encoding images"
    )
    quarantine = Quarantine()
    for row in found.bad:
        quarantine.add(row.id, row.path, row.reason)
    good = dataset if not found.bad else dataset.select(found.rows)
    return found.values[:, 0], good, quarantine


def _cache_dir(config: FitConfig) -> Path:
    from wscl_embed.features import default_cache_dir

    return Path(config.cache_dir) if config.cache_dir else default_cache_dir()


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


def assign(
    adapters: Sequence[Adapter], dataset: datasets.Dataset, weights: Sequence[float], batch_size: int
) -> Clusters:
    """The clusters of all adapters side by side; says what each made, and refuses what cannot be trained on."""
    if weights and len(weights) != len(adapters):
        raise InputError(f"{len(adapters)} --adapter, but {len(weights)} --adapter-weight; give one each, or none.")
    parts = []
    for adapter in adapters:
        clusters = adapter.assign(dataset)
        check_clusters(clusters, adapter)
        console().print(f"[bold]adapter {adapter.name}[/bold]")
        for line in summarise(clusters, batch_size).lines():
            console().print(f"  {line}", markup=False, soft_wrap=True)
        parts.append(clusters)
    return Clusters.combine(parts, weights or None)


def _describe(clusters: Clusters, batch_size: int) -> dict[str, Any]:
    summary = summarise(clusters, batch_size)
    return {
        "n_clusters": summary.n_clusters,
        "noise_share": summary.noise_share,
        "singletons": summary.singletons,
        "sizes": summary.size_quantiles,
        "expected_positives": summary.expected_positives,
    }


def begin(run: Run, material: Material, config: FitConfig, *, overwrite: bool) -> None:
    """Make the run directory, with all that is known before training."""
    run.begin(config, overwrite=overwrite)
    material.quarantine.write(run.quarantine)
    material.clusters.save(run.clusters)


def tune(
    encoder: Encoder, material: Material, config: FitConfig, run: Run
) -> tuple[NDArray[np.floating], list[dict[str, float]]]:
    """Fine-tune ``encoder`` in place; its new outputs (n, D), and the loss and learning rate of each epoch."""
    from wscl_embed.checkpoint import Checkpoints
    from wscl_embed.features import encode_images
    from wscl_embed.train import train_full, train_head
    from wscl_embed.training_log import TrainingLog

    train = material.dataset.select(material.train)
    membership = material.clusters.membership
    with TrainingLog(run.tensorboard if config.tensorboard else None) as log:
        common = {"options": _train_options(config), "checkpoints": Checkpoints(run.checkpoints), "log": log}
        if config.tune == "full":
            locked = config.unlocked_groups
            train_full(encoder, train, membership, unlocked_groups=locked, workers=config.workers, **common)
            tuned = encode_images(encoder, material.dataset, workers=config.workers, what="writing embeddings")
            return tuned.values[:, 0], log.history
        views = _cached_views(encoder, train, material.frozen[material.train], config)
        weight = train_head(views, membership, device=encoder.device, **common)
        encoder.fold(weight)
        return material.frozen @ weight.numpy().T, log.history


def _train_options(config: FitConfig) -> Any:
    from wscl_embed.train import TrainOptions

    chosen = config.resolved().model_dump(include=set(TrainOptions.__dataclass_fields__))
    return TrainOptions(**chosen)


def _cached_views(
    encoder: Encoder, train: datasets.Dataset, frozen: NDArray[np.floating], config: FitConfig
) -> NDArray[np.floating]:
    """(t, 1 + V, D) float16: the plain view and V augmented ones."""
    from wscl_embed.features import encode_images

    views = encode_images(
        encoder,
        train,
        n_views=config.cached_views,
        seed=config.seed,
        cache_dir=_cache_dir(config),
        workers=config.workers,
        what="encoding views",
    )
    if len(views.rows) != len(train):
        raise InputError(f"image {views.bad[0].id} could be read a moment ago and no longer: {views.bad[0].reason}.")
    return np.concatenate([frozen[:, None].astype(np.float16), views.values], axis=1)


def write_results(
    encoder: Encoder, material: Material, tuned: NDArray[np.floating], config: FitConfig, run: Run
) -> None:
    """Write ``model/`` and ``embeddings.h5`` from the tuned encoder and its outputs (n, D)."""
    from wscl_embed.store import EmbeddingStore

    encoder.save(run.model)
    attributes = store_attributes(encoder, material.dataset, config.adapter)
    with EmbeddingStore.create(run.embeddings, encoder.embed_dim, dtype=config.dtype, attributes=attributes) as writer:
        writer.append(list(material.dataset["id"]), tuned)
        writer.set_clusters(material.clusters)


def store_attributes(encoder: Encoder, dataset: datasets.Dataset, adapters: Sequence[str]) -> dict[str, Any]:
    """The root attributes of an embedding file."""
    return {
        "encoder": encoder.name,
        "weights_hash": encoder.weights_hash(),
        "preprocess": json.dumps(encoder.preprocess_cfg),
        "adapters": json.dumps(list(adapters)),
        "dataset_fingerprint": dataset_fingerprint(dataset),
    }


def held_out_rows(dataset: datasets.Dataset, config: FitConfig) -> NDArray[np.int64]:
    """The rows of ``dataset`` that are scored; none without a label column."""
    if config.label_column is None:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(split_rows(dataset, config.eval_split), dtype=np.int64)


def score(
    material: Material, tuned: NDArray[np.floating], held_out: NDArray[np.int64], config: FitConfig
) -> dict[str, Any]:
    """The before/after part of ``metrics.json``; nothing without a label column."""
    if config.label_column is None:
        return {}
    labels = list(material.dataset[config.label_column])
    return {
        "split": config.eval_split,
        "label_column": config.label_column,
        **compare_embeddings(material.frozen[held_out], tuned[held_out], [labels[row] for row in held_out]),
    }


def compare_embeddings(
    before: NDArray[np.floating] | None, after: NDArray[np.floating], labels: Sequence[object]
) -> dict[str, Any]:
    """Retrieval of ``after``, and against ``before`` (both (n, D)) the changes and the verdict."""
    from wscl_embed.retrieval import compare, evaluate_retrieval, verdict

    scored = evaluate_retrieval(after, labels)
    metrics: dict[str, Any] = {"n_queries": scored.n_queries, "n_skipped": scored.n_skipped, "after": scored.means()}
    if before is None:
        return metrics
    frozen = evaluate_retrieval(before, labels)
    changes = compare(frozen, scored)
    return {
        **metrics,
        "before": frozen.means(),
        "change": {name: {"mean": c.mean, "low": c.low, "high": c.high} for name, c in changes.items()},
        "verdict": verdict(changes),
    }
