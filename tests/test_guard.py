"""The forgetting guard: mixing weights, choosing how far to go, and what is then written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import IMAGE_SIZE
from wscl_embed import EmbeddingStore, fit
from wscl_embed.config import make_config
from wscl_embed.dataset import hold_out
from wscl_embed.encoder import Encoder
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.errors import DivergedError, InputError
from wscl_embed.evaluation import Change
from wscl_embed.guard import ALPHAS, TOLERANCE, Candidate, candidate, choose, mix

if TYPE_CHECKING:
    import datasets

TAGS = "hashtags:n_clusters=5,min_df=1"
QUICK: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "epochs": 2,
    "cached_views": 1,
    "batch_size": 64,
    "workers": 0,
    "device": "cpu",
}
FULL: dict[str, Any] = {**QUICK, "tune": "full", "unlocked_groups": 2, "batch_size": 16}
MODEL = "model/open_clip_model.safetensors"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def few(emoji: datasets.Dataset) -> datasets.Dataset:
    """80 emoji."""
    return emoji.select(range(0, len(emoji), 3)).flatten_indices()


weights = st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=3).map(torch.tensor)


@given(frozen=weights, tuned=weights, alpha=st.sampled_from(ALPHAS))
def test_mixing_is_linear_and_exact_at_both_ends(frozen: torch.Tensor, tuned: torch.Tensor, alpha: float) -> None:
    mixed = mix({"w": frozen, "n": torch.tensor(1)}, {"w": tuned, "n": torch.tensor(9)}, alpha)
    torch.testing.assert_close(mixed["w"], (1 - alpha) * frozen + alpha * tuned, atol=1e-4, rtol=1e-5)
    assert int(mixed["n"]) == (1 if alpha == 0 else 9)
    if alpha in (0, 1):
        assert torch.equal(mixed["w"], tuned if alpha else frozen)


def of(alpha: float, gains: dict[str, float], *, error: float = 0.001) -> Candidate:
    changes = {name: Change(gain, gain - 0.01, gain + 0.01) for name, gain in gains.items()}
    return Candidate(alpha, {}, changes, float(np.mean(list(gains.values()))), error)


def swept(recalls: list[float], precisions: list[float], error: float = 0.001) -> list[Candidate]:
    pairs = zip(np.linspace(0, 1, len(recalls)), recalls, precisions, strict=True)
    return [of(float(alpha), {"recall@1": one, "map@r": other}, error=error) for alpha, one, other in pairs]


@pytest.mark.parametrize(
    ("sweep", "chosen"),
    [
        (swept([0, 0.02, 0.04], [0, 0.02, 0.04]), 1.0),
        (swept([0, 0.02, 0.03], [0, 0.02, 0.0]), 0.5),
        (swept([0, 0.02, 0.02], [0, 0.02, 0.02]), 0.5),  # of equals the nearest to the frozen encoder
        (swept([0, 0.02, -0.02], [0, 0.02, 0.2]), 0.5),  # one metric's gain is no excuse for another's loss
        (swept([0, -0.02, -0.04], [0, -0.02, -0.04]), 0.0),
        (swept([0, 0.01, 0.012], [0, 0.01, 0.012], error=0.02), 0.0),  # a gain within its error is none
        (swept([0, -0.004, -0.004], [0, 0.05, 0.04]), 0.5),  # less than half a point is not called a loss
    ],
)
def test_the_mixture_that_gains_most_and_loses_nothing(sweep: list[Candidate], chosen: float) -> None:
    assert choose(sweep) == chosen


@settings(max_examples=25)
@given(
    shifts=st.lists(st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)), min_size=1, max_size=10),
    seed=st.integers(0, 99),
)
def test_what_is_chosen_loses_nothing_on_the_validation_images(shifts: list[tuple[float, float]], seed: int) -> None:
    rng = np.random.default_rng(seed)
    frozen = {"recall@1": rng.random(60), "map@r": rng.random(60), "knn": rng.random(60)}
    sweep = [candidate(0.0, frozen, frozen)]
    for number, (recall, precision) in enumerate(shifts, 1):
        noise = rng.normal(0, 0.1, (2, 60))
        mixed = {**frozen, "recall@1": frozen["recall@1"] + recall + noise[0]}
        mixed["map@r"] = frozen["map@r"] + precision + noise[1]
        sweep.append(candidate(number / 10, frozen, mixed))
    chosen = next(one for one in sweep if one.alpha == choose(sweep))
    assert chosen.changes.keys() == {"recall@1", "map@r"}
    assert all(change.mean >= -TOLERANCE for change in chosen.changes.values())
    assert chosen.gain >= 0
    assert sweep[0].gain == sweep[0].error == 0


def test_the_error_of_a_gain_is_that_of_the_mean_over_its_queries() -> None:
    """Metrics of the same queries rise and fall together; a text's queries are others."""
    difference = np.random.default_rng(0).standard_normal(400)
    zeros = {"recall@1": np.zeros(400), "map@r": np.zeros(400)}
    together = candidate(1.0, zeros, {"recall@1": difference, "map@r": difference})
    assert together.error == pytest.approx(difference.std() / 20, rel=0.1)
    apart = candidate(1.0, zeros, {"recall@1": difference, "map@r": -difference})
    assert apart.error == pytest.approx(0, abs=1e-12)
    texts = {"text_to_image_recall@10": np.zeros(900), "text_to_image_recall@1": np.zeros(900)}
    by_text = candidate(1.0, {**zeros, **texts}, {**zeros, **{name: values + 0.3 for name, values in texts.items()}})
    assert by_text.gain == pytest.approx(0.1)


def embeddings_of(run: Path) -> NDArray[np.float32]:
    with EmbeddingStore(run / "embeddings.h5") as store:
        return np.asarray(store.embeddings[:])


def tower_of(run: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return {name: tensor for name, tensor in load_file(run / MODEL).items() if name.startswith("visual.")}


@pytest.mark.parametrize("options", [QUICK, FULL], ids=["head", "full"])
def test_what_is_written_is_the_mixture(options: dict[str, Any], few: datasets.Dataset, tmp_path: Path) -> None:
    """The weights on disk lie between the two ends, and the embeddings are what plain open_clip makes of them."""
    import open_clip

    from wscl_embed.dataset import image_source
    from wscl_embed.images import decode_image

    runs = {}
    for alpha in ("0", "0.25", "1"):
        result = fit(few, TAGS, tmp_path / alpha, wise_ft=alpha, **options)
        assert result.metrics["guard"] == {"alpha": float(alpha), "chosen_on": None, "given": True}
        runs[alpha] = tower_of(tmp_path / alpha)
    assert any(not torch.equal(tensor, runs["0"][name]) for name, tensor in runs["1"].items())
    for name, mixed in runs["0.25"].items():
        if mixed.is_floating_point():
            torch.testing.assert_close(mixed, torch.lerp(runs["0"][name], runs["1"][name], 0.25), atol=1e-6, rtol=1e-4)
    frozen = load_encoder("efficientnet-lite0", image_size=IMAGE_SIZE, device="cpu")
    assert load_encoder(str(tmp_path / "0"), device="cpu").weights_hash() == frozen.weights_hash()
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path / '0.25' / 'model'}")
    images = torch.stack([preprocess(decode_image(image_source(row["image"]))) for row in few.select(range(8))])
    with torch.inference_mode():
        theirs = model.eval().encode_image(images, normalize=True)
    np.testing.assert_allclose(embeddings_of(tmp_path / "0.25")[:8], theirs.numpy(), atol=1e-4)


def ruined(features: NDArray[np.floating], *_: Any, **__: Any) -> torch.Tensor:
    """What training might end in: every image in one direction, but for noise."""
    dim = features.shape[-1]
    return torch.ones(dim, dim) + 0.01 * torch.randn(dim, dim, generator=torch.Generator().manual_seed(0))


def test_the_frozen_encoder_is_written_where_nothing_gains(
    emoji: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("wscl_embed.train.train_head", ruined)
    result = fit(emoji, TAGS, tmp_path / "run", label_column="label", wise_ft="auto", **QUICK)
    guard = result.metrics["guard"]
    assert (guard["alpha"], guard["chosen_on"], result.metrics["verdict"]) == (0, "val", "no difference")
    assert "the frozen encoder is kept: on the " in " ".join(capsys.readouterr().err.split())
    assert guard["images"] == sum(split == "val" for split in emoji["split"])
    worst = guard["sweep"][-1]
    assert worst["alpha"] == 1
    assert worst["map@r"] < guard["sweep"][0]["map@r"] - 0.05
    assert not worst["admissible"]
    assert result.metrics["before"] == result.metrics["after"]
    frozen = load_encoder("efficientnet-lite0", image_size=IMAGE_SIZE, device="cpu")
    assert load_encoder(str(tmp_path / "run"), device="cpu").weights_hash() == frozen.weights_hash()
    np.testing.assert_array_equal(result.after, result.before)
    json.dumps(result.metrics)


def test_the_mixture_is_chosen_on_val_and_reported_on_test(emoji: datasets.Dataset, tmp_path: Path) -> None:
    """By the supervised ceiling, which cannot but gain."""
    result = fit(emoji, "labels", tmp_path / "run", label_column="label", wise_ft="auto", **{**QUICK, "epochs": 8})
    guard, metrics = result.metrics["guard"], result.metrics
    assert [one["alpha"] for one in guard["sweep"]] == list(ALPHAS)
    assert 0 < guard["alpha"] <= 1
    chosen = next(one for one in guard["sweep"] if one["alpha"] == guard["alpha"])
    assert chosen["change"]["map@r"]["mean"] > 0.02
    assert metrics["after"]["map@r"] > metrics["before"]["map@r"] + 0.01
    assert set(result.dataset.select(result.held_out)["split"]) == {"test"}
    assert set(result.clusters.ids) == {row["id"] for row in emoji.remove_columns("image") if row["split"] == "train"}


@pytest.mark.parametrize("splits", ["none", "val is scored"])
def test_without_a_split_to_choose_on_a_tenth_of_train_is_held_out(
    splits: str, emoji: datasets.Dataset, tmp_path: Path
) -> None:
    whole = emoji.remove_columns("split") if splits == "none" else emoji
    scored = {} if splits == "none" else {"eval_split": "val+test"}
    result = fit(whole, TAGS, tmp_path / "run", label_column="label", wise_ft="auto", **scored, **QUICK)
    guard = result.metrics["guard"]
    assert guard["chosen_on"] == "held out"
    held_out = {row["id"] for row in result.dataset.remove_columns("image") if row["split"] == "held out"}
    assert len(held_out) == guard["images"]
    assert 0.03 * len(emoji) < len(held_out) < 0.15 * len(emoji)
    assert not held_out & {*result.clusters.ids, *result.dataset.select(result.held_out)["id"]}


def test_the_tenth_is_drawn_by_id(few: datasets.Dataset) -> None:
    chosen = {row["id"] for row in hold_out(few, "mine", 0.3).remove_columns("image") if row["split"] == "mine"}
    again = hold_out(few.shuffle(seed=1), "mine", 0.3)
    assert {row["id"] for row in again.remove_columns("image") if row["split"] == "mine"} == chosen
    assert chosen <= {row["id"] for row in few.remove_columns("image") if row["split"] == "train"}
    assert 5 < len(chosen) < 30


@pytest.mark.parametrize("scored", [{}, {"label_column": "label"}], ids=["no labels", "few"])
def test_with_nothing_to_choose_on_it_goes_three_tenths_of_the_way(
    scored: dict[str, Any], few: datasets.Dataset, tmp_path: Path
) -> None:
    blind = fit(few, TAGS, tmp_path / "blind", **scored, **QUICK)
    assert blind.metrics["guard"] == {"alpha": 0.3, "chosen_on": None, "given": False}
    asked = fit(few, TAGS, tmp_path / "asked", wise_ft="0.3", **QUICK)
    np.testing.assert_array_equal(blind.after, asked.after)


def test_auto_is_refused_where_there_is_nothing_to_choose_on(few: datasets.Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--wise-ft auto chooses on validation images"):
        fit(few, TAGS, tmp_path / "run", wise_ft="auto", **QUICK)
    train = few.filter(lambda split: split == "train", input_columns="split").select(range(8))
    test = few.filter(lambda split: split == "test", input_columns="split")
    import datasets

    tiny = datasets.concatenate_datasets([train, test])
    with pytest.raises(InputError, match="holds no two images of one label to choose on"):
        fit(tiny, TAGS, tmp_path / "run", wise_ft="auto", label_column="label", **QUICK)
    assert not (tmp_path / "run").exists()


def test_what_was_tuned_from_random_weights_is_not_mixed_with_them(few: datasets.Dataset, tmp_path: Path) -> None:
    result = fit(few, TAGS, tmp_path / "run", pretrained="none", **QUICK)
    assert result.metrics["guard"] == {"alpha": 1.0, "chosen_on": None, "given": False}


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("scored", [{}, {"label_column": "label", "wise_ft": "auto"}], ids=["blind", "sweep"])
def test_weights_that_are_finite_and_embeddings_that_are_not(
    scored: dict[str, Any], few: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wscl_embed.train.train_head", lambda views, *_, **__: torch.full((views.shape[2],) * 2, 3e38))
    with pytest.raises(DivergedError, match=r"embeddings of the tuned encoder are not finite.+\(now 0\.003\)"):
        fit(few, TAGS, tmp_path / "run", **scored, **QUICK)
    assert not (tmp_path / "run" / "embeddings.h5").exists()


@pytest.mark.parametrize("value", ["1.5", "-0.1", "nan", "maybe", ""])
def test_alpha_is_a_share(value: str) -> None:
    with pytest.raises(InputError, match=r"--wise-ft .*: give auto, or a number from 0"):
        make_config({"data": "d", "adapter": ["none"], "output": "o", "wise_ft": value})


def test_alpha_may_be_a_number_in_yaml() -> None:
    assert make_config({"data": "d", "adapter": ["none"], "output": "o", "wise_ft": 0.3}).alpha == 0.3
    assert make_config({"data": "d", "adapter": ["none"], "output": "o", "wise_ft": "auto"}).alpha is None


def test_a_linear_map_mixes_in_the_weights_as_in_the_outputs(lite0: Encoder) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.eye(lite0.embed_dim) + 0.05 * torch.randn(lite0.embed_dim, lite0.embed_dim, generator=generator)
    images = torch.randn(3, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)
    with torch.inference_mode():
        frozen = lite0.encode(images)
    before = {name: tensor.clone() for name, tensor in lite0.model.visual.state_dict().items()}  # type: ignore[union-attr]
    lite0.fold(weight)
    after = dict(lite0.model.visual.state_dict())  # type: ignore[union-attr]
    lite0.model.visual.load_state_dict(mix(before, after, 0.3))  # type: ignore[union-attr]
    with torch.inference_mode():
        mixed = lite0.encode(images)
    torch.testing.assert_close(mixed, frozen @ (0.7 * torch.eye(len(weight)) + 0.3 * weight).T, atol=1e-3, rtol=1e-3)
