"""``safetensors``: ``embeddings`` (N, D); the ids as their UTF-8 bytes in a row, ``id_bytes`` (uint8), and where each
begins and ends, ``id_offsets`` (N + 1,) int64; where the file has clusters ``labels`` (N,) int64; where it has captions
``text_embeddings`` (N, D), rows of zeros for images without one, and ``has_text`` (N,) bool. The embedding file's root
attributes are the metadata, as strings.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wscl_embed.store import EmbeddingStore


def write(store: EmbeddingStore, output: Path) -> None:
    """Write the file. The format needs all of it in memory."""
    from safetensors.numpy import save_file

    ids = [image_id.encode() for image_id in store.ids]
    tensors = {
        "embeddings": np.ascontiguousarray(store.embeddings[:]),
        "id_bytes": np.frombuffer(b"".join(ids), np.uint8),
        "id_offsets": np.cumsum([0, *map(len, ids)], dtype=np.int64),
    }
    if store.labels is not None:
        tensors["labels"] = store.labels
    if store.text_embeddings is not None and store.has_text is not None:
        tensors |= {"text_embeddings": np.ascontiguousarray(store.text_embeddings[:]), "has_text": store.has_text}
    save_file(tensors, output, metadata={key: str(value) for key, value in store.attributes.items()})
