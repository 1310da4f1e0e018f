"""What a run writes, and how it scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.config import FitConfig
from wscl_embed.dataset import dataset_fingerprint, split_rows
from wscl_embed.run import Run
from wscl_embed.stages.material import Material

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


def begin(run: Run, material: Material, config: FitConfig, *, overwrite: bool) -> None:
    """Make the run directory, with all that is known before training."""
    run.begin(config, overwrite=overwrite)
    material.quarantine.write(run.quarantine)
    material.assigned.save(run.clusters)


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
