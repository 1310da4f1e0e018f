"""The report in a real browser, offline: nothing is loaded, nothing fails, and what can be used responds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.browsing import PHONE, WatchedPages
from tests.report_examples import HOSTILE, report_input
from wscl_embed.report import write_report

if TYPE_CHECKING:
    import datasets
    from playwright.sync_api import Page

pytest.importorskip("bokeh", reason="the report needs the extra wscl-embed[report]")

Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def report(emoji: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, report_input(emoji))
    return path


@pytest.fixture
def open_page(pages: WatchedPages) -> Iterator[Open]:
    """Open a report, and see at the end that nothing was asked of the network."""

    def open_report(path: Path, **options: Any) -> Page:
        page = pages.new(offline=True, **options)
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=60_000)
        return page

    yield open_report
    assert all(url.startswith(("file:", "data:", "blob:")) for url in pages.requests), pages.requests
    assert len({url for url in pages.requests if url.startswith("file:")}) == len(pages.contexts)


def coloured_pixels(page: Page) -> int:
    """How many pixels of the map are of a colour, neither grey nor the paper's."""
    from PIL import Image

    with Image.open(BytesIO(page.locator("#map").screenshot())) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=np.int16)
    return int((np.ptp(pixels, axis=2) > 60).sum())


def place_of(page: Page, row: int) -> tuple[float, float]:
    """Where on the screen the map draws an image."""
    x, y = page.evaluate(
        """(row) => {
            const {plot, points} = wsclEmbedMap, box = document.getElementById("map").getBoundingClientRect();
            const share = ({start, end}, value) => (value - start) / (end - start);
            return [box.left + share(plot.x_range, points.data.x[row]) * plot.inner_width,
                    box.top + (1 - share(plot.y_range, points.data.y[row])) * plot.inner_height];
        }""",
        row,
    )
    return x, y


def span(page: Page) -> float:
    return float(page.evaluate("wsclEmbedMap.plot.x_range.end - wsclEmbedMap.plot.x_range.start"))


def test_the_table_and_the_charts_are_there(report: Path, open_page: Open) -> None:
    page = open_page(report)
    assert "Better:" in page.inner_text(".verdict")
    rows = page.locator("#scores tbody tr")
    assert rows.first.inner_text().split() == [
        "Recall@1",
        "0.500",
        "0.550",
        "+0.050",
        "+0.030",
        "..",
        "+0.070",
    ]
    assert rows.count() == 4
    assert page.locator("#training .chart canvas").count() >= 2
    assert page.locator("#information .chart canvas").count() >= 1
    assert page.locator("#highlights [data-highlight]").count() == 2  # each cluster has one label: none is confused
    assert page.locator("#quarantine tbody tr").count() == 1


def test_filters_legend_and_colours_change_the_map(report: Path, open_page: Open, emoji: datasets.Dataset) -> None:
    page = open_page(report)
    n = len(emoji)
    everything = coloured_pixels(page)
    assert everything > 2000
    assert page.inner_text("#matches") == f"{n} images"
    flags = sum(label == "flags" for label in emoji["label"])
    page.fill("#filter", "FLAGS")
    page.get_by_text(f"{flags} of {n} images").wait_for()
    assert 0 < coloured_pixels(page) < everything / 2
    page.fill("#filter", emoji["id"][0])
    page.get_by_text(f"1 of {n} images").wait_for()
    page.click("#clear")
    assert page.inner_text("#matches") == f"{n} images"
    assert abs(coloured_pixels(page) - everything) < everything / 20
    held_out = sum(row % 6 == 0 for row in range(n))
    page.locator("#legend button", has_text="not trained on").click()
    assert page.inner_text("#matches") == f"{held_out} of {n} images"
    assert coloured_pixels(page) == 0
    page.select_option("#colour-by", label="label (label)")
    assert coloured_pixels(page) > everything  # held-out images have labels
    page.locator("#legend button", has_text="flags").click()
    assert page.inner_text("#matches") == f"{flags} of {n} images"


def test_pointing_and_clicking_show_an_image(report: Path, open_page: Open, emoji: datasets.Dataset) -> None:
    page = open_page(report)
    page.locator("#map-section").scroll_into_view_if_needed()
    page.evaluate("document.getElementById('map').scrollIntoView({behavior: 'instant', block: 'center'})")
    x, y = place_of(page, 7)
    page.mouse.move(x - 30, y)
    page.mouse.move(x, y)
    page.wait_for_selector("#tooltip:not([hidden])")
    assert page.locator("#tooltip img").get_attribute("src").startswith("data:image/webp")  # type: ignore[union-attr]
    page.mouse.click(x, y)
    page.wait_for_selector("#details dl")
    shown = page.inner_text("#details dd >> nth=0")
    assert shown in emoji["id"]
    assert shown in page.inner_text("#tooltip")
    page.locator("#details button").first.click()
    assert " of " in page.inner_text("#matches")
    page.mouse.move(5, 5)
    page.wait_for_selector("#tooltip", state="hidden")


def test_the_map_moves_by_keys_buttons_and_wheel_once_chosen(report: Path, open_page: Open) -> None:
    page = open_page(report)
    page.evaluate("document.getElementById('map').scrollIntoView({behavior: 'instant', block: 'center'})")
    whole = span(page)
    page.hover("#map", position={"x": 200, "y": 200})
    page.mouse.wheel(0, -200)
    page.wait_for_timeout(200)
    assert span(page) == whole  # the page scrolled
    page.focus("#map")
    page.keyboard.press("+")
    assert span(page) == pytest.approx(0.8 * whole)
    start = page.evaluate("wsclEmbedMap.plot.x_range.start")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("wsclEmbedMap.plot.x_range.start") > start
    page.keyboard.press("0")
    assert span(page) == pytest.approx(whole)
    page.click("#zoom-out")
    assert span(page) > whole
    page.click("#fit")
    page.focus("#map")
    page.hover("#map", position={"x": 200, "y": 200})
    for _ in range(20):  # a browser that is busy scrolling may swallow a turn
        page.mouse.wheel(0, -200)
        page.wait_for_timeout(100)
        if span(page) < whole:
            break
    assert span(page) < whole


def test_cards_are_found_sorted_and_shown_on_the_map(report: Path, open_page: Open, emoji: datasets.Dataset) -> None:
    page = open_page(report)
    labels = set(emoji["label"])
    cards = page.locator("#cards .card")
    assert cards.count() == len(labels)
    sizes = [int(text.split()[0]) for text in page.locator("#cards .size").all_inner_texts()]
    assert sizes == sorted(sizes, reverse=True)
    page.select_option("#sort", label="size, smallest first")
    assert [int(text.split()[0]) for text in page.locator("#cards .size").all_inner_texts()] == sorted(sizes)
    page.fill("#find", "flags")
    assert cards.count() == 1
    assert page.inner_text("#found") == f"1 of {len(labels)} clusters"
    assert cards.locator("img").count() == 8
    assert all(width > 0 for width in cards.locator("img").evaluate_all("all => all.map(one => one.naturalWidth)"))
    assert "100 % pure" in cards.inner_text()
    cards.get_by_role("button").click()
    assert page.inner_text("#matches").split()[0] == page.inner_text("#cards .size").split()[0]


def test_names_that_mean_harm_are_shown_as_they_are(report: Path, open_page: Open) -> None:
    page = open_page(report)
    assert page.inner_text("h1") == f"a run {HOSTILE}"
    page.fill("#find", "onerror")
    assert HOSTILE in page.inner_text("#cards .card h4")
    page.fill("#filter", "onerror")
    page.locator("#matches", has_text=" of ").wait_for()
    assert HOSTILE in page.inner_text("#quarantine tbody")
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(report: Path, open_page: Open, scheme: str) -> None:
    page = open_page(report, **PHONE, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    assert coloured_pixels(page) > 500
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 384) == (scheme == "dark")
    page.evaluate("document.getElementById('map').scrollIntoView({behavior: 'instant', block: 'center'})")
    page.touchscreen.tap(*place_of(page, 3))
    page.wait_for_selector("#details dl")


@pytest.mark.parametrize("labels", [True, False])
def test_a_run_without_clusters(open_page: Open, emoji: datasets.Dataset, tmp_path: Path, labels: bool) -> None:
    write_report(tmp_path / "report.html", report_input(emoji, labels=labels, clusters=False, bad=False))
    page = open_page(tmp_path / "report.html")
    assert "trained without clusters" in page.inner_text("#clusters")
    assert page.inner_text("#matches") == f"{len(emoji)} images"
    assert page.locator("#colour-by option").count() == int(labels)
    assert page.locator("#colour-by").is_visible() == labels
    assert (coloured_pixels(page) > 1000) or not labels
    assert page.locator("#map canvas").count() >= 1
