"""``--recluster-every`` in whole runs: real emoji, EfficientNet-Lite0's real weights at a small size, a few epochs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.test_end_to_end import FEW_TAGS, FULL, QUICK, embeddings_of
from wscl_embed import fit
from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.registry import make_adapter
from wscl_embed.stages.clustering import describe
from wscl_embed.training_log import TrainingLog

if TYPE_CHECKING:
    import datasets

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES = "image_features:n_clusters=5"


def clusters_of(run: Path) -> Clusters:
    return Clusters.load(run / "clusters.parquet")


@pytest.mark.parametrize(("options", "killed_in"), [(QUICK, 2), (FULL, 2)], ids=["head", "full"])
def test_a_killed_run_resumes_to_the_same_end(
    options: dict[str, Any],
    killed_in: int,
    few: datasets.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed after the round that precedes the epoch, which is then made again from the checkpoint."""
    whole = fit(few, IMAGES, tmp_path / "whole", recluster_every=1, **options)
    log = TrainingLog.__call__

    def kill(self: TrainingLog, epoch: int, loss: float, learning_rate: float, **measured: float) -> None:
        if epoch == killed_in:
            raise KeyboardInterrupt
        log(self, epoch, loss, learning_rate, **measured)

    run = tmp_path / "killed"
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "__call__", kill)
        with pytest.raises(KeyboardInterrupt):
            fit(few, IMAGES, run, recluster_every=1, **options)
    first = clusters_of(run)
    resumed = fit(few, IMAGES, run, recluster_every=1, resume=True, **options)
    np.testing.assert_array_equal(embeddings_of(run), embeddings_of(tmp_path / "whole"))
    assert resumed.metrics["training"] == whole.metrics["training"]
    assert resumed.metrics["clusters"] == whole.metrics["clusters"]
    last = clusters_of(run)
    assert (last.membership != clusters_of(tmp_path / "whole").membership).nnz == 0
    assert (last.membership != first.membership).nnz > 0


def test_all_that_is_written_is_of_the_last_round(few: datasets.Dataset, tmp_path: Path) -> None:
    options = {**QUICK, "tensorboard": True, "recluster_every": 2}
    before = fit(few, [FEW_TAGS, IMAGES], tmp_path / "before", **QUICK).clusters
    result = fit(few, [FEW_TAGS, IMAGES], tmp_path / "run", **options)
    saved = clusters_of(tmp_path / "run")
    assert (saved.membership != result.clusters.membership).nnz == 0
    tags = (saved.table["source"] == "hashtags").to_numpy()
    assert (saved.membership[:, tags] != before.membership[:, tags]).nnz == 0
    assert (saved.membership[:, ~tags] != before.membership[:, ~tags]).nnz > 0
    with h5py.File(tmp_path / "run" / "embeddings.h5") as file:
        stored = dict(zip(file["ids"].asstr()[:], file["clusters/labels"][:], strict=True))
    assert [stored[image] for image in saved.ids] == saved.labels.tolist()

    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["clusters"] == json.loads(json.dumps(describe(saved, QUICK["batch_size"])))
    drift = [epoch.get("cluster_ari") for epoch in metrics["training"]]
    assert drift[:2] == [None, None]
    assert -0.5 <= drift[2] < 1
    pytest.importorskip("tensorboard", reason="--tensorboard needs the extra wscl-embed[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (event,) = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload().Scalars("cluster_ari")
    assert (event.step, event.value) == (3, pytest.approx(drift[2]))


def test_several_numbers_of_clusters_and_a_tree_at_once(few: datasets.Dataset, tmp_path: Path) -> None:
    several = [
        "image_features:n_clusters=4",
        "hierarchy:of=image_features,level_clusters=2+6",
        "image_features:n_clusters=9",
    ]
    options = {**QUICK, "epochs": 2, "adapter_weight": [1, 0.5, 4]}
    before = fit(few, several, tmp_path / "before", **options).clusters
    after = fit(few, several, tmp_path / "after", recluster_every=1, **options).clusters
    assert sorted(before.blocks()) == sorted(after.blocks())
    assert sorted(before.table["name"]) == sorted(after.table["name"])
    for block, clusters in after.blocks().items():
        old = before.blocks()[block]
        assert (np.diff(clusters.membership.indptr) == 1).all()
        assert set(clusters.membership.data) == set(old.membership.data)  # the weights of adapters and levels
        assert (clusters.membership != old.membership).nnz > 0


class Cores:
    """The images nearest to three centres; the others are noise."""

    def fit_predict(self, X: NDArray[np.floating]) -> NDArray[np.integer]:
        from sklearn.cluster import KMeans

        model = KMeans(3, n_init=1, random_state=0).fit(X)
        distance = model.transform(X).min(axis=1)
        return np.where(distance > np.quantile(distance, 0.7), -1, model.labels_)


@pytest.mark.parametrize("options", [{**QUICK, "learning_rate": 0.05}, {**FULL, "workers": 1}], ids=["head", "full"])
def test_noise_that_is_dropped_is_that_of_the_round(
    options: dict[str, Any], few: datasets.Dataset, tmp_path: Path
) -> None:
    adapter = replace(make_adapter("image_features:noise=drop"), clusterer=Cores())
    result = fit(few, adapter, tmp_path / "run", recluster_every=1, **options)
    first = fit(few, adapter, tmp_path / "first", **{**QUICK, "epochs": 1})
    saved = clusters_of(tmp_path / "run")
    assert saved.ids == [row["id"] for row in few.remove_columns("image") if row["split"] == "train"]
    assert saved.dropped.sum() == round(0.3 * len(saved))
    assert result.clusters.ids == [image for image, out in zip(saved.ids, saved.dropped, strict=True) if not out]
    assert set(result.clusters.ids) != set(first.clusters.ids)
    assert result.metrics["clusters"]["noise_share"] == pytest.approx(saved.dropped.mean())


def test_it_is_said_epoch_by_epoch(
    few: datasets.Dataset,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = fit(few, IMAGES, tmp_path / "run", recluster_every=1, recluster_warmup=1, **QUICK)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    drift = [epoch["cluster_ari"] for epoch in result.metrics["training"][1:]]
    assert [line.partition(", ")[2] for line in lines] == ["", *(f"cluster ari {value:.3f}" for value in drift)]


def test_without_images_it_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hashtags reads no image features"):
        fit(tmp_path / "nothing here", "hashtags", tmp_path / "run", recluster_every=1)
    assert not (tmp_path / "run").exists()
