"""Clusters that follow the encoder: rounds, what stays, drift, checkpoints, and head training on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.test_train import CLUSTERS, DIM, LABELS, OPTIONS, History, N, features
from wscl_embed.checkpoint import Checkpoints
from wscl_embed.checkpoint_file import read_checkpoint
from wscl_embed.clusterers import make_clustering
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig, make_config
from wscl_embed.errors import InputError
from wscl_embed.raw_labels import RawLabels
from wscl_embed.reclustering import Reclustering, adjusted_rand, columns_of
from wscl_embed.registry import make_adapter
from wscl_embed.sampling import ClusterBatchSampler
from wscl_embed.stages import check_reclustering
from wscl_embed.stages.clustering import named
from wscl_embed.stages.rounds import called, seeded
from wscl_embed.train import TrainOptions, train_head

pytestmark = pytest.mark.usefixtures("one_thread")

IDS = [str(row) for row in range(N)]
SHORT = replace(OPTIONS, epochs=6)


def by_image(values: NDArray[np.floating], number: int) -> Clusters:
    """k-means on the directions of the images' features, another seed a round."""
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    return Clusters.from_labels(IDS, make_clustering(unit, "kmeans", n_clusters=6, seed=number).labels, name="images")


def by_tag() -> Clusters:
    return Clusters.from_labels(IDS, LABELS, name="tags")


def make(clusters: Clusters | None = None, assign: Callable[..., Clusters] = by_image, **when: int) -> Reclustering:
    """Round 0 on the plain features; ``when`` has ``every`` and ``warmup``."""
    return Reclustering(clusters or by_image(features()[:, 0], 0), {"images"}, assign, **{"every": 1, **when})


def train(
    folder: Path, reclustering: Reclustering, log: History | None = None, options: TrainOptions = SHORT
) -> Tensor:
    return train_head(
        features(),
        reclustering.clusters.membership,
        options,
        device=torch.device("cpu"),
        checkpoints=Checkpoints(folder),
        log=log or Measured(),
        reclustering=reclustering,
    )


def last_state(folder: Path) -> dict[str, Any]:
    """What the last checkpoint holds."""
    return read_checkpoint(Checkpoints(folder).paths()[-1]).state


class Measured(History):
    """Keeps what else was measured, too."""

    def __init__(self, kill_in: int | None = None) -> None:
        super().__init__(kill_in)
        self.measured: list[dict[str, float]] = []
        self.rates: list[float] = []

    def __call__(self, epoch: int, loss: float, learning_rate: float, **measured: float) -> None:
        super().__call__(epoch, loss, learning_rate)
        self.measured.append(measured)
        self.rates.append(learning_rate)


@pytest.mark.parametrize(
    ("when", "rounds"),
    [
        ({"every": 1}, [None, 1, 2, 3, 4, 5, 6]),
        ({"every": 3}, [None, None, None, 1, None, None, 2]),
        ({"every": 2, "warmup": 1}, [None, 1, None, 2, None, 3, None]),
        ({"every": 1, "warmup": 3}, [None, None, None, 1, 2, 3, 4]),
    ],
    ids=str,
)
def test_when_the_rounds_come(when: dict[str, int], rounds: list[int | None]) -> None:
    assert [make(**when).due(epoch) for epoch in range(7)] == rounds


def test_the_clusters_are_those_of_the_features_of_the_time(tmp_path: Path) -> None:
    """Those of round r come from the map after the epochs before it, as the checkpoint has it."""
    seen: dict[int, float] = {}

    def assign(values: NDArray[np.floating], number: int) -> Clusters:
        delta = last_state(tmp_path)["module"]["head.delta"].numpy()
        expected = features()[:, 0] @ (np.eye(DIM) + delta).T
        np.testing.assert_allclose(values, expected, atol=1e-4)
        seen[number] = float(np.abs(values - features()[:, 0]).max())
        return by_image(values, number)

    train(tmp_path, make(assign=assign, every=2))
    assert list(seen) == [1, 2]
    assert 0.01 < seen[1] < seen[2]


def test_training_uses_the_clusters_of_the_round(tmp_path: Path) -> None:
    """Rounds that give the labels train like the labels from then on, and no longer like the first clusters."""
    log = Measured()
    told = make(assign=lambda values, number: Clusters.from_labels(IDS, LABELS, name="images"), every=1)
    weight = train(tmp_path / "told", told, log)
    own = train(tmp_path / "own", make(every=5))
    assert not torch.equal(weight, own)
    np.testing.assert_array_equal(told.clusters.labels, LABELS)
    assert [measured.get("cluster_ari") for measured in log.measured[2:]] == [1.0] * 4
    assert log.measured[0] == {}
    assert log.measured[1]["cluster_ari"] == pytest.approx(adjusted_rand(by_image(features()[:, 0], 0).labels, LABELS))


def test_warm_up_trains_on_instances_where_images_are_all_there_is(tmp_path: Path) -> None:
    """The first epochs are those of a training without clusters, bit by bit."""
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "warm", make(warmup=3), Measured(kill_in=4))
    none = Clusters.from_labels(IDS, [-1] * N, name="images")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "none", make(none, every=5), Measured(kill_in=4))
    states = [last_state(tmp_path / name) for name in ("warm", "none")]
    assert states[0]["progress"]["epoch"] == states[1]["progress"]["epoch"] == 3
    assert torch.equal(states[0]["module"]["head.delta"], states[1]["module"]["head.delta"])


def test_the_clusters_of_other_adapters_stay() -> None:
    first = Clusters.combine([by_tag(), by_image(features()[:, 0], 0)], [0.25, 4])
    reclustering = make(first, lambda values, number: Clusters.combine([by_image(values, number)], [4]), warmup=1)
    assert (reclustering.at(0).membership != 0.5 * by_tag().membership).nnz == 0
    reclustering.follow(lambda: features(seed=1)[:, 0])
    assert reclustering.update(0) == {}
    assert reclustering.update(1)["cluster_ari"] < 0.5
    after = reclustering.clusters
    assert after.table["source"].tolist() == ["tags"] * CLUSTERS + ["images"] * 6
    expected = np.hstack(
        [0.5 * by_tag().membership.toarray(), 2 * by_image(features(seed=1)[:, 0], 1).membership.toarray()]
    )
    np.testing.assert_array_equal(after.membership.toarray(), expected)
    assert (reclustering.at(1).membership != after.membership).nnz == 0


def test_the_drift_of_several_adapters_is_their_mean() -> None:
    def both(coarse: list[int], fine: list[int]) -> Clusters:
        return Clusters.combine([Clusters.from_labels(list("abcd"), one, name=name) for one, name in
                                 [(coarse, "coarse"), (fine, "fine")]])  # fmt: skip

    reclustering = Reclustering(
        both([0, 0, 1, 1], [0, 1, 2, 2]), ["coarse", "fine"], lambda *_: both([0, 0, 1, 1], [0, 0, 1, 2]), every=1
    )
    reclustering.follow(lambda: np.zeros((4, 1)))
    apart = adjusted_rand(np.array([0, 1, 2, 2]), np.array([0, 0, 1, 2]))
    assert apart < 0.5
    assert reclustering.update(1) == {"cluster_ari": pytest.approx((1 + apart) / 2)}


@given(st.lists(st.integers(-1, 3), min_size=2, max_size=12), st.permutations(range(4)))
def test_names_of_clusters_are_no_drift(labels: list[int], names: list[int]) -> None:
    given_labels = np.array(labels)
    renamed = np.where(given_labels < 0, -1, np.array(names)[given_labels])
    assert adjusted_rand(given_labels, renamed) == pytest.approx(1)


def test_noise_is_no_cluster() -> None:
    assert adjusted_rand(np.array([-1, -1, -1, 0]), np.array([0, 0, 0, 1])) < 0.1


def test_whom_noise_drops_each_round_decides_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer images make shorter epochs; the learning rate falls as it would in long ones."""
    n_dropped = [0, 24, 72, 48, 0, 90]
    drawn: dict[int, list[list[int]]] = {}

    def assign(values: NDArray[np.floating], number: int) -> Clusters:
        labels = np.where(np.arange(N) < n_dropped[number], -1, LABELS)
        clusters = Clusters.from_labels(IDS, labels, name="images")
        return replace(clusters, raw=(RawLabels("images", labels, "drop"),))

    class Recorded(ClusterBatchSampler):
        def __iter__(self) -> Iterator[list[int]]:
            drawn[self.epoch] = list(super().__iter__())
            yield from drawn[self.epoch]

    monkeypatch.setattr("wscl_embed.train.optimise.ClusterBatchSampler", Recorded)
    log, reclustering = Measured(), make(assign(features()[:, 0], 0), assign)
    options = replace(SHORT, batch_size=6)
    train(tmp_path, reclustering, log, options)
    for epoch, count in enumerate(n_dropped):
        assert min(row for batch in drawn[epoch] for row in batch) >= count
        assert len(drawn[epoch]) == (N - count) // 6
    share = (np.arange(1, 7) / 6 - options.warmup) / (1 - options.warmup)
    np.testing.assert_allclose(log.rates, options.learning_rate * 0.5 * (1 + np.cos(np.pi * share)), atol=6e-4)
    assert log.rates[-1] == pytest.approx(0)
    assert reclustering.clusters.dropped.sum() == 90


def test_the_noise_of_the_others_stays_theirs() -> None:
    labels = np.where(np.arange(N) < 9, -1, LABELS)
    tags = replace(Clusters.from_labels(IDS, labels, name="tags"), raw=(RawLabels("tags", labels, "drop"),))
    images = replace(by_tag(), raw=(RawLabels("tags", LABELS, "instance"),))
    both = Clusters.combine([images, tags])
    chosen = columns_of(both, {"tags.2"})
    np.testing.assert_array_equal(chosen.raw_labels[:, 0], labels)
    assert chosen.dropped.sum() == 9
    assert both.dropped.sum() == columns_of(both, {"tags.1"}).dropped.sum() == 0


@pytest.mark.parametrize("when", [{"every": 1}, {"every": 2}, {"every": 2, "warmup": 1}], ids=str)
def test_a_kill_in_any_epoch_changes_nothing(tmp_path: Path, when: dict[str, int]) -> None:
    whole, log = make(**when), Measured()
    weight = train(tmp_path / "whole", whole, log)
    for epoch in range(1, SHORT.epochs + 1):
        folder = tmp_path / str(epoch)
        with pytest.raises(KeyboardInterrupt):
            train(folder, make(**when), Measured(kill_in=epoch))
        resumed, second = make(**when), Measured()
        assert torch.equal(train(folder, resumed, second), weight)
        assert second.losses == log.losses
        assert second.measured == log.measured[epoch - 1 :]
        assert (resumed.clusters.membership != whole.clusters.membership).nnz == 0
        assert resumed.clusters.table.equals(whole.clusters.table)
        assert resumed.round == whole.round


def test_every_round_draws_from_a_seed_of_its_own() -> None:
    adapter = make_adapter("image_features:n_clusters=7,seed=3")
    seeds = [seeded(adapter, 0, number).seed for number in (1, 2, 1)] + [seeded(adapter, 1, 1).seed]
    assert seeds[0] == seeds[2]
    assert len(set(seeds)) == 3
    assert {**seeded(adapter, 0, 1).options(), "seed": 3} == adapter.options()
    none = make_adapter("none")
    assert seeded(none, 0, 1) is none


def test_sources_are_called_as_they_are_in_the_table() -> None:
    """Also where an adapter occurs twice."""
    specs = ["image_features:n_clusters=2", "labels:column=tag", "image_features:n_clusters=3", "hierarchy"]
    values = np.random.default_rng(0).random((6, 2), dtype=np.float32)
    columns = {
        "id": list("abcdef"),
        "tag": ["red", "blue"] * 3,
        "path": ["x/y", "x/z", "u/v"] * 2,
        "image_features": list(values),
    }
    dataset = Dataset.from_dict(columns)
    adapters = [make_adapter(spec) for spec in specs]
    parts = [adapter.assign(dataset) for adapter in adapters]
    table = Clusters.combine(parts).table
    assert list(dict.fromkeys(table["source"])) == list(named(adapters))
    renamed = [called(part, source).table for part, source in zip(parts, named(adapters), strict=True)]
    assert pd.concat(renamed, ignore_index=True).equals(table)


def config(*adapters: str, **options: Any) -> FitConfig:
    return make_config({"data": "-", "adapter": list(adapters), "output": "-", **options})


@pytest.mark.parametrize(
    ("adapters", "options", "message"),
    [
        (["captions", "labels"], {"recluster_every": 2}, "2: captions, labels reads no image features"),
        (["image_features"], {"recluster_every": 20}, "--recluster-every 20: training ends after 20 epochs"),
        (["image_features"], {"recluster_every": 1, "recluster_warmup": 8, "epochs": 8}, "--recluster-warmup 8: .* 8"),
    ],
    ids=["no images", "too late", "too long a warm-up"],
)
def test_what_can_not_be_is_refused(adapters: list[str], options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_reclustering([make_adapter(name) for name in adapters], config(*adapters, **options))


def test_what_can_be_is_not() -> None:
    for options in ({}, {"recluster_every": 19}, {"recluster_every": 50, "recluster_warmup": 19}):
        check_reclustering([make_adapter("image_features")], config("image_features", **options))
    check_reclustering([make_adapter("captions")], config("captions"))


def test_a_warm_up_without_rounds_is_refused() -> None:
    with pytest.raises(InputError, match="--recluster-warmup: give --recluster-every as well"):
        config("image_features", recluster_warmup=2)
