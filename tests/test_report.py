"""The report's numbers and what it is made of; `test_report_browser` opens it."""

from __future__ import annotations

import base64
import json
import sys
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.conftest import IMAGE_SIZE
from tests.report_examples import HOSTILE, report_input, scored
from wscl_embed import fit, report
from wscl_embed.clusters import Clusters
from wscl_embed.dataset import load_dataset
from wscl_embed.report import write_report
from wscl_embed.report.cards import ALL_PICTURES, CARD_PICTURES, PICTURES, Card, draw_pictures, highlights, make_cards
from wscl_embed.report.charts import training_charts
from wscl_embed.report.colouring import make_colourings, spread_hues
from wscl_embed.report.information import information_points
from wscl_embed.report.layout import map_coordinates
from wscl_embed.report.packing import LONGEST_ID, pack, pack_texts, shorten
from wscl_embed.report.page import score_rows
from wscl_embed.report.thumbnails import SIDE, thumbnails

if TYPE_CHECKING:
    import datasets

pytest.importorskip("bokeh", reason="the report needs the extra wscl-embed[report]")


def blobs(n: int, k: int = 6) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """(n, 32) in k tight groups, and which group each is in."""
    rng = np.random.default_rng(0)
    codes = rng.integers(k, size=n)
    return (np.eye(k, 32)[codes] + 0.05 * rng.normal(size=(n, 32))).astype(np.float32), codes


def same_neighbour(plane: NDArray[np.uint16], codes: NDArray[np.int64], rows: NDArray[np.int64]) -> float:
    """The share of ``rows`` whose nearest other point is of their group."""
    distances = np.linalg.norm(plane[rows, None].astype(np.float64) - plane[None], axis=2)
    distances[np.arange(len(rows)), rows] = np.inf
    return float((codes[distances.argmin(axis=1)] == codes[rows]).mean())


def test_the_map_keeps_groups_together_also_of_rows_beyond_the_sample() -> None:
    embeddings, codes = blobs(400)
    plane = map_coordinates(embeddings, seed=3)
    assert plane.shape == (400, 2)
    assert plane.dtype == np.uint16
    assert plane.max() == 65535
    assert same_neighbour(plane, codes, np.arange(400)) > 0.97
    np.testing.assert_array_equal(plane, map_coordinates(embeddings, seed=3))
    sampled = map_coordinates(embeddings, seed=3, sample=150)
    others = np.setdiff1d(np.arange(400), np.random.default_rng(3).permutation(400)[:150])
    assert same_neighbour(sampled, codes, others) > 0.97


@pytest.mark.parametrize("n", [1, 2, 5, 40])
@pytest.mark.parametrize("spread", [0, 1])
def test_the_map_of_few_or_equal_images(n: int, spread: float) -> None:
    embeddings = 1 + spread * np.random.default_rng(0).normal(size=(n, 3))
    plane = map_coordinates(embeddings)
    assert plane.shape == (n, 2)
    assert (len(np.unique(plane, axis=0)) == n) == (spread > 0 or n == 1)


def test_cards_count_sizes_purity_and_entropy(emoji: datasets.Dataset) -> None:
    labels = ["a", "a", "a", "b", "b", None]
    dataset = emoji.select(range(6)).remove_columns("label").add_column("label", labels)
    clusters = Clusters.from_labels(list(dataset["id"]), [0, 0, 0, 0, 1, 1], name="x", terms=[["sun"], ["sea"]])
    given = replace(report_input(emoji), dataset=dataset, clusters=clusters)
    large, small = make_cards(given)
    assert (large.name, large.size, large.terms, large.purity, large.labels) == (
        "x-0",
        4,
        ["sun"],
        0.75,
        [("a", 3), ("b", 1)],
    )
    assert large.entropy == pytest.approx(0.811278)
    assert (small.size, small.purity, small.entropy, small.labels) == (2, 1.0, 0.0, [("b", 1)])


def card(size: int, purity: float | None, entropy: float | None) -> Card:
    return Card("x", 0, "x-0", [], np.arange(size), purity, entropy, [])


def test_highlights_leave_small_clusters_and_unlabelled_ones_out() -> None:
    cards = [
        card(90, 0.5, 1.0),
        card(50, 1.0, 0.0),
        card(9, 1.0, 0.0),
        card(8, 0.4, 2.0),
        card(7, None, None),
        card(2, 1.0, 0.0),
    ]
    assert highlights(cards) == {"largest": [0, 1, 2, 3], "purest": [1, 2, 0, 3], "confused": [3, 0]}
    assert highlights([card(90, None, None)]) == {"largest": [0], "purest": [], "confused": []}


@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 60), max_size=300), extra=st.integers(0, 2000))
def test_pictures_are_few_distinct_and_of_their_cluster(sizes: list[int], extra: int) -> None:
    ends = np.cumsum(sizes, dtype=int)
    cards = [
        Card("x", 0, "x", [], np.arange(end - size, end), None, None, []) for size, end in zip(sizes, ends, strict=True)
    ]
    first = [len(cards) - 1] if cards else []
    on_card, shown = draw_pictures(cards, first, sum(sizes) + extra, seed=0)
    assert len(shown) == len(set(shown)) == min(ALL_PICTURES, sum(sizes) + extra)
    assert sum(map(len, on_card)) <= CARD_PICTURES + PICTURES
    for one, rows in zip(cards, on_card, strict=True):
        assert len(set(rows)) == len(rows) in (0, min(PICTURES, one.size))
        assert set(rows) <= set(one.rows.tolist()) & set(shown)
    assert not cards or on_card[-1]


def test_few_categories_have_a_colour_each_and_many_share_them_far_apart() -> None:
    line = np.stack([np.arange(16) * 4000, np.zeros(16)], axis=1).astype(np.uint16)
    assert sorted(spread_hues(np.arange(8), line[:8], 8)) == list(range(8))
    hues = spread_hues(np.arange(16), line, 16)
    apart = [abs(a - b) for a in range(16) for b in range(a) if hues[a] == hues[b]]
    assert min(apart) >= 4


def test_held_out_images_and_noise_are_told_apart(emoji: datasets.Dataset) -> None:
    given = report_input(emoji)
    clusters, labels = make_colourings(given, np.zeros((len(emoji), 2), dtype=np.uint16))
    assert (clusters.title, labels.title) == ("hashtags clusters", "label (label)")
    held_out = np.arange(len(emoji)) % 6 == 0
    np.testing.assert_array_equal(clusters.codes == -2, held_out)
    np.testing.assert_array_equal(clusters.codes[~held_out], given.clusters.labels)
    assert [labels.names[code] for code in labels.codes] == list(emoji["label"])


def test_several_adapters_have_a_colouring_and_a_point_each(emoji: datasets.Dataset) -> None:
    one = report_input(emoji)
    rows = one.trained_rows
    by_label = Clusters.from_labels(one.clusters.ids, one.label_codes[rows], name="labels")
    given = replace(one, clusters=Clusters.combine([one.clusters, by_label], [1, 0.25]))
    titles = [colouring.title for colouring in make_colourings(given, np.zeros((len(emoji), 2), dtype=np.uint16))]
    assert titles == ["hashtags clusters", "labels clusters", "label (label)"]
    tags, exact, none, corner = information_points(given)
    assert (tags.name, exact.name, none.reference, corner.reference) == ("hashtags", "labels", True, True)
    assert (exact.told, exact.besides) == pytest.approx((corner.told, corner.besides))
    assert none.besides == pytest.approx(np.log2(len(rows)) - corner.told)
    assert tags.besides > 0
    assert information_points(report_input(emoji, labels=False)) == []


def test_packed_arrays_and_texts_unpack() -> None:
    array = np.array([[-1, 70000], [3, 4]], dtype=np.int32)
    packed = pack(array)
    content = zlib.decompress(base64.b64decode(packed["data"]))
    np.testing.assert_array_equal(np.frombuffer(content, dtype=f"<{np.dtype(packed['dtype']).str[1:]}"), array.ravel())
    texts = ["ä", HOSTILE, "\U0001f600"]
    assert json.loads(zlib.decompress(base64.b64decode(pack_texts(texts)["data"]))) == texts
    assert shorten("x" * LONGEST_ID) == "x" * LONGEST_ID
    assert len(shorten("x" * 5000)) <= LONGEST_ID


def test_thumbnails_are_small_and_those_of_lost_images_are_left_out(tmp_path: Path) -> None:
    import datasets
    from PIL import Image

    Image.new("RGB", (300, 200), "teal").save(tmp_path / "large.png")
    images = [{"bytes": None, "path": str(tmp_path / name)} for name in ("large.png", "gone.png")]
    dataset = datasets.Dataset.from_dict({"image": images}).cast_column("image", datasets.Image(decode=False))
    made = thumbnails(dataset, [1, 0])
    assert set(made) == {0}
    with Image.open(BytesIO(base64.b64decode(made[0].partition(",")[2]))) as picture:
        assert (picture.format, picture.size) == ("WEBP", (SIDE, SIDE * 2 // 3))


def test_any_number_written_after_the_epochs_becomes_a_curve() -> None:
    history: list[dict[str, Any]] = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "drift": 0.5, "note": "text"}]
    charts = training_charts(history)
    assert [(chart["title"], chart["first"], chart["last"]) for chart in charts] == [
        ("Loss", 2.0, 1.0),
        ("Drift", 0.5, 0.5),
    ]
    assert training_charts([]) == []


def test_the_intervals_share_one_scale_with_zero_in_the_middle() -> None:
    metrics = scored()
    metrics["change"]["map@r"] = {"mean": -0.1, "low": -0.2, "high": 0.0}
    rows = {row["name"]: row for row in score_rows(metrics)}
    low, mean, high = rows["mAP@R"]["at"]
    assert 0 < low < mean < high == 50
    assert (rows["mAP@R"]["direction"], rows["Recall@1"]["direction"]) == ("even", "up")
    assert score_rows({}) == []


class Elements(HTMLParser):
    """The elements of a page, and its texts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.texts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@pytest.fixture(scope="module")
def page(emoji: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, report_input(emoji))
    return path.read_text(encoding="utf-8")


def test_strangers_names_are_text_and_nothing_is_loaded(page: str) -> None:
    found = Elements(page)
    assert [tag for tag, _ in found.elements].count("script") == 3
    assert "img" not in {tag for tag, _ in found.elements}
    links = [value for _, attributes in found.elements for name, value in attributes if name in ("src", "href")]
    assert links
    assert all(link is not None and link.startswith(("#", "data:")) for link in links)
    assert not any(name.startswith("on") for _, attributes in found.elements for name, _ in attributes)
    assert f"a run {HOSTILE}" in found.texts
    policy = dict(found.elements[3][1])["content"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-eval" not in policy


def test_what_a_run_lacks_is_said(page: str, emoji: datasets.Dataset, tmp_path: Path) -> None:
    write_report(tmp_path / "bare.html", report_input(emoji, labels=False, clusters=False, bad=False))
    bare = (tmp_path / "bare.html").read_text(encoding="utf-8")
    for text in ("there is nothing to score by", "trained without clusters", f"all {len(emoji)} images could be read"):
        assert text in bare
        assert text not in page
    for text in ("Better:", "1 image was left out", "truncated image file", "nor any label"):
        assert text in page
        assert text not in bare


QUICK: dict[str, Any] = {"image_size": IMAGE_SIZE, "epochs": 1, "cached_views": 1, "workers": 0, "device": "cpu"}


@pytest.fixture(scope="module")
def few(emoji: datasets.Dataset) -> datasets.Dataset:
    return emoji.select(range(0, len(emoji), 6)).flatten_indices()


def test_without_the_extra_a_run_says_so_in_one_line_and_goes_on(
    few: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "bokeh", None)
    fit(few, "none", tmp_path / "run", **QUICK)
    assert (
        "the run is complete without it: report.html needs the package bokeh: pip install 'wscl-embed[report]'"
        in capfd.readouterr().err
    )
    assert (tmp_path / "run" / "metrics.json").is_file()
    assert not (tmp_path / "run" / "report.html").exists()


def test_a_report_that_fails_does_not_lose_the_run(
    few: datasets.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("of the test")

    monkeypatch.setattr(report, "write_report", fail)
    result = fit(few, "none", tmp_path / "run", **QUICK)
    assert "the run is complete without it: ZeroDivisionError: of the test" in capfd.readouterr().err
    assert result.run.read_metrics() == json.loads(json.dumps(result.metrics))


@pytest.mark.slow
def test_a_hundred_thousand_images_stay_under_thirty_megabytes(emoji_folder: Path, tmp_path: Path) -> None:
    """With ids of 60 characters, a thousand clusters and as many thumbnails as there may be."""
    import datasets

    n, k = 100_000, 1_000
    rng = np.random.default_rng(0)
    files = [str(path) for path in sorted((emoji_folder / "images").iterdir())]
    codes = rng.integers(k, size=n)
    dataset = datasets.Dataset.from_dict(
        {
            "id": [rng.bytes(30).hex() for _ in range(n)],
            "image": [{"bytes": None, "path": files[row % len(files)]} for row in range(n)],
            "label": [f"label {code % 50}" for code in codes],
        }
    ).cast_column("image", datasets.Image(decode=False))
    embeddings = rng.normal(size=(k, 512)).astype(np.float32)[codes] + rng.normal(size=(n, 512)).astype(np.float32)
    terms = [[f"term {column} {place}" for place in range(5)] for column in range(k)]
    clusters = Clusters.from_labels(list(dataset["id"]), codes, name="hashtags", terms=terms)
    run = replace(report_input(load_dataset(emoji_folder)), dataset=dataset, embeddings=embeddings, clusters=clusters)
    write_report(tmp_path / "report.html", run)
    assert 5e6 < (tmp_path / "report.html").stat().st_size < 30e6
