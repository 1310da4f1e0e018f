"""A stranger's run: clusters, index, configuration, metrics and checkpoint, each spoilt or made to harm."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.hostile.doors import checkpoint, clusters, config, index, metrics
from tests.hostile.sandbox import opened, read, refusal
from wscl_embed import Clusters, EmbeddingStore
from wscl_embed.searching.index_file import fingerprint, record_path

Spoil = Callable[[pa.Table], pa.Table]
GOOD = Clusters.from_labels(["a", "b", "c"], [0, 0, 1], name="toy").to_arrow()
INT_LISTS = pa.list_(pa.int32())


def column(name: str, values: pa.Array) -> Spoil:
    return lambda table: table.set_column(table.column_names.index(name), name, values)


def header(change: Callable[[dict[str, Any]], Any]) -> Spoil:
    def spoil(table: pa.Table) -> pa.Table:
        found = json.loads(table.schema.metadata[b"wscl_embed"])
        return table.replace_schema_metadata({"wscl_embed": json.dumps(change(found))})

    return spoil


DEEP = "[" * 100_000
CLUSTERS: dict[str, tuple[Spoil, str]] = {
    "a cluster there is not": (column("clusters", pa.array([[10**8], [0], [1]], INT_LISTS)), "indices must be < 2"),
    "a cluster below zero": (column("clusters", pa.array([[-5], [0], [1]], INT_LISTS)), "indices must be >= 0"),
    "more weights than clusters": (column("weights", pa.array([[1.0, 1.0], [], [1.0]])), "as many weights as clusters"),
    "weights that are no numbers": (column("weights", pa.array([[np.nan], [1.0], [1.0]])), "finite and not negative"),
    "weights below zero": (column("weights", pa.array([[-1.0], [1.0], [1.0]])), "finite and not negative"),
    "clusters that are text": (column("clusters", pa.array(["a", "b", "c"])), "parts do not fit one another"),
    "clusters that are fractions": (
        column("clusters", pa.array([[0.5], [0.5], [1.0]])),
        "parts do not fit one another",
    ),
    "no clusters": (lambda table: table.drop_columns(["clusters"]), "parts do not fit one another"),
    "null": (column("id", pa.array([None, "b", "c"])), "ids must be strings, and nothing null"),
    "numbers as ids": (column("id", pa.array([1, 2, 3])), "ids must be strings"),
    "an id twice": (column("id", pa.array(["a", "a", "c"])), "ids must be unique"),
    "no JSON": (lambda table: table.replace_schema_metadata({"wscl_embed": "{"}), "not a clusters file of version"),
    "deep JSON": (lambda table: table.replace_schema_metadata({"wscl_embed": DEEP}), "not a clusters file of version"),
    "a list": (header(lambda found: []), "not a clusters file of version"),
    "another table": (header(lambda found: {**found, "table": [{"x": 1}] * 2}), "parts do not fit one another"),
    "a table of numbers": (header(lambda found: {**found, "table": 7}), "parts do not fit one another"),
    "a shorter table": (header(lambda found: {**found, "table": found["table"][:1]}), "indices must be < 1"),
    "noise of nobody": (header(lambda found: {**found, "noise": [{}]}), "parts do not fit one another"),
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_that_are_refused(name: str, tmp_path: Path) -> None:
    spoil, said = CLUSTERS[name]
    path = tmp_path / "clusters.parquet"
    pq.write_table(spoil(GOOD), path)
    message = refusal(clusters, path)
    assert said in message
    pq.write_table(GOOD, path)
    assert read(clusters, path) == [0, 0, 1]


CONFIGS = {
    "objects": ("data: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
    "a billion laughs": (
        "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]),
        "config.yaml:2: the config does not parse (aliases (*) are not read)",
    ),
    "an alias of itself": ("data: &a [*a]", "aliases (*) are not read"),
    "deep": ("data: " + "[" * 10_000, "nested too deep"),
    "no mapping": ("- a\n- b", "a config is a mapping"),
    "bytes": ("\x00\x01", "the config does not parse"),
    "an option unknown": ("data: a\nadapter: [x]\noutput: b\ntrust_remote_code: true", "unknown option"),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configs_that_are_refused(name: str, tmp_path: Path) -> None:
    text, said = CONFIGS[name]
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
    assert said in refusal(config, tmp_path / "config.yaml")


@pytest.mark.parametrize("text", ["{", DEEP, "\ufeff[]"])
def test_metrics_that_do_not_parse(text: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text(text, encoding="utf-8")
    assert "metrics.json: does not parse" in refusal(metrics, tmp_path)


@pytest.mark.parametrize(
    "change",
    [{"kind": ["hnsw"]}, {"kind": "python"}, {"effort": "rm"}, {"effort": -1}, {"rows": 10**12}, {"x": 1}, None],
)
def test_index_records_that_are_refused(change: dict[str, Any] | None, tmp_path: Path) -> None:
    """faiss is never given a file that the record beside it does not name byte by byte."""
    path = tmp_path / "embeddings.h5"
    with EmbeddingStore.create(path, dim=2) as writer:
        writer.append(["a", "b"], np.eye(2))
    with EmbeddingStore(path) as store:
        record = {"kind": "hnsw", "effort": 16, "rows": 2, "dim": 2, "embeddings": fingerprint(store), "sha256": "0",
                  "recall": {}, "format": "wscl-embed/index", "format_version": 1}  # fmt: skip
    (tmp_path / "index.faiss").write_bytes(b"IxMp" + b"\xff" * 1000)
    text = DEEP if change is None else json.dumps({**record, **change})
    record_path(tmp_path / "index.faiss").write_text(text)
    assert "index.faiss" in refusal(index, path)


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.touch, (self.canary,)


def commit(folder: Path, state: bytes, record: str) -> None:
    """A checkpoint as a stranger makes it, whose hashes are right."""
    path = folder / "epoch-00001-step-0000000"
    path.mkdir()
    (path / "state.pt").write_bytes(state)
    (path / "COMMITTED").write_text(f"{record}\n{hashlib.sha256(record.encode()).hexdigest()}")


@pytest.mark.parametrize(
    "record", ["[]", "{}", "null", "{", '{"format_version": "9"}', DEEP], ids=lambda text: text[:9]
)
def test_records_of_checkpoints_that_are_refused(record: str, tmp_path: Path) -> None:
    commit(tmp_path, b"", record)
    assert "every checkpoint is damaged" in refusal(checkpoint, tmp_path)


@pytest.mark.parametrize("kind", ["pickle", "torch", "zip", "empty", "cut off", "no mapping"])
def test_checkpoints_that_are_refused(kind: str, tmp_path: Path) -> None:
    canary, buffer, plain = tmp_path / "executed", io.BytesIO(), io.BytesIO()
    torch.save({"epoch": 1, "head": Payload(canary)}, buffer, _use_new_zipfile_serialization=kind != "torch")
    torch.save([1, 2, 3], plain)
    content = {"pickle": pickle.dumps(Payload(canary)), "empty": b"", "cut off": buffer.getvalue()[:-50],
               "no mapping": plain.getvalue()}.get(kind, buffer.getvalue())  # fmt: skip
    record = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest(), "facts": {}, "format_version": 1}
    commit(tmp_path, content, json.dumps(record))
    outcome = opened(checkpoint, tmp_path)
    assert outcome.refused is not None, outcome
    assert "every checkpoint is damaged" in outcome.refused
    assert outcome.executed == []
    assert not canary.exists()
