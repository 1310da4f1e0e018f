"""What a run writes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.captions import captions_fingerprint
from wscl_embed.config import FitConfig
from wscl_embed.dataset import dataset_fingerprint
from wscl_embed.run import Run
from wscl_embed.stages.material import Material

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder
    from wscl_embed.store import TextRows


def begin(run: Run, material: Material, config: FitConfig, *, overwrite: bool) -> None:
    """Make the run directory, with all that is known before training."""
    run.begin(config, overwrite=overwrite)
    material.quarantine.write(run.quarantine)
    material.assigned.save(run.clusters)


def write_results(
    encoder: Encoder,
    material: Material,
    tuned: NDArray[np.floating],
    texts: TextRows | None,
    config: FitConfig,
    run: Run,
) -> None:
    """Write ``model/`` and ``embeddings.h5`` from the tuned encoder and its outputs (n, D), and the last clusters.

    Args:
        texts: the captions of the n images; None: there are none.
    """
    from wscl_embed.store import EmbeddingStore

    material.assigned.save(run.clusters)
    encoder.save(run.model)
    attributes = store_attributes(encoder, material.dataset, config.adapter, config.caption_column)
    with EmbeddingStore.create(
        run.embeddings,
        encoder.embed_dim,
        dtype=config.dtype,
        attributes=attributes,
        hashed=True,
        texts=texts is not None,
    ) as writer:
        writer.append(material.dataset["id"][:], tuned, material.hashes, texts)
        writer.set_clusters(material.clusters)


def write_card(encoder: Encoder, material: Material, metrics: Mapping[str, Any], config: FitConfig, run: Run) -> None:
    """Write the model card."""
    from wscl_embed import model_card

    model_card.write_card(
        run.model,
        encoder,
        material.clusters,
        metrics,
        adapters=config.adapter,
        dataset_fingerprint=dataset_fingerprint(material.dataset),
    )


def store_attributes(
    encoder: Encoder, dataset: datasets.Dataset, adapters: Sequence[str], caption_column: str | None = None
) -> dict[str, Any]:
    """The root attributes of an embedding file."""
    attributes = {
        "encoder": encoder.name,
        "weights_hash": encoder.weights_hash(),
        "preprocess": json.dumps(encoder.preprocess_cfg),
        "adapters": json.dumps(list(adapters)),
        "dataset_fingerprint": dataset_fingerprint(dataset),
    }
    if caption_column is None:
        return attributes
    return {
        **attributes,
        "caption_column": caption_column,
        "text_weights_hash": encoder.text_weights_hash(),
        "captions_fingerprint": captions_fingerprint(dataset, caption_column),
    }
