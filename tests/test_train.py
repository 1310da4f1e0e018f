"""The fine-tuner on synthetic features, its schedule, and its checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, nn

from wscl_embed.checkpoint import Checkpoints
from wscl_embed.encoder import Encoder
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.errors import DivergedError, LostInputError
from wscl_embed.heads import PROJECTION_DIM, HeadMap, make_projection
from wscl_embed.loss import cl_infonce
from wscl_embed.train import TrainOptions, batch_loss, cosine_with_warmup, train_full, train_head

if TYPE_CHECKING:
    import datasets

N, DIM, CLUSTERS = 96, 16, 4
LABELS = np.arange(N) % CLUSTERS
OPTIONS = TrainOptions(
    epochs=30,
    batch_size=48,
    images_per_cluster=4,
    learning_rate=1e-2,
    weight_decay=0.01,
    temperature=0.2,
    projection="none",
)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors this small only wait for each other on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def features(seed: int = 0) -> NDArray[np.float32]:
    """(N, 3, DIM): three views each, a cluster's direction drowned in another one that all images vary along."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, DIM))[LABELS]
    nuisance = rng.standard_normal((N, 4)) @ rng.standard_normal((4, DIM))
    images = centres + 2 * nuisance
    return (images[:, None] + 0.1 * rng.standard_normal((N, 3, DIM))).astype(np.float32)


def membership(labels: NDArray[np.int64] = LABELS) -> sparse.csr_array:
    rows = np.flatnonzero(labels >= 0)
    return sparse.csr_array((np.ones(len(rows), np.float32), (rows, labels[rows])), shape=(len(labels), CLUSTERS))


class History:
    """Collects the losses; ends training like a killed process in an epoch of choice."""

    def __init__(self, kill_in: int | None = None) -> None:
        self.losses: list[float] = []
        self.calls = 0
        self.kill_in = kill_in

    def __call__(self, epoch: int, loss: float, learning_rate: float) -> None:
        if epoch == self.kill_in:
            raise KeyboardInterrupt
        self.calls += 1
        self.losses.append(loss)

    def state_dict(self) -> dict[str, list[float]]:
        return {"losses": self.losses}

    def load_state_dict(self, state: dict[str, list[float]]) -> None:
        self.losses = list(state["losses"])


def train(folder: Path, options: TrainOptions = OPTIONS, *, log: History | None = None, **inputs: Any) -> Tensor:
    given_features = inputs.get("features", features())
    return train_head(
        given_features,
        inputs.get("membership", membership()),
        options,
        device=torch.device("cpu"),
        checkpoints=Checkpoints(folder),
        log=log or History(),
    )


def similarities(vectors: NDArray[np.floating]) -> tuple[float, float]:
    """Mean cosine of two images of one cluster, and of two clusters."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    same = LABELS[:, None] == LABELS
    return float(cosine[same & ~np.eye(N, dtype=bool)].mean()), float(cosine[~same].mean())


def test_the_head_pulls_clusters_together_and_others_apart(tmp_path: Path) -> None:
    log = History()
    weight = train(tmp_path, log=log)
    assert len(log.losses) == OPTIONS.epochs
    assert log.losses[-1] < log.losses[0] - 0.3
    before, after = features()[:, 0], features()[:, 0] @ weight.numpy().T
    same_before, other_before = similarities(before)
    same_after, other_after = similarities(after)
    assert same_after - other_after > same_before - other_before + 0.3


def test_it_holds_for_images_of_the_same_kind_that_were_not_trained_on(tmp_path: Path) -> None:
    """The map is learned from half of the images and judged on the others."""
    half = np.arange(N) < N // 2
    weight = train(tmp_path, features=features()[half], membership=membership(LABELS[half])).numpy()
    gaps = []
    for vectors in (features()[:, 0], features()[:, 0] @ weight.T):
        unit = vectors[~half] / np.linalg.norm(vectors[~half], axis=1, keepdims=True)
        same = LABELS[~half][:, None] == LABELS[~half]
        cosine = unit @ unit.T
        gaps.append(cosine[same & ~np.eye(len(unit), dtype=bool)].mean() - cosine[~same].mean())
    assert gaps[1] > gaps[0] + 0.1


@pytest.mark.parametrize(
    "variant",
    [
        {"denominator": "negatives"},
        {"cross_view_only": True},
        {"q": 0.5, "lam": 0.02},
        {"instance_weight": 0.5},
        {"instance_weight": 0.5, "projection": "mlp"},
    ],
    ids=str,
)
def test_every_variant_of_the_loss_pulls_clusters_together(variant: dict[str, Any], tmp_path: Path) -> None:
    weight = train(tmp_path, replace(OPTIONS, **variant))
    same_before, other_before = similarities(features()[:, 0])
    same_after, other_after = similarities(features()[:, 0] @ weight.numpy().T)
    assert same_after - other_after > same_before - other_before + 0.1


def test_the_dual_head_adds_the_instance_term() -> None:
    z = torch.randn(6, 2, 10 + PROJECTION_DIM, generator=torch.Generator().manual_seed(0))
    clusters = membership(np.array([0, 0, 1, 1, -1, 2]))
    unit = torch.nn.functional.normalize
    expected = cl_infonce(unit(z[..., :10], dim=-1), clusters, 0.2) + 0.5 * cl_infonce(
        unit(z[..., 10:], dim=-1), torch.full((6,), -1), 0.2
    )
    torch.testing.assert_close(batch_loss(z, clusters, replace(OPTIONS, instance_weight=0.5)), expected)


@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_every_projection_trains(projection: Any, tmp_path: Path) -> None:
    log = History()
    weight = train(tmp_path, replace(OPTIONS, projection=projection), log=log)
    assert log.losses[-1] < log.losses[0]
    assert weight.shape == (DIM, DIM)  # the projection is left behind
    assert make_projection(projection, DIM)(torch.zeros(2, DIM)).shape == (2, 128)


def test_noise_alone_trains_as_instances(tmp_path: Path) -> None:
    log = History()
    train(tmp_path, log=log, membership=membership(np.full(N, -1)))
    assert np.isfinite(log.losses).all()
    assert log.losses[-1] < log.losses[0]


def test_the_head_starts_as_the_identity() -> None:
    head, x = HeadMap(DIM), torch.randn(3, 2, DIM)
    assert torch.equal(head(x), x)
    assert torch.equal(head.weight(), torch.eye(DIM))
    head.delta.data.normal_()
    torch.testing.assert_close(head(x), x @ head.weight().T)


def test_weight_decay_pulls_towards_the_frozen_embedding(tmp_path: Path) -> None:
    distance = [
        float((train(tmp_path / str(decay), replace(OPTIONS, weight_decay=decay)) - torch.eye(DIM)).norm())
        for decay in (0.0, 20.0)
    ]
    assert 0 < distance[1] < 0.8 * distance[0]


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = train(tmp_path / "1")
    torch.manual_seed(2)
    assert torch.equal(train(tmp_path / "2"), first)
    assert not torch.equal(train(tmp_path / "3", replace(OPTIONS, seed=1)), first)


def test_threads_do_not_change_a_bit_of_the_gradient() -> None:
    """Or config.yaml would repeat a run only nearly."""
    torch.set_num_threads(4)
    clusters = membership()[np.arange(256) % N]
    z = nn.functional.normalize(torch.randn(256, 2, 512, generator=torch.Generator().manual_seed(0)), dim=-1)
    gradients = set()
    for _ in range(20):
        leaf = z.clone().requires_grad_()
        cl_infonce(leaf, clusters, 0.2).backward()
        assert leaf.grad is not None
        gradients.add(leaf.grad.numpy().tobytes())
    assert len(gradients) == 1


@given(n_steps=st.integers(1, 2000), warmup=st.floats(0, 0.9))
def test_the_schedule_rises_to_one_and_falls_to_zero(n_steps: int, warmup: float) -> None:
    factor = cosine_with_warmup(n_steps, warmup)
    factors = [factor(step) for step in range(n_steps + 1)]
    warm = max(1, round(warmup * n_steps))
    assert factors[:warm] == sorted(factors[:warm])
    assert factors[warm - 1] == 1
    assert factors[warm:] == sorted(factors[warm:], reverse=True)
    assert all(0 < value <= 1 for value in factors[:-1])
    if warm < n_steps:
        assert factors[-1] == pytest.approx(0, abs=1e-12)


def test_a_loss_that_is_no_number_says_what_to_change(tmp_path: Path) -> None:
    spoilt = features()
    spoilt[3] = np.nan
    with pytest.raises(
        DivergedError, match=r"the loss became nan in epoch 1; try a lower --learning-rate \(now 0.01\)"
    ):
        train(tmp_path, features=spoilt)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_training_continues_to_the_same_end(tmp_path: Path) -> None:
    uninterrupted = History()
    whole = train(tmp_path / "whole", log=uninterrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", log=History(kill_in=20))
    log = History()
    assert torch.equal(train(tmp_path / "killed", log=log), whole)
    assert log.calls == OPTIONS.epochs - 19
    assert log.losses == uninterrupted.losses  # those before the kill come from the checkpoint
    assert torch.equal(train(tmp_path / "killed", log=log), whole)
    assert log.calls == OPTIONS.epochs - 19  # a finished one trains no more


def tower_with_dropout(folder: Path) -> Encoder:
    """A tiny ViT that drops half of its patches in training."""
    vision = {"image_size": 32, "patch_size": 8, "layers": 1, "width": 32, "head_width": 16, "patch_dropout": 0.5}
    text = {"context_length": 4, "vocab_size": 8, "width": 16, "heads": 1, "layers": 1}
    path = folder / "tiny-vit-with-dropout.json"
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    torch.manual_seed(0)
    return load_encoder(str(path), "none", device="cpu")


def test_a_resumed_epoch_draws_the_dropout_it_would_have_drawn(emoji: datasets.Dataset, tmp_path: Path) -> None:
    images = emoji.select(range(24))
    clusters = membership()[:24]
    options = replace(OPTIONS, epochs=2, batch_size=8, learning_rate=1e-3)

    def tune(folder: str, log: History) -> dict[str, Tensor]:
        encoder = tower_with_dropout(tmp_path)
        checkpoints = Checkpoints(tmp_path / folder)
        train_full(
            encoder, images, clusters, options, unlocked_groups=None, workers=0, checkpoints=checkpoints, log=log
        )
        return encoder.model.visual.state_dict()  # type: ignore[no-any-return, union-attr]

    whole = tune("whole", History())
    with pytest.raises(KeyboardInterrupt):
        tune("killed", History(kill_in=2))
    resumed = tune("killed", History())
    assert all(torch.equal(tensor, whole[name]) for name, tensor in resumed.items())
    assert any(not torch.equal(tensor, whole[name]) for name, tensor in tower_state(tmp_path).items())


def tower_state(folder: Path) -> Mapping[str, Tensor]:
    return tower_with_dropout(folder).model.visual.state_dict()  # type: ignore[no-any-return, union-attr]


def test_an_image_that_is_gone_during_training_is_named(emoji: datasets.Dataset, tmp_path: Path) -> None:
    rows = [{**row, "image": {"bytes": b"", "path": "gone.png"}} for row in emoji.select(range(8))]
    images = emoji.from_list(rows, features=emoji.features)
    with pytest.raises(
        LostInputError, match=r"\(gone.png\) was readable at the start of the run and is not now: empty"
    ):
        train_full(
            tower_with_dropout(tmp_path),
            images,
            membership()[:8],
            OPTIONS,
            unlocked_groups=None,
            workers=0,
            checkpoints=Checkpoints(tmp_path / "checkpoints"),
            log=History(),
        )
