"""`load_dataset` on tables, tars, saved datasets and the Hub, written for real into a temporary folder."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset_files import own_cache, png, refusal, sample, secret, shade, tar_of
from wscl_embed.dataset import image_source, load_dataset
from wscl_embed.errors import StorageError
from wscl_embed.files import storage_errors
from wscl_embed.images import BadImageError, decode_image

_own_cache = pytest.fixture(autouse=True)(own_cache)
_secret = pytest.fixture(name="secret")(secret)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def hf_images(values: list[dict[str, Any] | None]) -> pa.Array:
    return pa.array(values, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    rows = {
        "picture": [{"bytes": png(n), "path": f"{n}.png"} for n in range(3)],
        "image": ["http://a", "http://b", "http://c"],
        "label": [0, 1, -1],
    }
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "image": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "all.parquet")
    dataset = load_dataset(tmp_path / "all.parquet")
    assert dataset.column_names[:2] == ["id", "image"]
    assert isinstance(dataset.features["image"], datasets.Image)
    assert dataset.features["image"].decode is False
    assert list(dataset["id"]) == ["0.png", "1.png", "2.png"]
    assert list(dataset["label"]) == ["cat", "dog", None]
    assert list(dataset["image_other"]) == ["http://a", "http://b", "http://c"]
    assert [shade(dataset, row) for row in range(3)] == [0, 1, 2]


@pytest.mark.parametrize("column", ["image", "jpg", "image_bytes"])
@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_parquet_with_plain_bytes(tmp_path: Path, column: str, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"tags": [["x"], ["y"]], column: pa.array([png(5), png(6)], kind)}), tmp_path / "a.parquet")
    dataset = load_dataset(tmp_path)
    assert dataset.column_names == ["id", "image", "tags"]
    assert list(dataset["id"]) == ["0", "1"]
    assert [shade(dataset, row) for row in range(2)] == [5, 6]


def test_parquet_shards_with_splits(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, name in enumerate(["test-00000-of-00001", "train-00000-of-00002-abc", "train-00001-of-00002-abc"]):
        table = pa.table({"id": [f"{number}{n}" for n in range(2)], "image": hf_images([{"bytes": png(number)}] * 2)})
        pq.write_table(table, tmp_path / "data" / f"{name}.parquet")
    dataset = load_dataset(tmp_path)
    assert list(dataset["split"]) == ["test"] * 2 + ["train"] * 4
    assert list(dataset["id"]) == ["00", "01", "10", "11", "20", "21"]
    assert [shade(dataset, row) for row in range(6)] == [0, 0, 1, 1, 2, 2]
    assert len(load_dataset(tmp_path, split="test")) == 2


def test_parquet_images_on_disk_stay_within_their_folder(tmp_path: Path, secret: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "in.png").write_bytes(png(7))
    images = [
        {"bytes": png(5), "path": "../name-only.png"},
        {"bytes": None, "path": "in.png"},
        {"bytes": None, "path": "../secret.png"},
        {"bytes": None, "path": str(secret)},
        {"bytes": b"", "path": "empty.png"},
        None,
    ]
    pq.write_table(pa.table({"image": hf_images(images)}), folder / "a.parquet")
    dataset = load_dataset(folder)
    assert [shade(dataset, row) for row in range(2)] == [5, 7]
    reasons = []
    for row in range(2, 6):
        with pytest.raises(BadImageError) as caught:
            decode_image(image_source(dataset[row]["image"]))
        reasons.append(caught.value.reason)
    outside = "path leaves the dataset folder"
    assert reasons == [outside, outside, "empty file", "record has no image"]


def test_names_hdf5_cannot_hold_are_no_ids(tmp_path: Path) -> None:
    """It gives each id the room of the longest."""
    for odd in ("b\0.png", "b" * 100_000):
        column = hf_images([{"bytes": png(5), "path": "a"}, {"bytes": png(6), "path": odd}])
        pq.write_table(pa.table({"image": column}), tmp_path / "a.parquet")
        assert list(load_dataset(tmp_path)["id"]) == ["0", "1"]


def test_bad_parquet(tmp_path: Path) -> None:
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    pq.write_table(pa.table({"id": ["1", "1"], "image": [png(), png()]}), first)
    assert f"'1' ({first}: row 1 and {first}: row 2)" in refusal(tmp_path)
    pq.write_table(pa.table({"id": ["1"], "picture": ["x"]}), second)
    assert "b.parquet: its columns differ from those of" in refusal(tmp_path)
    assert "no column with images" in refusal(second)
    assert "There are: id (string), picture (string)" in refusal(second)
    pq.write_table(pa.table({"id": ["2"], "image": [1.5]}), second)
    assert refusal(tmp_path)
    second.write_bytes(b"<html>")
    assert "b.parquet: not a Parquet file that can be read" in refusal(tmp_path)
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), second)
    assert "the dataset is empty" in refusal(second)
    pq.write_table(pa.table({"image": [png(1)]}), first)
    assert len(load_dataset(tmp_path)) == 1


@pytest.mark.parametrize(("name", "taken_for_pattern"), [("a[1]", "a1"), ("a?", "ab"), ("a*", "ab")])
def test_names_of_folders_are_no_patterns(tmp_path: Path, name: str, taken_for_pattern: str) -> None:
    for folder, n in ((name, 7), (taken_for_pattern, 8)):
        (tmp_path / folder).mkdir()
        pq.write_table(pa.table({"png": [png(n)]}), tmp_path / folder / "the.parquet")
    assert shade(load_dataset(tmp_path / name), 0) == 7
    assert shade(load_dataset(tmp_path / name / "the.parquet"), 0) == 7


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """What a full disk does, within this process."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_a_full_disk_is_no_fault_of_the_data(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).bytes(100_000)
    path = tmp_path / f"the.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"png": [noise]}), path)
    else:
        tar_of(path, {"a.png": noise})
    with files_of_at_most(50_000), pytest.raises(StorageError, match="HF_DATASETS_CACHE names another folder"):
        load_dataset(path)
    assert len(load_dataset(path)) == 1  # once there is room


def test_an_array_of_which_a_disk_took_a_part(tmp_path: Path) -> None:
    """NumPy says so without an error number."""
    path = tmp_path / "rows.npy"
    refused = pytest.raises(StorageError, match=r"rows\.npy: cannot be written \(No space left")
    with files_of_at_most(50_000), refused, storage_errors(path):
        np.save(path, np.zeros(100_000))


# --- WebDataset -------------------------------------------------------------------------------------------------------


def test_tar(tmp_path: Path) -> None:
    members = {
        **sample("./a/0001", 3, tags=["x"], caption="one"),
        "./a/0002.PNG": png(4),
        "a/0002.txt": "zwei ä".encode(),
        "a/0002.cls": b"7\n",
        "a/0002.seg.png": png(9),
        "README": b"no record",
        "a/0003.json": b'{"tags": []}',
    }
    path = tar_of(tmp_path / "one.tar", members)
    dataset = load_dataset(path)
    assert list(dataset["id"]) == ["a/0001", "a/0002", "a/0003"]
    assert dataset.column_names == ["id", "image", "tags", "caption", "txt", "cls"]
    assert list(dataset["tags"]) == [["x"], None, []]
    assert list(dataset["txt"]) == [None, "zwei ä", None]
    assert list(dataset["cls"]) == [None, 7, None]
    assert [shade(dataset, row) for row in range(2)] == [3, 4]
    with pytest.raises(BadImageError, match="record has no image"):
        image_source(dataset[2]["image"])
    assert sorted(child.name for child in tmp_path.iterdir()) == [".hf-cache", "one.tar"]


def test_tar_shards_by_folder_braces_and_glob(tmp_path: Path) -> None:
    for number in range(3):
        tar_of(tmp_path / f"shard-{number:03d}.tar", sample(f"k{number}", number, n=number))
    whole = load_dataset(tmp_path)
    assert list(whole["id"]) == ["k0", "k1", "k2"]
    assert [shade(whole, row) for row in range(3)] == [0, 1, 2]
    assert list(load_dataset(tmp_path / "shard-{000..001}.tar")["id"]) == ["k0", "k1"]
    assert list(load_dataset(str(tmp_path / "*-00[12].tar"))["id"]) == ["k1", "k2"]
    assert "shard-003.tar: there is no such file." in refusal(tmp_path / "shard-{002..003}.tar")
    assert "there is no such file." in refusal(tmp_path / "*.tgz")
    assert "{002..000} counts down; the lower number stands first" in refusal(tmp_path / "shard-{002..000}.tar")


def test_keys_that_repeat_between_tars_get_its_name(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tar_of(tmp_path / f"{name}.tar", sample("0", ord(name), n=1))
    dataset = load_dataset(tmp_path)
    assert list(dataset["id"]) == ["a/0", "b/0"]
    assert [shade(dataset, row) for row in range(2)] == [97, 98]


def test_a_tar_written_anew_is_read_anew(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", sample("k", 1, n=1))
    assert shade(load_dataset(path), 0) == 1
    tar_of(path, sample("k", 2, n=1))
    os.utime(path, ns=(1, 1))
    assert shade(load_dataset(path), 0) == 2


def test_links_and_devices_in_a_tar_are_left_out(tmp_path: Path, secret: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in [("x.png", tarfile.SYMTYPE), ("y.png", tarfile.LNKTYPE), ("z.png", tarfile.CHRTYPE)]:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
        for name in ("../../escape.png", "good.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png(5))
            archive.addfile(info, io.BytesIO(png(5)))
    dataset = load_dataset(path)
    assert list(dataset["id"]) == ["../../escape", "good"]
    assert [shade(dataset, row) for row in range(2)] == [5, 5]
    assert not (tmp_path.parent / "escape.png").exists()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.json": b"{", "a.png": b""}, "a.json: not JSON that can be read"),
        ({"a.txt": b"\xff", "a.png": b""}, "a.txt: not UTF-8 text that can be read"),
        ({"a.png": b"", "a.jpg": b""}, "a: two images, a.png and a.jpg"),
        ({"a.txt": b"x", "a.json": b'{"txt": 1}'}, "a.json: the record has a column 'txt' already."),
        ({"a.json": b'{"image": 1}', "a.png": b""}, "a key 'image'"),
        ({"a.json": b'{"n": 1}', "b.json": b'{"n": "x"}'}, "the.tar: b: the column 'n' holds 'x', but int64"),
        ({"README": b""}, "no records"),
    ],
)
def test_bad_tar_members(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    assert message in refusal(tar_of(tmp_path / "the.tar", members))


def test_bad_tars(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(b"<html>" * 200)
    assert "a.tar: not an uncompressed tar file, or a truncated one" in refusal(path)
    tar_of(path, {"a.png": png(), "b.png": bytes(5000)})
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    assert "a.tar: not an uncompressed tar file, or a truncated one" in refusal(path)
    end_of_first = 512 * (1 + -(-len(png()) // 512))  # between the members, where nothing else tells
    for content in (
        whole[:end_of_first],
        whole[: end_of_first + 100],
        whole[:end_of_first] + b"x" + whole[end_of_first + 1 :],
    ):
        path.write_bytes(content)
        assert (
            f"a.tar: not an uncompressed tar file, or a truncated one (damaged or cut off at byte {end_of_first:,})"
            in refusal(path)
        )
    path.write_bytes(whole + whole.replace(b"a.png", b"c.png"))
    assert "more follows behind its end" in refusal(path)


# --- saved datasets and the Hub ---------------------------------------------------------------------------------------


def saved(numbers: Iterable[int]) -> datasets.Dataset:
    rows = [{"image": {"bytes": png(n), "path": None}, "label": n % 2} for n in numbers]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])})
    return datasets.Dataset.from_list(rows, features=features)


def test_saved_dataset(tmp_path: Path) -> None:
    saved(range(3)).save_to_disk(tmp_path / "saved")
    dataset = load_dataset(tmp_path / "saved")
    assert list(dataset["id"]) == ["0", "1", "2"]
    assert list(dataset["label"]) == ["even", "odd", "even"]
    assert [shade(dataset, row) for row in range(3)] == [0, 1, 2]
    (tmp_path / "saved" / "state.json").write_text("{")
    assert "a saved dataset that cannot be read" in refusal(tmp_path / "saved")


def test_saved_dataset_dict(tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": saved(range(2)), "test": saved([7])})
    parts.save_to_disk(tmp_path / "saved")
    dataset = load_dataset(tmp_path / "saved")
    assert list(dataset["id"]) == ["train/0", "train/1", "test/0"]
    assert list(dataset["split"]) == ["train", "train", "test"]
    assert shade(load_dataset(tmp_path / "saved", split="test"), 0) == 7


def test_hub_datasets_are_joined_and_fenced(tmp_path: Path, secret: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = tmp_path / ".hf-cache" / "downloads" / "a.png"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(png(8))
    paths = [str(cached), str(secret)]
    features = datasets.Features({"image": datasets.Image(decode=False)})
    part = datasets.Dataset.from_list([{"image": {"bytes": None, "path": path}} for path in paths], features=features)
    asked: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **options: Any) -> datasets.DatasetDict:
        asked.append((name, options))
        return datasets.DatasetDict({"train": part})

    monkeypatch.setattr(datasets, "load_dataset", load)
    dataset = load_dataset("somebody/pictures")
    assert asked == [("somebody/pictures", {})]
    assert list(dataset["id"]) == ["train/0", "train/1"]
    assert shade(dataset, 0) == 8
    with pytest.raises(BadImageError, match="path leaves the dataset folder"):
        image_source(dataset[1]["image"])


def test_offline_the_hub_is_refused_at_once(tmp_path: Path) -> None:
    code = "from wscl_embed.dataset import load_dataset; load_dataset('somebody/no-such-pictures')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("wscl_embed.errors.InputError: somebody/no-such-pictures: there is no such file or folder")
    assert result.stdout == ""
