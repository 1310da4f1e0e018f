"""Indexes: what they find against exact search, what is measured of them, and which are not trusted."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wscl_embed import EmbeddingStore, Searcher
from wscl_embed.cli import main
from wscl_embed.errors import InputError
from wscl_embed.pipeline import index
from wscl_embed.searching import building
from wscl_embed.searching.index_file import VectorIndex, fingerprint, record_path
from wscl_embed.store import exact
from wscl_embed.store.exact import MANY_QUERIES, by_numpy, nearest

faiss = pytest.importorskip("faiss", reason="indexes need the extra wscl-embed[faiss]")

N, DIM = 1500, 16


def clustered(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((40, DIM))
    rows = centres[rng.integers(0, 40, n)] + rng.standard_normal((n, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write(path: Path, rows: np.ndarray, dtype: str = "float32") -> Path:
    with EmbeddingStore.create(path, dim=rows.shape[1], dtype=dtype) as writer:
        writer.append([f"image {row}" for row in range(len(rows))], rows)
    return path


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("store") / "embeddings.h5", clustered(N))


@pytest.fixture
def copied(embeddings: Path, tmp_path: Path) -> Path:
    return shutil.copy(embeddings, tmp_path / "embeddings.h5")


@given(st.integers(1, 2 * MANY_QUERIES), st.integers(1, 40), st.integers(1, 12), st.integers(1, 9), st.integers(0))
def test_exact_search_is_exact_by_faiss_and_by_numpy(q: int, n: int, k: int, chunk_rows: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, queries = rng.standard_normal((n, 4)).astype(np.float32), rng.standard_normal((q, 4)).astype(np.float32)
    passing = rng.random(n) < 0.6
    similarity = np.where(passing, queries.astype(np.float64) @ rows.T, -np.inf)
    wanted = np.argsort(-similarity, axis=1)[:, : min(k, int(passing.sum()))]
    scores, found = nearest(queries, rows, k, passing=passing, chunk_rows=chunk_rows)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_allclose(scores, np.take_along_axis(similarity, wanted, axis=1), atol=1e-5)
    np.testing.assert_array_equal(by_numpy(queries, rows, min(k, n))[1], nearest(queries, rows, k)[1])


def test_exact_search_without_faiss(embeddings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = clustered(MANY_QUERIES - 1, seed=1)
    with EmbeddingStore(embeddings) as store:
        scores, found = nearest(queries, store.embeddings, 20, chunk_rows=400)
        monkeypatch.setattr(exact, "import_faiss", lambda: None)
        plain_scores, plain = nearest(queries, store.embeddings, 20, chunk_rows=400)
    np.testing.assert_array_equal(found, plain)
    np.testing.assert_allclose(scores, plain_scores, atol=1e-6)


def test_exact_search_of_many_queries_is_done_in_parts(embeddings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queries = clustered(10, seed=1)
    with EmbeddingStore(embeddings) as store:
        scores, found = nearest(queries, store.embeddings, 20)
        monkeypatch.setattr(exact, "QUERIES_AT_ONCE", 4)
        in_parts, found_in_parts = nearest(queries, store.embeddings, 20)
    np.testing.assert_array_equal(found, found_in_parts)
    np.testing.assert_allclose(scores, in_parts, atol=1e-6)


@pytest.mark.parametrize(("kind", "many_lists"), [("hnsw", 1), ("ivf", 1000), ("ivf", 1)])
def test_an_index_finds_nearly_what_exact_search_finds(
    kind: str, many_lists: int, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With few lists all centroids are looked at, with many a graph leads to the nearest."""
    monkeypatch.setattr(building, "MANY_LISTS", many_lists)
    report = index(copied, kind=kind, recall=0.9)
    assert (report.kind, report.rows, report.reached) == (kind, N, True)
    assert report.queries == {"image": 150}
    queries = clustered(50, seed=2)
    with Searcher(copied) as fast, Searcher(copied, exact=True) as slow:
        assert fast.index is not None
        assert slow.index is None
        found = [({hit.id for hit in one.by_vector(query)}) for query in queries for one in (fast, slow)]
        shared = [len(a & b) / 10 for a, b in zip(found[::2], found[1::2], strict=True)]
        assert np.mean(shared) > 0.85
        # The rows that were held out to measure by are in it, too.
        assert [fast.by_vector(np.asarray(fast.store.embeddings[row]), 1)[0].row for row in range(0, N, 10)] == list(
            range(0, N, 10)
        )
        assert len(fast.by_id("image 3", N)) == N - 1  # where the index cannot give so many, exact search does


def test_recall_is_that_of_queries_the_index_has_not_seen(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted anew, with an index over the rows that were not held out."""
    seen = {}
    find = building._find_effort

    def spied(index: VectorIndex, store: EmbeddingStore, queries: dict, base: np.ndarray, target: float) -> dict:
        recall = find(index, store, queries, base, target)
        seen.update(base=base, rows=index.search(queries["image"], 10)[1], total=index.index.ntotal)
        return recall

    monkeypatch.setattr(building, "_find_effort", spied)
    report = index(copied, kind="ivf", recall=0.5)
    rows, base = clustered(N), seen["base"]
    assert seen["total"] == base.sum() == N - 150
    assert base[seen["rows"]].all()
    similarity = np.where(base, rows[~base] @ rows.T, -np.inf)
    wanted = np.argsort(-similarity, axis=1)[:, :10]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(wanted.tolist(), seen["rows"].tolist(), strict=True)]
    assert report.recall["image"] == pytest.approx(np.mean(shared))
    assert 0.5 <= report.recall["image"] < 1


def test_text_queries_are_measured_apart_and_raise_the_effort(embeddings: Path) -> None:
    """Far from all rows, as texts are from images."""
    far = np.random.default_rng(3).standard_normal((100, DIM)).astype(np.float32) - 3
    with EmbeddingStore(embeddings) as store:
        _, images = building.build(store, "ivf", 0.9)
        _, both = building.build(store, "ivf", 0.9, far)
    assert both.queries == {"image": 150, "text": 100}
    assert min(both.recall.values()) >= 0.9
    assert both.recall["text"] != both.recall["image"]
    assert both.effort >= images.effort


@pytest.mark.parametrize("many_lists", [1000, 1])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_inverted_lists_stay_in_their_file_and_give_the_same(
    dtype: str, many_lists: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "MANY_LISTS", many_lists)
    path = write(tmp_path / "embeddings.h5", clustered(N), dtype)
    index(path, kind="ivf", recall=0.9)
    queries = clustered(20, seed=2)
    read = faiss.read_index(str(tmp_path / "index.faiss"))
    quantizer = faiss.downcast_index(read.quantizer)
    assert isinstance(quantizer, faiss.IndexHNSWFlat if many_lists == 1 else faiss.IndexFlat)
    with EmbeddingStore(path) as store:
        mapped = VectorIndex.open(store)
        assert mapped is not None
        scores, rows = mapped.search(queries, 10)
        whole = VectorIndex(read, "ivf", mapped.effort).search(queries, 10)
        np.testing.assert_array_equal(rows, whole[1])
        np.testing.assert_array_equal(scores, whole[0])
        own = store.embeddings[rows].astype(np.float32)
        np.testing.assert_allclose(scores, np.einsum("qkd,qd->qk", own, queries), atol=1e-6)
        index(path, kind="ivf", recall=0.3)  # in the place of the one that is open
        np.testing.assert_array_equal(mapped.search(queries, 10)[1], rows)


@pytest.mark.parametrize("rows", [clustered(N), np.repeat(np.eye(8, DIM, dtype=np.float32), 100, axis=0)])
def test_centroids_in_two_levels(rows: np.ndarray) -> None:
    """As many as asked for, of unit length, also of rows most of which are equal; near to the rows as k-means' are."""
    lists = 38
    centroids = building._centroids(rows, lists)
    assert centroids.shape == (lists, DIM)
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)
    model = faiss.Kmeans(DIM, lists, niter=building.ITERATIONS, spherical=True, min_points_per_centroid=1)
    model.train(rows)
    flat, two = ((rows @ found.T).max(axis=1).mean() for found in (model.centroids, centroids))
    assert two > flat - 0.02


def test_every_row_is_in_a_list_that_a_graph_finds(embeddings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "MANY_LISTS", 1)
    with EmbeddingStore(embeddings) as store:
        built, _ = building.build(store, "ivf", 0.9)
    lists = built.index.invlists
    stored = [faiss.rev_swig_ptr(lists.get_ids(one), lists.list_size(one)) for one in range(lists.nlist)]
    assert sorted(np.concatenate(stored).tolist()) == list(range(N))


def test_few_queries_are_timed_where_exact_search_is_slow(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed = []
    clock = building.milliseconds
    monkeypatch.setattr(building, "milliseconds", lambda job, *given: timed.append(job) or clock(job, *given))
    monkeypatch.setattr(building, "TIMED_SECONDS", 0.0)
    with EmbeddingStore(copied) as store:
        _, report = building.build(store, "ivf", 0.9)
    assert len(timed) == 2
    assert timed[0] is nearest
    assert report.exact_ms > 0


def test_an_index_belongs_to_ids_and_embeddings(copied: Path) -> None:
    with EmbeddingStore(copied) as store:
        ids = "\0".join([*store.ids, "float32", ""]).encode()
        assert fingerprint(store) == hashlib.sha256(ids + clustered(N).tobytes()).hexdigest()


@pytest.mark.parametrize("spoil", ["other rows", "other index", "cut", "no record", "bad record", "no rows", "a text"])
def test_an_index_of_something_else_is_not_read(
    spoil: str, copied: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    index(copied, kind="ivf", recall=0.5)
    path = copied.with_name("index.faiss")
    record = json.loads(record_path(path).read_text())
    if spoil == "other rows":
        write(copied, clustered(N, seed=5))
    elif spoil == "other index":
        faiss.write_index(faiss.IndexFlatIP(DIM), str(path))
    elif spoil == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif spoil == "no record":
        record_path(path).unlink()
    elif spoil == "bad record":
        record_path(path).write_text(json.dumps({**record, "effort": "many"}))
    elif spoil == "no rows":
        record_path(path).write_text(json.dumps({**record, "rows": 3}))
    else:
        path.write_text("something else")
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("it was read"))
    with Searcher(copied) as opened, EmbeddingStore(copied) as store:
        assert opened.index is None
        assert "Searching exactly; `wscl-embed index" in " ".join(capsys.readouterr().err.split())
        assert opened.by_vector(store.embeddings[5], 1)[0].row == 5


def test_auto_builds_nothing_for_few_and_removes_what_was_there(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = copied.with_name("index.faiss")
    index(copied, kind="hnsw")
    assert path.is_file()
    report = index(copied)
    assert (report.kind, report.index_ms) == ("exact", None)
    assert report.exact_ms > 0
    assert not path.exists()
    assert not record_path(path).exists()
    assert "removed" in capsys.readouterr().err


def test_what_is_printed(copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def cli(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["wscl-embed", "index", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    code, out, _ = cli(copied, "--kind", "hnsw")
    assert code == 0
    assert out.startswith("hnsw over 1,500 images, efSearch ")
    assert "recall@10" in out
    assert "times as fast" in out
    assert cli(copied)[1].startswith("No index: exact search over 1,500 images takes ")
    assert cli(copied, "--recall", 2)[2] == "error: --recall must lie between 0 and 1, got 2.0.\n"
    few = write(copied.with_name("few.h5"), clustered(20))
    assert "20 rows are too few for an index" in cli(few, "--kind", "ivf")[2]
    monkeypatch.setattr("wscl_embed.searching.index_file.import_faiss", lambda: None)
    assert "needs the package faiss-cpu: pip install 'wscl-embed[faiss]'" in cli(copied, "--kind", "ivf")[2]


def test_half_precision_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "half.h5", clustered(400), dtype="float16")
    assert index(path, kind="hnsw").reached
    assert path.with_suffix(".faiss").is_file()
    with Searcher(path) as opened, pytest.raises(InputError, match="has no image 'image 400'"):
        opened.by_id("image 400")


def test_beside_a_library_that_wraps_faiss(tmp_path: Path) -> None:
    """pytorch-metric-learning imports this module, which replaces the indexes' methods for the whole process."""
    pytest.importorskip("faiss.contrib.torch_utils", reason="this faiss has no wrappers for torch")
    assert index(write(tmp_path / "rows.h5", clustered(400)), kind="hnsw").reached
