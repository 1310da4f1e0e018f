"""`load_dataset` on every layout it reads, written for real into a temporary folder, and on what can be wrong there."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.dataset_files import folder_of, own_cache, png, refusal, sample, secret, shade, tar_of
from wscl_embed.dataset import assign_splits, dataset_fingerprint, image_source, load_dataset
from wscl_embed.errors import InputError
from wscl_embed.images import BadImageError, decode_image
from wscl_embed.readers.source import OUTSIDE, Fence

_own_cache = pytest.fixture(autouse=True)(own_cache)
_secret = pytest.fixture(name="secret")(secret)


# --- ImageFolder with a metadata file ---------------------------------------------------------------------------------


def test_metadata_jsonl(tmp_path: Path) -> None:
    records = [
        {"file_name": "images/a.png", "tags": ["x", "y"], "attributes": {"colour": "red"}, "split": "train"},
        {"file_name": "images/b.png", "tags": [], "attributes": {"size": 3}, "split": "test", "note": None},
        {"file_name": "images/c d.png", "tags": None, "attributes": None, "split": "test", "caption": "ä"},
    ]
    dataset = load_dataset(folder_of(tmp_path / "set", records))
    assert dataset.column_names == ["id", "image", "tags", "attributes", "note", "caption", "split"]
    assert isinstance(dataset.features["image"], datasets.Image)
    assert dataset.features["image"].decode is False
    assert list(dataset["id"]) == ["images/a.png", "images/b.png", "images/c d.png"]
    assert list(dataset["tags"]) == [["x", "y"], [], None]
    assert list(dataset["attributes"]) == [{"colour": "red", "size": None}, {"colour": None, "size": 3}, None]
    assert list(dataset["caption"]) == [None, None, "ä"]
    assert dataset[1]["image"] == {"bytes": None, "path": str(tmp_path / "set" / "images" / "b.png")}
    assert [shade(dataset, row) for row in range(3)] == [0, 1, 2]


def test_the_metadata_file_itself_may_be_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "set", [{"file_name": "a.png"}])
    (folder / "metadata.jsonl").rename(folder / "mine.jsonl")
    assert shade(load_dataset(str(folder / "mine.jsonl")), 0) == 0


def test_metadata_csv_with_bom_and_lines_in_cells(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(
        b'\xef\xbb\xbf,id,file_name,caption\r\n0,007,a.png,"two\r\nlines, and a comma"\r\n\r\n1,8,b.png,\r\n'
    )
    dataset = load_dataset(tmp_path)
    assert dataset.column_names == ["id", "image", "caption"]
    assert list(dataset["id"]) == ["007", "8"]
    assert list(dataset["caption"]) == ["two\r\nlines, and a comma", None]


def test_metadata_parquet(tmp_path: Path) -> None:
    table = pa.table({"file_name": ["a.png", "b.png"], "id": [1, 2], "tags": [["x"], None]})
    pq.write_table(table, tmp_path / "metadata.parquet")
    for path in (tmp_path, tmp_path / "metadata.parquet"):
        dataset = load_dataset(path)
        assert dataset.column_names == ["id", "image", "tags"]
        assert list(dataset["id"]) == ["1", "2"]


def test_metadata_in_subfolders_are_splits(tmp_path: Path) -> None:
    for name in ("train", "val"):
        folder_of(tmp_path / name, [{"file_name": "a.png", "n": name}])
    dataset = load_dataset(tmp_path)
    assert list(dataset["id"]) == ["train/a.png", "val/a.png"]
    assert list(dataset["split"]) == ["train", "validation"]
    assert image_source(dataset[1]["image"]) == tmp_path / "val" / "a.png"


def test_one_split(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [{"file_name": f"{n}.png", "split": s} for n, s in enumerate(["a", "b", "a"])])
    dataset = load_dataset(folder, split="a")
    assert list(dataset["id"]) == ["0.png", "2.png"]
    assert shade(dataset, 1) == 2
    assert refusal(folder, split="dev") == "split 'dev': the dataset has no such split. There are: a, b."
    other = folder_of(tmp_path / "other", [{"file_name": "a.png"}])
    assert "no splits (no column 'split')" in refusal(other, split="a")


def test_another_id_column(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [{"file_name": "a.png", "sku": 9, "id": "old", "n": 1}])
    dataset = load_dataset(folder, id_column="sku")
    assert dataset.column_names == ["id", "image", "n"]
    assert list(dataset["id"]) == ["9"]
    assert "no column 'nr' to take the ids from. There are: sku, id, n" in refusal(folder, id_column="nr")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"file_name": "a"}\n\n{"file_name": ', "jsonl:3: not valid JSON: Expecting value at column 15."),
        ('{"file_name": "a"}\n["b"]', "jsonl:2: a list; every line must be a JSON object"),
        ("[" * 100_000, "jsonl:1: not JSON that can be read"),
        ('{"file": "a", "tags": []}', "no column 'file_name', the path of each image relative to the metadata file. Its"
         " columns are: file, tags."),
        ('{"file_name": "a"}\n{"tags": []}', "jsonl:2: file_name is None; it must be the path of an image."),
        ('{"file_name": ""}', "jsonl:1: file_name is ''"),
        ("", "the dataset is empty"),
        ("\n \n", "the dataset is empty"),
        ('{"file_name": "a", "id": "1"}\n\n{"file_name": "b", "id": "1"}',
         "1 ids occur more than once, which must be unique: '1' ("),
        ('{"file_name": "a", "id": 1}\n{"file_name": "b", "id": null}', "jsonl:2: the id is None"),
        ('{"file_name": "a", "id": [1]}', "jsonl:1: the id is [1]; it must be a string or an integer."),
        ('{"file_name": "a", "n": null}\n{"file_name": "b", "n": 1}\n{"file_name": "c", "n": "2"}',
         "jsonl:3: the column 'n' holds '2', but int64 in the lines before."),
        ('{"file_name": "a", "n": {"k": [1]}}\n{"file_name": "b", "n": {"k": "x"}}',
         "jsonl:2: the column 'n' holds {'k': 'x'}, but struct<k: list<item: int64>> in the lines before."),
        ('{"file_name": "a", "n": true}\n{"file_name": "b", "n": 0}', "jsonl:2: the column 'n' holds 0, but bool"),
        ('{"file_name": "a", "n": "\\ud800"}', "jsonl:1: the column 'n' holds '\\ud800', which cannot be stored."),
        ('{"file_name": "a", "n": 1%s}' % ("0" * 30), "jsonl:1: the column 'n' holds 1000"),
        ('{"file_name": "a", "image": "b"}', "a column 'image' beside 'file_name'"),
    ],
)  # fmt: skip
def test_bad_jsonl(tmp_path: Path, lines: str, message: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(lines)
    assert message in refusal(tmp_path)


def test_repeated_ids_name_their_lines(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a"}\n\n{"file_name": "b"}\n{"file_name": "a"}\n')
    path = tmp_path / "metadata.jsonl"
    assert f"'a' ({path}:1 and {path}:4)" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'file_name,n\na,"1\n2"\n\nb,2,3\n', "metadata.csv:5: 3 cells, but the header has 2."),
        (b"file_name,n\na\n", "metadata.csv:2: 1 cells, but the header has 2."),
        (b"file_name,n\na,\0\n", "metadata.csv:2: a NUL byte, which no CSV file may hold."),
        (b'file_name,n\na,"1\n', "metadata.csv:2: not valid CSV"),
        (b"file_name,n\na,1\nb,\xff\n", "metadata.csv:3: not UTF-8 text (byte 3 of the line)."),
        (b"file_name,n,n\na,1,2\n", "metadata.csv:1: the column 'n' occurs more than once."),
        (b"file_name;n\na;1\n", "Its columns are: file_name;n."),
        (b"file_name,id\na,\n", "metadata.csv:2: the id is None"),
        (b"file_name,n\n", "the dataset is empty"),
        (b"", "the dataset is empty"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "metadata.csv").write_bytes(content)
    assert message in refusal(tmp_path)


def test_bad_metadata_parquet(tmp_path: Path) -> None:
    path = tmp_path / "metadata.parquet"
    path.write_bytes(b"PAR1 is not enough")
    assert "metadata.parquet: not a Parquet file that can be read" in refusal(tmp_path)
    pq.write_table(pa.table({"file_name": ["a", None]}), path)
    assert "metadata.parquet:row 2: file_name is None" in refusal(tmp_path)
    (tmp_path / "metadata.csv").touch()
    assert "several metadata files" in refusal(tmp_path)


def test_9000_rows_are_read_quickly(tmp_path: Path) -> None:
    records = [
        {"file_name": f"images/{n}.jpg", "tags": ["a", "b", str(n)], "attributes": {"year": str(n)}, "split": "train"}
        for n in range(9000)
    ]
    folder = folder_of(tmp_path, records, images=False)
    start = time.perf_counter()
    assert len(load_dataset(folder)) == 9000
    assert time.perf_counter() - start < 5  # a tenth of it on an idle machine


# --- paths that lead out of the folder --------------------------------------------------------------------------------


def test_paths_out_of_the_folder_are_never_read(tmp_path: Path, secret: Path) -> None:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "good.png").write_bytes(png(1))
    (folder / "images" / "link-inside.png").symlink_to(folder / "images" / "good.png")
    (folder / "images" / "link-out.png").symlink_to(secret)
    (folder / "folder-out").symlink_to(tmp_path)
    bad = [str(secret), "../secret.png", "images/../../secret.png", "images/../images/good.png", "images/link-out.png",
           "folder-out/secret.png", "C:\\secret.png", "..\\secret.png", "folder-out/../secret.png"]  # fmt: skip
    good = ["images/good.png", "images/link-inside.png", "./images/good.png"]
    dataset = load_dataset(folder_of(folder, [{"file_name": name} for name in bad + good], images=False))
    for row, name in enumerate(bad):
        image = dataset[row]["image"]
        assert image == {"bytes": b"", "path": OUTSIDE + name}
        with pytest.raises(BadImageError, match=r"^path leaves the dataset folder$"):
            image_source(image)
    assert [shade(dataset, len(bad) + row) for row in range(len(good))] == [1, 1, 1]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    folder_of(tmp_path / "real", [{"file_name": "a.png"}])
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert shade(load_dataset(tmp_path / "link"), 0) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="ROOT READS EVERY FOLDER, SO NONE WAS CLOSED. Run as somebody else.")
def test_images_in_a_folder_that_cannot_be_read_are_not_missed_in_silence(tmp_path: Path) -> None:
    for folder in ("cat", "cat/closed"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(png())
    (tmp_path / "cat" / "closed").chmod(0)
    try:
        assert "cat/closed: the folder cannot be read (Permission denied)" in refusal(tmp_path)
    finally:
        (tmp_path / "cat" / "closed").chmod(0o755)


def test_missing_files_and_odd_names_are_left_for_decoding(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path, [{"file_name": "gone.png"}, {"file_name": "a\0/b.png"}, {"file_name": "."}], images=False
    )
    dataset = load_dataset(folder)
    for row in range(3):
        with pytest.raises(BadImageError):
            decode_image(image_source(dataset[row]["image"]))


def test_a_fence_of_the_whole_disk_holds_everything(tmp_path: Path, secret: Path) -> None:
    assert Fence("/").locate(tmp_path, "secret.png") == str(secret)
    assert Fence(tmp_path / "set").locate(tmp_path / "set-2", "a.png") == OUTSIDE + "a.png"


# --- folders without metadata -----------------------------------------------------------------------------------------


def test_class_folders(tmp_path: Path, secret: Path) -> None:
    folder = tmp_path / "set"
    for number, name in enumerate(["cat/1.PNG", "cat/2.png", "dog/1.png", "top.png", ".hidden/x.png", "dog/._1.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(number))
    (folder / "dog" / "notes.txt").touch()
    (folder / "dog" / "link.png").symlink_to(secret)
    dataset = load_dataset(folder)
    assert dataset.column_names == ["id", "image", "label"]
    assert list(dataset["id"]) == ["cat/1.PNG", "cat/2.png", "dog/1.png", "dog/link.png", "top.png"]
    assert list(dataset["label"]) == ["cat", "cat", "dog", "dog", None]
    assert [shade(dataset, row) for row in (0, 1, 2, 4)] == [0, 1, 2, 3]
    assert dataset[3]["image"]["path"] == OUTSIDE + "dog/link.png"


def test_class_folders_within_splits(tmp_path: Path) -> None:
    for name in ["train/cat/1.png", "train/dog/1.png", "Val/cat/1.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    dataset = load_dataset(tmp_path)
    assert list(zip(dataset["id"], dataset["label"], dataset["split"], strict=True)) == [
        ("Val/cat/1.png", "cat", "validation"),
        ("train/cat/1.png", "cat", "train"),
        ("train/dog/1.png", "dog", "train"),
    ]


def test_images_without_folders_have_no_label(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert load_dataset(tmp_path).column_names == ["id", "image"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode elsewhere")
def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    Path(os.fsdecode(bytes(tmp_path) + b"/caf\xe9.png")).write_bytes(png())
    assert "the file name 'caf\\udce9.png' is not UTF-8; rename it." in refusal(tmp_path)


def test_nothing_there(tmp_path: Path) -> None:
    assert "no dataset in this folder. Looked for metadata.jsonl" in refusal(tmp_path)
    (tmp_path / "notes.txt").touch()
    assert "not a kind of file datasets are read from" in refusal(tmp_path / "notes.txt")
    assert "path or name of the dataset is empty" in refusal("")
    for name in (str(tmp_path / "gone"), "./gone", "~/no/such/place", "/gone", "a/b/c", "gone.parquet", tmp_path / "x"):
        assert "there is no such file or folder." in refusal(name)


def test_a_typing_error_beside_a_folder_is_no_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    assert refusal("x" * 5000).endswith("xxx: no path (File name too long).")
    assert refusal("~nobody-of-that-name/photos").startswith("~nobody-of-that-name/photos: no path (")
    assert refusal("data/fashon") == "data/fashon: there is no such file or folder."


# --- fingerprint, splits, quiet ---------------------------------------------------------------------------------------


def test_fingerprint(tmp_path: Path) -> None:
    def of(name: str, change: Callable[[Path], None] = lambda _: None) -> str:
        folder = folder_of(tmp_path / name, [{"file_name": f"{n}.png", "tags": []} for n in range(3)])
        change(folder)
        return dataset_fingerprint(load_dataset(folder))

    first = of("a")
    assert len(bytes.fromhex(first)) == 32
    assert of("elsewhere") == first
    assert of("b", lambda folder: (folder / "1.png").write_bytes(b"longer" * 99)) != first
    assert of("c", lambda folder: (folder / "1.png").unlink()) != first
    lines = '{"file_name": "0.png"}\n{"file_name": "1.png"}\n'
    assert of("d", lambda folder: (folder / "metadata.jsonl").write_text(lines)) != first


def test_fingerprint_of_inline_images_is_of_their_content(tmp_path: Path) -> None:
    prints = []
    for name, shades in (("a", (1, 2)), ("b", (1, 2)), ("c", (1, 3))):
        pq.write_table(pa.table({"image": [png(n) for n in shades]}), tmp_path / f"{name}.parquet")
        prints.append(dataset_fingerprint(load_dataset(tmp_path / f"{name}.parquet")))
    assert prints[0] == prints[1] != prints[2]


def test_assign_splits_goes_by_the_id(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [{"file_name": f"{n}.png"} for n in range(2000)], images=False)
    dataset = load_dataset(folder)
    given = assign_splits(dataset)
    by_id = dict(zip(given["id"], given["split"], strict=True))
    assert set(by_id.values()) == {"train", "test"}
    assert 0.17 < list(by_id.values()).count("test") / 2000 < 0.23
    some = assign_splits(dataset.select(range(1999, 0, -7)))
    assert all(by_id[row_id] == split for row_id, split in zip(some["id"], some["split"], strict=True))
    assert list(assign_splits(dataset, seed=1)["split"]) != list(given["split"])
    assert assign_splits(given, holdout=0.9) is given
    for holdout in (0.0, 1.0, -1.0):
        with pytest.raises(InputError, match="holdout must lie between 0 and 1"):
            assign_splits(dataset, holdout=holdout)
    assert np.mean([split == "test" for split in assign_splits(dataset, holdout=0.5)["split"]]) == pytest.approx(
        0.5, abs=0.05
    )


def test_reading_says_nothing_and_leaves_settings_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"image": [png()]}), tmp_path / "a.parquet")
    tar_of(tmp_path / "b.tar", sample("k", 1, n=1))
    datasets.enable_progress_bars()
    level = logging.getLogger("datasets").level
    load_dataset(tmp_path / "a.parquet")
    load_dataset(tmp_path / "b.tar")
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()
    assert logging.getLogger("datasets").level == level
