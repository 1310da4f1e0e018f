"""Embedding files."""

import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["wscl_embed"]):
    from wscl_embed.store import EmbeddingStore
from fuzz.harness import fuzz


def seed(rows):
    path = Path(tempfile.mkdtemp()) / "e.h5"
    with EmbeddingStore.create(path, dim=2, attributes={"encoder": "toy"}, hashed=True) as writer:
        hashes = np.zeros((rows, 16), np.uint8)
        writer.append([str(row) for row in range(rows)], np.ones((rows, 2)), hashes)
    return path.read_bytes()


def target(path):
    with EmbeddingStore(path) as store:
        assert len(store.ids) == len(store) == len(store.embeddings[:])
        store.search(np.ones(store.embeddings.shape[1]), 3)
        assert store.labels is None or len(store.labels) == len(store)
        assert store.content_hashes is None or len(store.content_hashes) == len(store)
        str(store.attributes)


if __name__ == "__main__":
    fuzz(target, [seed(0), seed(3)], "e.h5")
