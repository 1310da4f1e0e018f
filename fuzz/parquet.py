"""Parquet: clusters files, and metadata."""

import tempfile
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["wscl_embed"]):
    from wscl_embed.clusters import Clusters
    from wscl_embed.dataset import load_dataset
    from wscl_embed.errors import InputError
import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.harness import fuzz


def seeds():
    path = Path(tempfile.mkdtemp()) / "c.parquet"
    Clusters.from_labels(["a", "b", "c"], [0, 0, -1], name="toy").save(path)
    yield path.read_bytes()
    pq.write_table(pa.table({"file_name": ["a", "b"], "tags": [["x"], None], "n": [1, 2]}), path, compression="none")
    yield path.read_bytes()


def target(path):
    with suppress(InputError):
        clusters = Clusters.load(path)
        assert len(clusters.labels) == len(clusters) == clusters.membership.shape[0]
    load_dataset(path, images=False)


if __name__ == "__main__":
    fuzz(target, list(seeds()), "metadata.parquet")
