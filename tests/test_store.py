"""The embedding file: what plain h5py sees, what is refused, and that nothing half-written appears."""

from __future__ import annotations

import errno
import json
import pickle
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.store import EmbeddingStore, TextRows, matrix, reader
from wscl_embed.store.rows import RowFiles
from wscl_embed.store.unit import converted, unit_blocks


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
            "format_version": 2,
            "encoder": "toy",
            "complete": True,
        }


def test_rows_are_mapped_from_where_hdf5_says_they_are(tmp_path: Path) -> None:
    unit = write(tmp_path / "e.h5")
    with h5py.File(tmp_path / "e.h5", "r") as file:
        assert file["embeddings"].chunks is None
        assert file["embeddings"].id.get_offset() % 4096 == 0
    with EmbeddingStore(tmp_path / "e.h5") as store:
        assert isinstance(store.embeddings, np.memmap)
        rows = store.embeddings[[599, 0, 7]]
    np.testing.assert_allclose(rows, unit[[599, 0, 7]], atol=1e-6)  # also after the file was closed


@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_rows(tmp_path: Path, n: int) -> None:
    unit = write(tmp_path / "e.h5", n=n)
    with EmbeddingStore(tmp_path / "e.h5") as store:
        assert store.ids == [f"bild-ü-{row}" for row in range(n)]
        np.testing.assert_allclose(store.embeddings[:], unit.reshape(n, 8), atol=1e-6)


def test_version_1_is_read(tmp_path: Path) -> None:
    """Rows in chunks, ids of variable length."""
    with h5py.File(tmp_path / "e.h5", "w") as file:
        ids = file.create_dataset("ids", (0,), h5py.string_dtype(), maxshape=(None,), chunks=(4096,))
        rows = file.create_dataset("embeddings", (0, 8), np.float16, maxshape=(None, 8), chunks=(256, 8))
        ids.resize((600,))
        rows.resize((600, 8))
        ids[:] = [f"bild-ü-{row}" for row in range(600)]
        rows[:] = vectors(600)
        file.attrs.update({"format": "wscl-embed/embeddings", "format_version": 1, "complete": True})
    with EmbeddingStore(tmp_path / "e.h5") as store:
        assert store.ids == [f"bild-ü-{row}" for row in range(600)]
        np.testing.assert_array_equal(store.embeddings[:], vectors(600).astype(np.float16))
        np.testing.assert_array_equal(np.asarray(store.embeddings), store.embeddings[:])
        assert (store.content_hashes, store.labels, store.text_embeddings, store.has_text) == (None,) * 4


@pytest.mark.parametrize(("scale", "dtype"), [(1e30, "f4"), (1e-30, "f4"), (3e4, "f2"), (2, "f8")])
def test_lengths_beyond_what_squares_hold(tmp_path: Path, scale: float, dtype: str) -> None:
    rows = (np.clip(vectors(20), -1, 1) * scale).astype(dtype)
    with EmbeddingStore.create(tmp_path / "e.h5", dim=8) as writer:
        writer.append([str(row) for row in range(20)], rows)
    wide = rows.astype(np.float64)
    with EmbeddingStore(tmp_path / "e.h5") as store:
        np.testing.assert_allclose(store.embeddings, wide / np.linalg.norm(wide, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_many_blocks_at_once_are_those_of_blocks_one_by_one(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next block is made in a thread; a bad row in any of them is named, and the blocks before it are cut off."""
    monkeypatch.setattr("wscl_embed.store.unit.BLOCK_BYTES", 4 * 8 * 7)  # 7 rows
    rows = vectors(100) * np.linspace(0.1, 9, 100, dtype=np.float32)[:, None]
    ids = [f"image {row}" for row in range(100)]
    alone = [block for row in range(100) for block in unit_blocks(rows[row : row + 1], ids[row:], dtype, "row")]
    path = tmp_path / "e.h5"
    for bad in (0, 6, 7, 50, 99):
        spoilt = rows.copy()
        spoilt[bad:, 3] = np.nan
        with EmbeddingStore.create(path, dim=8, dtype=dtype) as writer:
            with pytest.raises(InputError, match=f"of image 'image {bad}' is not finite"):
                writer.append(ids, spoilt)
            writer.append(ids, rows)
        with EmbeddingStore(path) as store:
            np.testing.assert_array_equal(store.embeddings, np.concatenate(alone))


def test_an_id_hdf5_cannot_hold_is_refused(tmp_path: Path) -> None:
    with (
        pytest.raises(InputError, match=r"the id 'b\\x00c' has a NUL"),
        EmbeddingStore.create(tmp_path / "e.h5", dim=8) as writer,
    ):
        writer.append(["a", "b\0c"], vectors(2))


def test_rows_that_do_not_fit_their_ids_or_the_file_are_refused(tmp_path: Path) -> None:
    """One row more than ids would stand in the place of the next one, and move all behind it."""
    hashes, texts = np.zeros((2, 16), np.uint8), TextRows(vectors(2), np.zeros((2, 16), np.uint8))
    with EmbeddingStore.create(tmp_path / "e.h5", dim=8) as writer:
        wrong: list[tuple[tuple[Any, ...], str]] = [
            ((vectors(3),), r"2 ids with embeddings of shape \(3, 8\); the file takes \(2, 8\)"),
            ((vectors(2, 9),), r"embeddings of shape \(2, 9\)"),
            ((vectors(2), hashes), r"content hashes of shape \(2, 16\); the file takes None"),
            ((vectors(2), None, texts), r"text embeddings of shape \(2, 8\); the file takes None"),
        ]
        for what, said in wrong:
            with pytest.raises(InputError, match=said):
                writer.append(["a", "b"], *what)
        writer.append(["c"], vectors(1))
    with EmbeddingStore(tmp_path / "e.h5") as store:
        assert store.ids == ["c"]
        np.testing.assert_allclose(store.embeddings @ vectors(1)[0], np.linalg.norm(vectors(1), axis=1), rtol=1e-6)


def test_a_disk_that_does_not_keep_rows_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the first sync after it; later ones go well, and the rows are not there."""
    synced: list[int] = []

    def sync(handle: int) -> None:
        synced.append(handle)
        if len(synced) == 1:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(matrix, "SYNC_BYTES", 8)
    monkeypatch.setattr("os.fsync", sync)
    grown = matrix.GrowingMatrix(tmp_path / "rows", 2, np.float32)
    grown.write(np.ones((1, 2)))
    wait([grown._syncing])  # type: ignore[list-item]
    with pytest.raises(OSError, match="Input/output error"):
        grown.write(np.ones((1, 2)))
    grown.close()


def test_content_hashes_are_kept(tmp_path: Path) -> None:
    hashes = np.arange(48, dtype=np.uint8).reshape(3, 16)
    with EmbeddingStore.create(tmp_path / "e.h5", dim=8, hashed=True) as writer:
        writer.append(["a", "b"], vectors(2), hashes[:2])
        writer.append(["c"], vectors(1), hashes[2:])
    with EmbeddingStore(tmp_path / "e.h5") as store:
        np.testing.assert_array_equal(store.content_hashes, hashes)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_texts_are_beside_the_images_and_rows_without_one_are_known(tmp_path: Path, dtype: str) -> None:
    n, rows = 1500, vectors(1500)
    texts = TextRows(vectors(n)[::-1].copy(), np.full((n, 16), 7, np.uint8))
    for part in texts:
        part[::3] = 0  # no caption
    with EmbeddingStore.create(tmp_path / "e.h5", dim=8, dtype=dtype, texts=True) as writer:
        for block in (slice(0, 900), slice(900, n)):
            writer.append([str(row) for row in range(n)][block], rows[block], None, texts.of(block))
    captioned = np.arange(n) % 3 > 0
    unit = texts.embeddings / np.maximum(np.linalg.norm(texts.embeddings, axis=1, keepdims=True), 1e-9)
    with h5py.File(tmp_path / "e.h5", "r") as file:  # by plain h5py
        assert file["text/embeddings"].dtype == dtype
        assert file["text/embeddings"].chunks is None
        assert file["text/embeddings"].attrs["normalised"]
        np.testing.assert_allclose(file["text/embeddings"][:], unit, atol=1e-6 if dtype == "float32" else 1e-3)
        assert (file["text/content_hash"][:].any(axis=1) == captioned).all()
    with EmbeddingStore(tmp_path / "e.h5") as store:
        assert isinstance(store.text_embeddings, np.memmap)
        assert store.text_embeddings.flags.aligned
        found, has_text, hashes = store.text_embeddings[:], store.has_text, store.text_hashes
        assert np.array_equal(store.embeddings[:], np.asarray(store.embeddings))
    np.testing.assert_array_equal(has_text, captioned)
    np.testing.assert_array_equal(hashes, texts.hashes)
    lengths = np.linalg.norm(found.astype(np.float64), axis=1)
    np.testing.assert_allclose(lengths, captioned, atol=1e-6 if dtype == "float32" else 1e-3)


def test_a_text_that_is_not_finite_is_named_and_cut_off(tmp_path: Path) -> None:
    texts = TextRows(vectors(3), np.ones((3, 16), np.uint8))
    texts.embeddings[1, 0] = np.inf
    files = RowFiles(tmp_path / "e", 8, "float32", texts=True)
    files.append(["first"], vectors(1), None, texts.of(slice(0, 1)))
    with pytest.raises(InputError, match="the text embedding of image 'b' is not finite"):
        files.append(["a", "b", "c"], vectors(3), None, texts)
    files.append(["last"], vectors(1), None, texts.of(slice(2, 3)))
    files.close()
    again = RowFiles(tmp_path / "e", 8, "float32", texts=True)
    assert list(again.read_ids()) == [[b"first", b"last"]]
    kept = again.read_texts()
    assert kept is not None
    assert (len(kept.embeddings), len(again.read_vectors())) == (2, 2)
    again.remove()
    assert list(tmp_path.iterdir()) == []


def test_clusters_are_written_for_the_ids_in_the_file(tmp_path: Path) -> None:
    clusters = Clusters.from_labels(["c", "a", "x"], [1, 0, -1], name="tags")
    clusters.table["name"] = ["", "tags-1"]
    with EmbeddingStore.create(tmp_path / "e.h5", dim=8) as writer:
        writer.append(["a", "b", "c"], vectors(3))
        writer.set_clusters(clusters)
    with h5py.File(tmp_path / "e.h5", "r") as file:
        group = file["clusters"]
        assert group["labels"][:].tolist() == [0, -1, 1]
        assert group["indptr"][:].tolist() == [0, 1, 1, 2]
        assert group["indices"][:].tolist() == [0, 1]
        assert group["weights"][:].tolist() == [1, 1]
        assert [name.decode() for name in group["names"]] == ["", "tags-1"]


def test_search_is_exact(tmp_path: Path) -> None:
    unit = write(tmp_path / "e.h5")
    with EmbeddingStore(tmp_path / "e.h5") as store:
        found = store.search(unit[7] * 3, k=5, chunk=100)
    expected = np.argsort(-(unit @ unit[7]))[:5]
    assert [image_id for image_id, _ in found] == [f"bild-ü-{row}" for row in expected]
    assert found[0] == ("bild-ü-7", pytest.approx(1.0))


def test_ids_come_whole_in_blocks_and_for_some_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "e.h5", 600)
    wanted = [f"bild-ü-{row}" for row in range(600)]
    monkeypatch.setattr(reader, "CHUNK_ROWS", 250)
    with EmbeddingStore(tmp_path / "e.h5") as store:
        assert [len(block) for block in store.id_blocks()] == [250, 250, 100]
        assert store.ids == wanted
        for few in (1000, 2):
            monkeypatch.setattr(reader, "FEW_IDS", few)
            assert store.ids_of([599, 0, 250, 0]) == [wanted[row] for row in (599, 0, 250, 0)]
        assert store.ids_of([]) == []


@pytest.mark.parametrize(
    ("query", "k", "said"),
    [(np.ones(9), 1, "8 dimensions"), (np.full(8, np.nan), 1, "the query is not finite"), (np.ones(8), 0, "k must be")],
)
def test_a_query_that_is_none_is_refused(tmp_path: Path, query: np.ndarray, k: int, said: str) -> None:
    write(tmp_path / "e.h5")
    with EmbeddingStore(tmp_path / "e.h5") as store, pytest.raises(InputError, match=said):
        store.search(query, k=k)


def test_the_length_and_the_type_of_a_query_are_nothing(tmp_path: Path) -> None:
    unit = write(tmp_path / "e.h5")
    queries = [unit[7] * 1e-30, (unit[7] * 6e4).astype(np.float16), unit[7].astype(np.float64) * 1e200]
    with EmbeddingStore(tmp_path / "e.h5") as store:
        for query in [*queries, queries[1].tolist(), torch.tensor(queries[1])]:
            [(found, similarity)] = store.search(query, k=1)
            assert (found, similarity) == ("bild-ü-7", pytest.approx(1, abs=1e-3))


def test_another_process_opens_it_anew(tmp_path: Path) -> None:
    unit = write(tmp_path / "e.h5")
    with EmbeddingStore(tmp_path / "e.h5") as store:
        sent = pickle.dumps(store)
    assert len(sent) < 1000, "the path and not the rows"
    with pickle.loads(sent) as store:
        np.testing.assert_allclose(store.embeddings, unit, atol=1e-6)


def test_a_closed_file_says_so(tmp_path: Path) -> None:
    write(tmp_path / "e.h5")
    with EmbeddingStore(tmp_path / "e.h5") as store:
        pass
    for read in (lambda: store.ids, lambda: store.labels, lambda: store.clusters, lambda: store.attributes):
        with pytest.raises(InputError, match="was closed"):
            read()


IDS = ["a", "b", "c"]


@pytest.mark.parametrize(
    ("ids", "rows", "said"),
    [
        (["a"], vectors(1)[0], r"embeddings of shape \(8,\)"),
        ([1, 2, 3], vectors(3), "ids must be strings; got 1"),
        (["a", "b", "a"], vectors(3), "the id 'a' is given twice"),
        (["a", "b", "z"], vectors(3), "the id 'z' is given twice"),  # once in each of two calls
    ],
)
def test_rows_without_an_id_of_their_own_are_refused(
    tmp_path: Path, ids: list[str], rows: np.ndarray, said: str
) -> None:
    def write_both() -> None:
        with EmbeddingStore.create(tmp_path / "e.h5", dim=8) as writer:
            writer.append(["x", "y", "z"], vectors(3))
            writer.append(ids, rows)

    with pytest.raises(InputError, match=said):
        write_both()
    assert not list(tmp_path.iterdir())


def test_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="float32 or float16"), EmbeddingStore.create(tmp_path / "e.h5", 8, dtype="f8"):
        pass


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


def test_halves_are_converted_to_the_bits_of_numpy() -> None:
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(2, -1)
    halves.setflags(write=False)  # as a mapped file is
    np.testing.assert_array_equal(converted(halves, np.float32), halves.astype(np.float32))
    generator = np.random.default_rng(0)
    singles = generator.standard_normal((300, 700), np.float32) * 10.0 ** generator.integers(-9, 4, (300, 1))
    singles = singles.astype(np.float32)[:, ::2]  # more than one piece, and not contiguous
    np.testing.assert_array_equal(converted(singles, np.float16), singles.astype(np.float16))
