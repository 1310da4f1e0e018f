"""``torchrun``: two processes on the CPU give what one gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from tests.conftest import IMAGE_SIZE
from wscl_embed import embed
from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.guard import ALPHAS


def run(*arguments: str | Path, n: int = 2) -> subprocess.CompletedProcess[str]:
    """``torchrun --nproc-per-node n -m wscl_embed ...`` (one process: without torchrun)."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n), "-m"] if n > 1 else ["-m"]
    command = [sys.executable, *torchrun, "wscl_embed", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240, check=False)


def embeddings(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        return dict(zip(file["ids"].asstr()[:], file["embeddings"][:], strict=True))


def texts(path: Path) -> np.ndarray:
    with h5py.File(path, "r") as file:
        return np.concatenate([file["text/embeddings"][:], file["text/content_hash"][:]], axis=1)


def assert_same(first: Path, second: Path, tolerance: float) -> None:
    ours, theirs = embeddings(first), embeddings(second)
    assert list(ours) == list(theirs)
    np.testing.assert_allclose(list(ours.values()), list(theirs.values()), atol=tolerance)


@pytest.fixture(scope="module")
def options(emoji_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    cache = tmp_path_factory.mktemp("torchrun-cache")
    common = ["--image-size", IMAGE_SIZE, "--workers", 0, "--batch-size", 32, "--cache-dir", cache]
    return ["--data", emoji_folder, "--label-column", "label", *map(str, common)]


def test_fit_head_equals_one_process(options: list[str | Path], tmp_path: Path) -> None:
    for n in (2, 1):
        done = run(
            "fit", *options, "--adapter", "hashtags", "--adapter", "image_features:n_clusters=12", "--epochs", 3,
            "--recluster-every", 2, "--cache-dir", tmp_path / f"cache{n}", "--output", tmp_path / f"run{n}", n=n,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Verdict") == 1
    # Rounding, which Adam's division by the gradient's size makes visible. The loss itself is held to 1e-5 elsewhere.
    assert_same(tmp_path / "run2" / "embeddings.h5", tmp_path / "run1" / "embeddings.h5", tolerance=1e-3)
    metrics = [json.loads((tmp_path / f"run{n}" / "metrics.json").read_text()) for n in (1, 2)]
    assert metrics[0]["after"] == pytest.approx(metrics[1]["after"], abs=0.03)
    losses = [[epoch["loss"] for epoch in one["training"]] for one in metrics]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert metrics[0]["training"][2]["cluster_ari"] == pytest.approx(metrics[1]["training"][2]["cluster_ari"])
    clusters = [Clusters.load(tmp_path / f"run{n}" / "clusters.parquet") for n in (1, 2)]
    assert (clusters[0].membership != clusters[1].membership).nnz == 0


def test_fit_full_ends_and_writes_one_run(options: list[str | Path], tmp_path: Path) -> None:
    """With 17 images of a batch on one process, in two micro-batches, and 16 on the other."""
    done = run(
        "fit", *options, "--adapter", "image_features:n_clusters=12", "--epochs", 2, "--tune", "full",
        "--unlocked-groups", 1, "--batch-size", 33, "--micro-batch-size", 16, "--recluster-every", 1,
        "--wise-ft", "auto", "--output", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("Verdict") == 1  # the first process alone speaks
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [one["alpha"] for one in metrics["guard"]["sweep"]] == list(ALPHAS)
    first, second = metrics["training"]
    assert first["loss"] > 0
    assert 0 < second["cluster_ari"] < 1  # clusters of the tower as both processes had tuned it
    saved = tmp_path / "run" / "embeddings.h5"
    embed = run(
        "embed", "--data", options[1], "--model", tmp_path / "run", "--workers", 0, "--output", tmp_path / "e.h5"
    )
    assert embed.returncode == 0, embed.stderr[-2000:]
    assert_same(tmp_path / "e.h5", saved, tolerance=1e-4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.h5", "e.h5.quarantine.csv", "run"]


def test_an_interrupted_embed_resumes(emoji_folder: Path, two_tower: Path, tmp_path: Path) -> None:
    """Too many bad images end the job when all others are embedded, with their captions; those are not again."""
    photos = tmp_path / "photos"
    shutil.copytree(emoji_folder, photos)
    lines = (photos / "metadata.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)[::6]
    (photos / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    for line in lines[:3]:
        (photos / json.loads(line)["file_name"]).write_bytes(b"")
    captions = ["--caption-column", "captions"]
    common = ["embed", "--data", photos, "--model", two_tower, *captions, "--workers", 0]
    done = run(*common, "--output", tmp_path / "two.h5", "--max-bad-share", 0)
    assert done.returncode != 0
    assert done.stderr.count("wait for --resume") >= 1
    parts = [tmp_path / ".two.h5.partial" / f"part-{rank}.ids" for rank in (0, 1)]
    assert sum(part.read_bytes().count(b"\0") for part in parts) == len(lines) - 3
    options: dict[str, Any] = {"caption_column": "captions", "workers": 0, "max_bad_share": 0.1}
    with pytest.raises(InputError, match="processes: 2 -> 1"):
        embed(photos, str(two_tower), tmp_path / "two.h5", resume=True, **options)
    done = run(*common, "--output", tmp_path / "two.h5", "--max-bad-share", 0.1, "--resume")
    assert done.returncode == 0, done.stderr[-2000:]
    embed(photos, str(two_tower), tmp_path / "one.h5", **options)
    assert_same(tmp_path / "two.h5", tmp_path / "one.h5", tolerance=1e-5)
    np.testing.assert_allclose(texts(tmp_path / "two.h5"), texts(tmp_path / "one.h5"), atol=1e-5)
    assert texts(tmp_path / "one.h5").any(axis=1).all()
    assert not list(tmp_path.glob(".*"))


def test_cluster_on_two_processes(options: list[str | Path], tmp_path: Path) -> None:
    done = run(
        "cluster", *options[:2], "--adapter", "image_features:n_clusters=9", "--image-size", IMAGE_SIZE,
        "--workers", 0, "--output", tmp_path / "clusters.parquet",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert Clusters.load(tmp_path / "clusters.parquet").n_clusters == 9
    assert done.stderr.count("adapter image_features") == 1


def test_bad_input_ends_all_processes(options: list[str | Path], tmp_path: Path) -> None:
    done = run("fit", *options, "--adapter", "hashtags:column=nothing", "--output", tmp_path / "run")
    assert done.returncode != 0
    assert done.stderr.count("error: adapter hashtags: the dataset has no column 'nothing'") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_features_cached_on_the_first_machine_alone_are_those_of_all(tmp_path: Path) -> None:
    from tests import own_caches

    torch.multiprocessing.spawn(own_caches.encode, (tmp_path,), nprocs=2)  # type: ignore[no-untyped-call]
    assert [len(list(tmp_path.glob(f"machine-{rank}/*"))) for rank in range(2)] == [1, 0]
    for found in (np.load(tmp_path / f"{rank}.npz") for rank in range(2)):
        assert found["rows"].tolist() == [0, 1, 2, 3, 4]
        np.testing.assert_array_equal(found["read"], found["made"])


def test_torch_is_not_initialised_here() -> None:
    """These tests start processes of their own; a group left over in this one would make the loss wait for others."""
    assert not torch.distributed.is_initialized()
