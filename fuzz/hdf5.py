"""Embedding files: the trial in another process, and what this one reads after it."""

import os
import subprocess
import tempfile
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["wscl_embed"]):
    from wscl_embed.store import EmbeddingStore, trial
from fuzz.harness import fuzz


def seed(rows):
    path = Path(tempfile.mkdtemp()) / "e.h5"
    with EmbeddingStore.create(path, dim=2, attributes={"encoder": "toy"}, hashed=True) as writer:
        hashes = np.zeros((rows, 16), np.uint8)
        writer.append([str(row) for row in range(rows)], np.ones((rows, 2)), hashes)
    return path.read_bytes()


def forked(path):
    """Stands for `trial._run`: a fork takes a tenth of the time of a new process."""
    reading, writing = os.pipe()
    if (pid := os.fork()) == 0:
        os.dup2(writing, 1)
        try:
            trial.main(str(path), trial.PROCESSOR_SECONDS)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    # What the other process refused without being lost this one refuses as well, where the fuzzer sees the way there.
    return subprocess.CompletedProcess([], 0 if code == trial.REFUSED else code, said, b"")


def target(path):
    with EmbeddingStore(path) as store:
        assert len(store.ids) == len(store) == len(store.embeddings[:])
        store.search(np.ones(store.embeddings.shape[1]), 3)
        assert store.labels is None or len(store.labels) == len(store)
        assert store.content_hashes is None or len(store.content_hashes) == len(store)
        assert store.clusters is None or len(store.clusters) == len(store)
        str(store.attributes)


if __name__ == "__main__":
    trial._run = forked
    fuzz(target, [seed(0), seed(3)], "e.h5")
