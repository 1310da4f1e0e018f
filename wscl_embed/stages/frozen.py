"""What the encoder a run started from makes of the run's images: the "before" of a search."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from wscl_embed.config import make_config
from wscl_embed.errors import InputError
from wscl_embed.progress import say
from wscl_embed.stages.material import cache_dir
from wscl_embed.stages.results import store_attributes

if TYPE_CHECKING:
    from wscl_embed.encoder import Encoder
    from wscl_embed.searching import Searcher


def frozen_embeddings(searcher: Searcher, *, device: str = "auto") -> tuple[Path, Encoder]:
    """The embedding file of a run's images by the frozen encoder, and that encoder.

    The file is made once and kept in the cache: from the features `fit` left there, or, where these are gone, by
    encoding the images, which a later call continues if it is interrupted.

    Args:
        searcher: the run's.
        device: for the encoder.

    Raises:
        InputError: no run of `fit`, a frozen encoder or images that cannot be had, or another process that makes the
            same file.
    """
    from wscl_embed.encoder_sources import load_encoder

    if not searcher.config:
        raise InputError(f"{searcher.source}: no run of fit (no config.yaml), so it is not known what it started from.")
    config = make_config(searcher.config)
    encoder = load_encoder(config.model, config.pretrained, image_size=config.image_size, device=device)
    path = cache_dir(config) / "frozen" / f"{_key(searcher, encoder)}.h5"
    if not path.is_file() and not _write_cached(searcher, encoder, path, cache_dir(config)):
        _write_encoded(searcher, encoder, path)
    return path, encoder


def _key(searcher: Searcher, encoder: Encoder) -> str:
    """Of the encoder and of the images the run is made of."""
    digest = hashlib.sha256(encoder.weights_hash().encode())
    digest.update(str(searcher.store.attributes.get("dataset_fingerprint")).encode())
    for image_id in searcher.ids:
        digest.update(f"{len(image_id)}:{image_id}".encode())
    return digest.hexdigest()[:32]


def _write_cached(searcher: Searcher, encoder: Encoder, path: Path, cache: Path) -> bool:
    """Write the file from the features that `fit` cached; False where it did not, or the images changed since."""
    from wscl_embed.features import cached_features
    from wscl_embed.store import EmbeddingStore

    dataset = searcher.columns.dataset
    features = cached_features(encoder, dataset, cache)
    if features is None:
        return False
    known = searcher.columns.rows
    kept = np.flatnonzero(np.isin(features.rows, known))
    ids = dataset.select_columns(["id"]).select(features.rows[kept])["id"][:]
    attributes = store_attributes(encoder, dataset, adapters=[])
    with EmbeddingStore.create(path, encoder.embed_dim, attributes=attributes) as writer:
        writer.append(ids, features.values[kept, 0])
    return True


def _write_encoded(searcher: Searcher, encoder: Encoder, path: Path) -> None:
    """Write the file by encoding the images; what an interrupted call has encoded is kept."""
    from wscl_embed.embedding import write_embeddings
    from wscl_embed.store.partial import Partial

    columns = searcher.columns
    dataset = columns.dataset.select(columns.rows[columns.rows >= 0])
    say(f"encoding {len(dataset):,} images as {encoder.name} saw them before tuning; once, then kept")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Partial(path)
    with partial.lock():
        attributes = store_attributes(encoder, dataset, adapters=[])
        write_embeddings(encoder, dataset, partial, attributes, dtype="float32", max_bad_share=1.0, resume=True)
        partial.remove()
