"""Datasets made in Python, in place of a path, for `fit`, `cluster`, `embed`, `evaluate` and `Searcher`."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from PIL import Image

from tests.dataset_files import own_cache, png, shade
from wscl_embed import Clusters, EmbeddingStore, Searcher, cluster, embed, evaluate, fit
from wscl_embed.dataset import as_dataset, assign_splits, load_dataset
from wscl_embed.errors import InputError
from wscl_embed.stages.clustering import describe
from wscl_embed.stages.inputs import read_labels

_own_cache = pytest.fixture(autouse=True)(own_cache)

FEATURES = datasets.Features(
    {"photo": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"]), "shade": datasets.Value("int64")}
)


@pytest.fixture
def decoded() -> datasets.Dataset:
    """Six images as `datasets` decodes them, in a column of another name, with no ids."""
    images = [Image.open(io.BytesIO(png(number))) for number in range(6)]
    columns = {"photo": images, "label": [0, 1, 0, 1, -1, 1], "shade": list(range(6))}
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def test_decoded_images_get_the_columns_of_a_loaded_dataset(decoded: datasets.Dataset) -> None:
    dataset = as_dataset(decoded)
    assert sorted(dataset.column_names) == ["id", "image", "label", "shade"]
    assert dataset["id"][:] == ["0", "1", "2", "3", "4", "5"]
    assert dataset["label"][:] == ["cat", "dog", "cat", "dog", None, "dog"]
    assert [shade(dataset, row) for row in range(6)] == [0, 1, 2, 3, 4, 5]
    assert as_dataset(dataset) is dataset


def test_selected_rows_keep_their_images_and_values(decoded: datasets.Dataset) -> None:
    dataset = as_dataset(decoded.select([4, 0, 3]).with_format("numpy"))
    assert dataset["shade"][:] == [4, 0, 3] == [shade(dataset, row) for row in range(3)]
    assert dataset["label"][:] == [None, "cat", "dog"]


def test_images_are_kept_to_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    Image.effect_noise((32, 32), 50).convert("RGB").save(path, quality=70)
    content = path.read_bytes()
    rows = {"image": [{"bytes": content, "path": None}] * 3}
    dataset = as_dataset(datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).select([2, 1]))
    assert dataset[0]["image"]["bytes"] == content


def test_file_names_become_images_and_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, number in (("a.png", 7), ("b.png", 8)):
        Path(name).write_bytes(png(number))
    files = datasets.Dataset.from_dict({"image": ["a.png", "b.png"]}).cast_column("image", datasets.Image())
    dataset = as_dataset(files)
    assert dataset["id"][:] == ["a.png", "b.png"]
    assert [shade(dataset, row) for row in range(2)] == [7, 8]
    named = as_dataset(files.add_column("id", [10, 11]))
    assert named["id"][:] == ["10", "11"]


def test_the_names_of_a_dict_are_the_splits(decoded: datasets.Dataset) -> None:
    dataset = as_dataset(datasets.DatasetDict(train=decoded.select(range(4)), test=decoded.select([5, 4])))
    assert dataset["split"][:] == ["train"] * 4 + ["test"] * 2
    assert dataset["id"][-1] == "test/1"
    assert [shade(dataset, row) for row in range(6)] == [0, 1, 2, 3, 5, 4]


def test_ids_of_ones_own_do_not_keep_the_rest_from_being_read(decoded: datasets.Dataset) -> None:
    """Images in a column of another name, undecoded or not, and classes get what a loaded dataset has."""
    named = decoded.add_column("id", list("abcdef"))
    for given in (named, named.cast_column("photo", datasets.Image(decode=False))):
        dataset = as_dataset(given)
        assert dataset.column_names[:2] == ["id", "image"]
        assert dataset["id"][:] == list("abcdef")
        assert dataset["label"][:] == ["cat", "dog", "cat", "dog", None, "dog"]
        assert [shade(dataset, row) for row in range(6)] == [0, 1, 2, 3, 4, 5]
    unnamed = named.rename_column("photo", "image").cast_column("image", datasets.Image(decode=False))
    assert as_dataset(unnamed)["label"][:2] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "b", "a"], r"1 ids occur more than once.*'a' \(the dataset: row 1 and the dataset: row 3\)"),
        (["a", None, "c"], "the dataset: row 2: the id is None"),
        (["a", "b\0", "c"], "the dataset: row 2: the id .* has a NUL character"),
        ([], "the dataset is empty"),
    ],
)
def test_ids_are_looked_at_as_those_of_files_are(ids: list[str | None], said: str) -> None:
    posts = datasets.Dataset.from_dict({"id": ids, "tags": [["a"]] * len(ids)})
    for given in (posts, posts.rename_column("tags", "words").select_columns(["id"])):
        with pytest.raises(InputError, match=said):
            as_dataset(given)
    with pytest.raises(InputError, match="the dataset is empty"):
        as_dataset(datasets.DatasetDict(train=posts.select([]), test=posts.select([])))


@pytest.mark.parametrize("data", [["a.jpg", "b.jpg"], {"image": []}, None, np.zeros(3)])
def test_other_objects_are_refused_with_what_to_give(data: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=rf"the data is a {type(data).__name__}; give a path.*from_dict"):
        embed(data, "efficientnet-lite0", tmp_path / "a.h5")
    with pytest.raises(InputError, match="the data is a"):
        cluster(data, "hashtags")


def test_a_column_of_names_is_no_column_of_images(tmp_path: Path) -> None:
    names = datasets.Dataset.from_dict({"image": ["a.png", "b.png"], "tags": [["a"], ["b"]]})
    with pytest.raises(InputError, match=r"no column 'image'.*cast_column\(NAME, datasets.Image\(\)\)"):
        embed(names, "efficientnet-lite0", tmp_path / "a.h5")
    with pytest.raises(InputError, match="no column 'image'"):
        fit(names, "hashtags", tmp_path / "run")


def test_a_whole_job_from_a_dataset_of_decoded_images(few: datasets.Dataset, tmp_path: Path) -> None:
    bare = few.remove_columns(["id", "split"]).cast_column("image", datasets.Image()).shuffle(seed=1)
    options: dict[str, Any] = {"image_size": 48, "epochs": 1, "cached_views": 1, "workers": 0, "device": "cpu"}
    result = fit(bare, "hashtags:min_df=1", tmp_path / "run", label_column="label", **options)
    assert len(repr(result)) < 300
    scores = evaluate(tmp_path / "run", bare, "label")
    assert scores["after"]["recall@1"] == pytest.approx(result.metrics["after"]["recall@1"])
    with Searcher(tmp_path / "run", data=bare) as searcher, EmbeddingStore(tmp_path / "run") as store:
        assert np.asarray(store).shape == np.array(store, dtype="float64", copy=True).shape == store.embeddings.shape
        label_of = dict(zip(as_dataset(bare)["id"], bare["label"], strict=True))
        hits = searcher.by_id(store.ids[0], 3)
        assert [hit.metadata["label"] for hit in hits] == [label_of[hit.id] for hit in hits]


# --- a run whose data has no column split -----------------------------------------------------------------------------


def run_over(folder: Path, ids: list[str], **config: object) -> Path:
    """A run directory with embeddings of ``ids``, as far as `evaluate` looks."""
    folder.mkdir()
    lines = {"data": "posts", "adapter": ["none"], "output": str(folder), **config}
    (folder / "config.yaml").write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
    rows = np.random.default_rng(0).normal(size=(len(ids), 8))
    with EmbeddingStore.create(folder / "embeddings.h5", dim=8) as writer:
        writer.append(ids, rows)
    return folder


def test_evaluate_scores_the_images_that_the_run_held_out(tmp_path: Path) -> None:
    (tmp_path / "posts.jsonl").write_text('{"label": "a"}\n{"label": "b"}\n' * 60)
    posts = load_dataset(tmp_path / "posts.jsonl", images=False)
    run = run_over(tmp_path / "run", posts["id"][:], label_column="label", holdout=0.4)
    held_out = assign_splits(posts, holdout=0.4)["split"][:].count("test")
    assert evaluate(run, tmp_path / "posts.jsonl", "label")["n_queries"] == held_out
    with pytest.raises(InputError, match="no column 'split'; --split all scores every image"):
        evaluate(run / "embeddings.h5", posts, "label")
    unscored = run_over(tmp_path / "unscored", posts["id"][:])
    with pytest.raises(InputError, match="trained on all images, none held out; --split all"):
        evaluate(unscored, posts, "label")


def test_images_without_a_label_are_no_class_of_their_own(tmp_path: Path) -> None:
    """Null, NaN, blank: neither queries nor results, in `evaluate` as on the information plane."""
    labels = ["a", "a", "b", "b", "", "", " ", None]
    posts = datasets.Dataset.from_dict({"id": list("01234567"), "label": labels})
    scores = evaluate(run_over(tmp_path / "run", posts["id"][:]), posts, "label", split=None)
    assert (scores["n_queries"], scores["n_skipped"]) == (4, 0)
    with pytest.raises(InputError, match="--max-queries must be at least 1, got 0"):
        evaluate(tmp_path / "run", posts, "label", split=None, max_queries=0)
    numbers = datasets.Dataset.from_dict({"id": list("0123"), "label": [1.0, 1.0, float("nan"), float("nan")]})
    assert read_labels(numbers, "label") == [1.0, 1.0, None, None]
    blank = read_labels(posts.select([4, 5, 6, 7]), "label")
    assert "information" not in describe(Clusters.from_labels(list("abcd"), [0, 0, 1, 1], name="toy"), 4, blank)


def test_evaluate_says_which_ids_it_looked_for(tmp_path: Path) -> None:
    posts = datasets.Dataset.from_dict({"id": ["p", "q"], "label": ["a", "a"]})
    one, other = run_over(tmp_path / "one", ["1", "2"]), run_over(tmp_path / "other", ["3"])
    with pytest.raises(
        InputError, match=r"one: no embedding of any image of the dataset \(its ids are '1', '2', ...\)"
    ):
        evaluate(one, posts, "label", split=None)
    with pytest.raises(InputError, match=r"one and .*other: no embedding .* \(they share no id\)"):
        evaluate(one, posts, "label", split=None, before=other)


def test_a_folder_of_images_alone_has_rows_without_them(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png())
    assert load_dataset(tmp_path, images=False)["id"][:] == ["a.png"]
    with pytest.raises(InputError, match=r"the dataset has no column 'tags'\. It has images alone"):
        cluster(tmp_path, "hashtags")
