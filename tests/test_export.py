"""Exports, each read by the tool it is for where that installs, else as that tool's own code reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import torch

from tests.conftest import IMAGE_SIZE
from wscl_embed.clusters import Clusters
from wscl_embed.dataset import image_source
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.errors import InputError, WsclEmbedError
from wscl_embed.export import LAYOUTS, export
from wscl_embed.export.layouts import option_fields
from wscl_embed.export.onnx import UnitTower, convert
from wscl_embed.images import decode_image
from wscl_embed.store import EmbeddingStore, TextRows

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder

N, DIM = 500, 24
CAPTIONED = np.arange(N) % 5 > 0
IDS = [f"trip {row // 100}/bild-ü-{row}.jpg" for row in range(N)]


@pytest.fixture(scope="module", params=["float32", "float16"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stored") / "e.h5"
    rows, texts = np.random.default_rng(0).standard_normal((2, N, DIM))
    hashes = np.where(CAPTIONED[:, None], np.ones((N, 16), np.uint8), 0).astype(np.uint8)
    with EmbeddingStore.create(path, DIM, dtype=request.param, attributes={"encoder": "toy"}, texts=True) as writer:
        writer.append(IDS, rows, None, TextRows(texts * CAPTIONED[:, None], hashes))
        writer.set_clusters(Clusters.from_labels(IDS[:400], np.arange(400) % 7, name="tags"))
    return path


@pytest.fixture
def store(stored: Path) -> Iterator[EmbeddingStore]:
    with EmbeddingStore(stored) as opened:
        yield opened


def test_ann_benchmarks(store: EmbeddingStore, tmp_path: Path) -> None:
    path = export(store.path, "ann-benchmarks:queries=50,neighbors=10", tmp_path / "toy-24-angular.hdf5")
    with h5py.File(path, "r") as file:  # as its datasets.py and its recall in plotting/metrics.py read it
        assert file.attrs["distance"] == "angular"
        assert file.attrs["type"] == "dense"
        assert int(file.attrs["dimension"]) == DIM == len(file["train"][0])
        train, test = np.array(file["train"]), np.array(file["test"])
        neighbors, distances = np.array(file["neighbors"]), np.array(file["distances"])
        train_ids, test_ids = file["train_ids"][:], file["test_ids"][:]
    assert (train.dtype, test.dtype, distances.dtype) == (np.float32, np.float32, np.float32)
    assert train.shape == (N - 50, DIM)
    assert test.shape == (50, DIM)
    cosines = test.astype(np.float64) @ train.astype(np.float64).T
    expected = np.sort(1 - cosines, axis=1)[:, :10]
    np.testing.assert_allclose(distances, expected, atol=1e-6)
    np.testing.assert_allclose(1 - np.take_along_axis(cosines, neighbors.astype(int), axis=1), distances, atol=1e-6)
    position = {image_id: row for row, image_id in enumerate(store.ids)}
    for ids, rows in ((train_ids, train), (test_ids, test)):
        own = store.embeddings[[position[image_id.decode()] for image_id in ids]]
        np.testing.assert_array_equal(rows, own.astype(np.float32))
    assert sorted([*train_ids, *test_ids]) == sorted(image_id.encode() for image_id in IDS)


def test_ann_benchmarks_in_blocks(store: EmbeddingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = "ann-benchmarks:queries=20,neighbors=30"
    whole = export(store.path, spec, tmp_path / "whole.hdf5")
    monkeypatch.setattr("wscl_embed.export.ann_benchmarks.BLOCK", 17)
    parts = export(store.path, spec, tmp_path / "parts.hdf5")
    with h5py.File(whole, "r") as one, h5py.File(parts, "r") as other:
        np.testing.assert_array_equal(one["train"], other["train"])
        np.testing.assert_allclose(one["distances"], other["distances"], atol=1e-6)


def test_faiss_finds_the_neighbours_of_ann_benchmarks(store: EmbeddingStore, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is an extra")
    path = export(store.path, "ann-benchmarks:queries=50,neighbors=10", tmp_path / "e.hdf5")
    with h5py.File(path, "r") as file:
        index = faiss.IndexFlatIP(DIM)
        index.add(file["train"][:])
        similarities, rows = index.search(file["test"][:], 10)
        np.testing.assert_allclose(1 - similarities, file["distances"], atol=1e-5)
        assert (rows == file["neighbors"][:]).mean() > 0.99  # but for ties in the last bit


def test_hloc(store: EmbeddingStore, tmp_path: Path) -> None:
    path = export(store.path, "hloc", tmp_path / "global-feats.h5")
    names: list[str] = []
    with h5py.File(path, "r", libver="latest") as file:  # as hloc's list_h5_names and get_descriptors read it
        file.visititems(
            lambda _, thing: names.append(thing.parent.name.strip("/")) if isinstance(thing, h5py.Dataset) else None
        )
        found = np.stack([file[name]["global_descriptor"].__array__() for name in store.ids])
    assert sorted(set(names)) == sorted(IDS)
    np.testing.assert_array_equal(found, store.embeddings)


def test_hloc_refuses_ids_that_are_no_names(tmp_path: Path) -> None:
    with EmbeddingStore.create(tmp_path / "e.h5", 2) as writer:
        writer.append(["a", "../b"], np.eye(2))
    with pytest.raises(InputError, match=r"the id '\.\./b' cannot name a group"):
        export(tmp_path / "e.h5", "hloc", tmp_path / "out.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["e.h5"]


def test_clip_retrieval(store: EmbeddingStore, tmp_path: Path) -> None:
    import pandas as pd

    folder = export(store.path, "clip-retrieval:shard_rows=45", tmp_path / "out")
    shards = sorted((folder / "img_emb").iterdir())
    assert [path.name for path in shards] == [f"img_emb_{number:02d}.npy" for number in range(12)]
    np.testing.assert_array_equal(np.concatenate([np.load(path) for path in shards]), store.embeddings)
    texts = sorted((folder / "text_emb").iterdir())
    assert [path.name for path in texts] == [f"text_emb_{number:02d}.npy" for number in range(12)]
    np.testing.assert_array_equal(np.concatenate([np.load(path) for path in texts]), store.text_embeddings)
    assert sorted(path.name for path in folder.iterdir()) == ["img_emb", "metadata", "text_emb"]
    frames = [pd.read_parquet(path) for path in sorted((folder / "metadata").iterdir())]
    assert [len(frame) for frame in frames] == [len(np.load(path)) for path in shards]
    assert pd.concat(frames)["image_path"].tolist() == IDS
    assert pd.concat(frames)["cluster"].tolist() == [*(row % 7 for row in range(400)), *[-1] * 100]
    assert pd.concat(frames)["has_text"].tolist() == CAPTIONED.tolist()


def test_clip_retrieval_without_captions_has_no_text_emb(tmp_path: Path) -> None:
    with EmbeddingStore.create(tmp_path / "e.h5", 2) as writer:
        writer.append(["a", "b"], np.eye(2))
    folder = export(tmp_path / "e.h5", "clip-retrieval", tmp_path / "out")
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*")) == [
        "img_emb/img_emb_0.npy",
        "metadata/metadata_0.parquet",
    ]


def test_parquet_in_duckdb(store: EmbeddingStore, tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    path = export(store.path, "parquet:row_group=64", tmp_path / "e.parquet")
    query = f"""
        SELECT id, array_cosine_similarity(vector::FLOAT[{DIM}], $1::FLOAT[{DIM}]) AS cosine
        FROM '{path}' WHERE cluster = 3 ORDER BY cosine DESC LIMIT 3
    """
    found = duckdb.execute(query, [store.embeddings[3].astype(float).tolist()]).fetchall()
    cosines = store.embeddings.astype(np.float32) @ store.embeddings[3].astype(np.float32)
    rows = [row for row in np.argsort(-cosines) if row % 7 == 3 and row < 400][:3]
    assert [image_id for image_id, _ in found] == [IDS[row] for row in rows]
    np.testing.assert_allclose([cosine for _, cosine in found], cosines[rows], atol=2e-3)


def test_parquet_in_arrow_has_fixed_size_vectors(store: EmbeddingStore, tmp_path: Path) -> None:
    """What LanceDB takes for vectors."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(export(store.path, "parquet", tmp_path / "e.parquet")) as file:
        table = file.read()
    assert table.schema.field("vector").type == pa.list_(pa.from_numpy_dtype(store.embeddings.dtype), DIM)
    values = table["vector"].combine_chunks().flatten().to_numpy().reshape(N, DIM)
    np.testing.assert_array_equal(values, store.embeddings)
    assert table["id"].to_pylist() == IDS
    assert table["has_text"].to_pylist() == CAPTIONED.tolist()
    texts = table["text_vector"].combine_chunks().flatten().to_numpy().reshape(N, DIM)
    np.testing.assert_array_equal(texts, store.text_embeddings)


def test_safetensors(store: EmbeddingStore, tmp_path: Path) -> None:
    from safetensors import safe_open

    with safe_open(export(store.path, "safetensors", tmp_path / "e.safetensors"), framework="pt") as file:
        embeddings = file.get_tensor("embeddings")
        text, ends = bytes(file.get_tensor("id_bytes").numpy()), file.get_tensor("id_offsets").tolist()
        texts, has_text = file.get_tensor("text_embeddings"), file.get_tensor("has_text")
        assert file.metadata()["encoder"] == "toy"
        assert file.get_tensor("labels").tolist()[:8] == [0, 1, 2, 3, 4, 5, 6, 0]
    np.testing.assert_array_equal(embeddings.numpy(), store.embeddings)
    np.testing.assert_array_equal(texts.numpy(), store.text_embeddings)
    assert has_text.tolist() == CAPTIONED.tolist()
    assert [text[start:stop].decode() for start, stop in pairwise(ends)] == IDS


def test_onnx_gives_what_pytorch_gives_on_real_images(lite0: Encoder, emoji: datasets.Dataset, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    lite0.save(tmp_path / "model")
    path = export(tmp_path / "model", "onnx", tmp_path / "model.onnx")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model", "model.onnx"]  # no second file with weights
    images = [decode_image(image_source(image)) for image in emoji.select(range(5))["image"]]
    pixels = torch.stack([lite0.preprocess(image) for image in images])
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(lite0.encode(pixels), dim=-1).numpy()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for count in (1, 5):
        (found,) = session.run(["embedding"], {"pixel_values": pixels[:count].numpy()})
        np.testing.assert_allclose(found, expected[:count], atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["weights_hash"] == lite0.weights_hash()
    assert json.loads(facts["preprocess"])["size"] in (IMAGE_SIZE, [IMAGE_SIZE, IMAGE_SIZE])


def test_libraries_that_do_not_fit_each_other_are_named(
    lite0: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    def fail(*_: object, **__: object) -> None:
        raise AttributeError("a tuple has no dtype")  # torch 2.6 with onnxscript 0.7

    monkeypatch.setattr(torch.onnx, "export", fail)
    lite0.save(tmp_path / "model")
    with pytest.raises(WsclEmbedError, match=r"ONNX \(a tuple has no dtype\)\. torch .+ and onnxscript .+ may not fit"):
        export(tmp_path / "model", "onnx", tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_a_tower_that_onnx_has_no_operators_for_is_told_so() -> None:
    """And not to install other versions."""
    pytest.importorskip("onnxscript")

    class Eigenvalues(torch.nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return torch.linalg.eigvals(pixels[:, 0]).real

    with pytest.raises(WsclEmbedError) as refused:
        convert(UnitTower(Eigenvalues()), torch.randn(2, 3, 8, 8))
    assert "No ONNX function found for <OpOverload(op='aten.linalg_eig'" in str(refused.value)
    assert "install" not in str(refused.value)


def test_the_text_tower_comes_along(tmp_path: Path) -> None:
    """Both towers, of random weights: after `fold` and `save`, open_clip embeds images and texts as we do."""
    import open_clip

    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
    (tmp_path / "tiny-clip.json").write_text(json.dumps(config))
    encoder: Any = load_encoder(str(tmp_path / "tiny-clip.json"), "none", device="cpu")
    assert encoder.has_text_tower
    texts = open_clip.get_tokenizer("ViT-B-32", context_length=16)(["a red dress", "zwei Hunde"])
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    encoder.fold(torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))[0])
    encoder.save(tmp_path / "model")
    loaded = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / 'model'}", return_transform=False).eval()
    with torch.inference_mode():
        for name, given in (("encode_image", pixels), ("encode_text", texts)):
            ours, theirs = getattr(encoder.model, name)(given), getattr(loaded, name)(given)
            torch.testing.assert_close(ours, theirs)
            assert ours.std() > 0


def test_every_layout_has_a_writer_with_documented_options() -> None:
    for name, layout in LAYOUTS.items():
        writer = layout.writer()
        assert layout.takes in ("embeddings", "model"), name
        assert all(option in writer.__doc__ for option in option_fields(writer) if option != "seed"), name


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("parquett", "unknown layout 'parquett'. Did you mean parquet?"),
        ("parquet:rows=3", "'rows=3' is no option=value it knows. There are: row_group."),
        ("parquet:row_group=0", "row_group='0': Input should be greater than or equal to 1"),
        ("ann-benchmarks:queries=490", "has 500 rows, too few for 490 queries with 100 neighbours"),
        ("onnx", "a model is exported from a run or from its model folder"),
    ],
)
def test_what_cannot_be_exported(stored: Path, tmp_path: Path, spec: str, said: str) -> None:
    with pytest.raises(InputError) as refused:
        export(stored, spec, tmp_path / "out")
    assert said in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_taken(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"exists\. Give --overwrite"):
        export(stored, "parquet", tmp_path / "file")
    with pytest.raises(InputError, match="is not the folder that clip-retrieval writes"):
        export(stored, "clip-retrieval", tmp_path / "file", overwrite=True)
    export(stored, "parquet", tmp_path / "file", overwrite=True)
    export(stored, "clip-retrieval", tmp_path / "folder")
    export(stored, "clip-retrieval:shard_rows=100", tmp_path / "folder", overwrite=True)
    assert len(list((tmp_path / "folder" / "img_emb").iterdir())) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
