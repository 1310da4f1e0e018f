"""Datasets of signals alone: `load_dataset(images=False)`, and `cluster` on metadata without images."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset_files import png
from wscl_embed import cluster, fit
from wscl_embed.clusters import Clusters
from wscl_embed.dataset import load_dataset
from wscl_embed.demo import EMOJI
from wscl_embed.errors import InputError

POSTS = [{"tags": ["sun", "sea"]}, {"tags": ["snow", "ski"]}, {"tags": ["sea", "sun"]}, {"tags": ["ski", "snow"]}]
HASHTAGS = "hashtags:n_clusters=2"


def jsonl(path: Path, records: list[dict[str, object]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(map(json.dumps, records)))
    return path


def parquet(path: Path, columns: dict[str, object]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_metadata_without_file_names(tmp_path: Path) -> None:
    dataset = load_dataset(jsonl(tmp_path / "posts.jsonl", POSTS), images=False)
    assert dataset.column_names == ["id", "tags"]
    assert list(dataset["id"]) == ["0", "1", "2", "3"]
    with pytest.raises(InputError, match="no column 'file_name'"):
        load_dataset(tmp_path / "posts.jsonl")


def test_metadata_in_subfolders_are_splits(tmp_path: Path) -> None:
    for name in ("train", "val"):
        jsonl(tmp_path / name / "metadata.jsonl", POSTS)
    assert list(load_dataset(tmp_path, images=False)["split"]) == ["train"] * 4 + ["validation"] * 4


def test_ids_are_those_of_the_dataset_with_images(tmp_path: Path, emoji_folder: Path) -> None:
    records = [{"file_name": f"{i}.png", **record} for i, record in enumerate(POSTS)]
    for path in (jsonl(tmp_path / "metadata.jsonl", records), emoji_folder, EMOJI):
        whole, signals = load_dataset(path), load_dataset(path, images=False)
        assert list(signals["id"]) == list(whole["id"])
        assert signals.column_names == [name for name in whole.column_names if name != "image"]


def test_parquet_without_images(tmp_path: Path) -> None:
    path = parquet(tmp_path / "posts.parquet", {"tags": [record["tags"] for record in POSTS], "image": ["u"] * 4})
    assert load_dataset(path, images=False).column_names == ["id", "tags", "image_other"]
    with pytest.raises(InputError, match=r"no column with images.*image \(string\)"):
        load_dataset(path)


def test_a_saved_dataset_without_images(tmp_path: Path) -> None:
    datasets.Dataset.from_list(POSTS).save_to_disk(tmp_path / "saved")
    assert load_dataset(tmp_path / "saved", images=False).column_names == ["id", "tags"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_clusters_of_a_file_without_images(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"posts.{suffix}"
    if suffix == "jsonl":
        jsonl(path, POSTS)
    else:
        parquet(path, {"tags": [record["tags"] for record in POSTS]})
    made = cluster(path, HASHTAGS, tmp_path / "clusters.parquet")
    labels = Clusters.load(tmp_path / "clusters.parquet").labels.tolist()
    assert labels == made.labels.tolist()
    assert labels[0] == labels[2] != labels[1] == labels[3]


def test_where_images_are_needed_the_message_says_so(tmp_path: Path) -> None:
    posts = datasets.Dataset.from_list([{"id": str(i), **record} for i, record in enumerate(POSTS)])
    with pytest.raises(InputError, match="no column 'image' with its images, but id, tags alone"):
        cluster(posts, "image_features")
    with pytest.raises(InputError, match="no column 'image' with its images"):
        fit(posts, HASHTAGS, tmp_path / "run")
    with pytest.raises(InputError, match="no column 'file_name'"):
        cluster(jsonl(tmp_path / "posts.jsonl", POSTS), "image_features")


def test_images_left_out_of_clusters_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{number}.png" for number in range(12)]
    jsonl(tmp_path / "metadata.jsonl", [{"file_name": name} for name in [*names, "torn.png"]])
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(png(20 * number))
    (tmp_path / "torn.png").write_bytes(png()[:45])
    options = {"image_size": 32, "workers": 0, "device": "cpu", "max_bad_share": 0.1, "cache_dir": str(tmp_path / "c")}
    assert cluster(tmp_path, "image_features:n_clusters=2", **options).ids == names
    assert "bad images left out: 1 (torn.png: truncated image file)" in capsys.readouterr().err
