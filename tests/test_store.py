"""The embedding file: what plain h5py sees, what is refused, and that nothing half-written appears."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.store import EmbeddingStore


def vectors(n: int, dim: int = 8) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((n, dim)).astype(np.float32)


def write(path: Path, n: int = 600, dtype: str = "float32") -> np.ndarray:
    rows = vectors(n)
    with EmbeddingStore.create(path, dim=8, dtype=dtype, attributes={"encoder": "toy"}) as writer:
        for start in range(0, n, 250):
            writer.append([f"bild-ü-{i}" for i in range(start, min(n, start + 250))], rows[start : start + 250])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_plain_h5py_reads_it(tmp_path: Path, dtype: str) -> None:
    unit = write(tmp_path / "e.h5", dtype=dtype)
    with h5py.File(tmp_path / "e.h5", "r") as file:
        assert file["embeddings"].dtype == dtype
        np.testing.assert_allclose(file["embeddings"][:], unit, atol=1e-6 if dtype == "float32" else 1e-3)
        assert file["ids"][0].decode() == "bild-ü-0"
        assert file["embeddings"].attrs["normalised"]
        assert file["embeddings"].compression is None
        assert dict(file.attrs) == {
            "format": "wscl-embed/embeddings",
            "format_version": 1,
            "encoder": "toy",
            "complete": True,
        }


def test_clusters_are_written_for_the_ids_in_the_file(tmp_path: Path) -> None:
    clusters = Clusters.from_labels(["c", "a", "x"], [1, 0, -1], name="tags")
    with EmbeddingStore.create(tmp_path / "e.h5", dim=8) as writer:
        writer.append(["a", "b", "c"], vectors(3))
        writer.set_clusters(clusters)
    with h5py.File(tmp_path / "e.h5", "r") as file:
        group = file["clusters"]
        assert group["labels"][:].tolist() == [0, -1, 1]
        assert group["indptr"][:].tolist() == [0, 1, 1, 2]
        assert group["indices"][:].tolist() == [0, 1]
        assert group["weights"][:].tolist() == [1, 1]
        assert [name.decode() for name in group["names"]] == ["tags-0", "tags-1"]


def test_search_is_exact(tmp_path: Path) -> None:
    unit = write(tmp_path / "e.h5")
    with EmbeddingStore(tmp_path / "e.h5") as store:
        found = store.search(unit[7] * 3, k=5, chunk=100)
    expected = np.argsort(-(unit @ unit[7]))[:5]
    assert [image_id for image_id, _ in found] == [f"bild-ü-{row}" for row in expected]
    assert found[0] == ("bild-ü-7", pytest.approx(1.0))


def test_a_query_of_another_dimension_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "e.h5")
    with EmbeddingStore(tmp_path / "e.h5") as store, pytest.raises(InputError, match="8 dimensions"):
        store.search(np.ones(9), k=1)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    write(tmp_path / "e.h5", n=10)
    before = (tmp_path / "e.h5").read_bytes()
    bad = vectors(3)
    bad[1, 2] = np.nan
    with (
        pytest.raises(InputError, match="image 'b' is not finite"),
        EmbeddingStore.create(tmp_path / "e.h5", dim=8) as writer,
    ):
        writer.append(["a", "b", "c"], bad)
    assert (tmp_path / "e.h5").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["e.h5"]


@pytest.mark.parametrize("kind", ["missing", "text", "other HDF5", "incomplete"])
def test_what_is_no_embedding_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "e.h5"
    if kind == "text":
        path.write_text(json.dumps({"embeddings": []}))
    elif kind == "other HDF5":
        with h5py.File(path, "w") as file:
            file["embeddings"] = vectors(3)
    elif kind == "incomplete":
        write(path)
        with h5py.File(path, "r+") as file:
            file.attrs["complete"] = False
    said = {"missing": "no such file", "text": "not an HDF5 file", "incomplete": "not a complete"}
    with pytest.raises(InputError, match=said.get(kind, "format None")):
        EmbeddingStore(path)
