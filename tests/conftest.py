"""What several tests share: no network, caches of their own, real emoji, a real encoder."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

os.environ["HF_HUB_OFFLINE"] = "1"  # before any Hugging Face library is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tensors: threads only wait for each other, six times as long

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun by a shell in its background, which processes inherit
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no error: speed is measured in benchmarks/.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

if TYPE_CHECKING:
    import datasets
    from playwright.sync_api import Browser

    from tests.browsing import WatchedPages
    from wscl_embed.encoder import Encoder

IMAGE_SIZE = 48


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Neither read nor fill the caches of whoever runs the tests."""
    import datasets

    folder = tmp_path_factory.mktemp("cache")
    os.environ["WSCL_EMBED_CACHE"] = str(folder / "features")
    os.environ["HF_DATASETS_CACHE"] = str(folder / "datasets")
    datasets.config.HF_DATASETS_CACHE = folder / "datasets"


@pytest.fixture(scope="session")
def emoji() -> datasets.Dataset:
    """240 emoji of the demo, all groups, with their splits."""
    from wscl_embed.dataset import load_dataset
    from wscl_embed.demo import EMOJI

    dataset = load_dataset(EMOJI)
    return dataset.select(range(0, len(dataset), 8)).flatten_indices()


@pytest.fixture(scope="session")
def emoji_folder(emoji: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as an ImageFolder with ``metadata.jsonl``."""
    import json

    folder = tmp_path_factory.mktemp("emoji")
    (folder / "images").mkdir()
    with (folder / "metadata.jsonl").open("w", encoding="utf-8") as lines:
        for row in emoji:
            name = f"images/{row['id']}.png"
            (folder / name).write_bytes(row["image"]["bytes"])
            record = {"file_name": name, **{key: row[key] for key in ("id", "tags", "captions", "label", "split")}}
            lines.write(json.dumps(record, ensure_ascii=False) + "\n")
    return folder


@pytest.fixture(scope="session")
def few(emoji: datasets.Dataset) -> datasets.Dataset:
    """40 emoji, where they go through the image tower again and again."""
    return emoji.select(range(0, len(emoji), 6)).flatten_indices()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Tensors and images this small are done in a fifth of the time where threads need not wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def lite0() -> Encoder:
    """EfficientNet-Lite0 with its ImageNet weights, at a small size."""
    from wscl_embed.encoder_sources import load_encoder

    return load_encoder("efficientnet-lite0", image_size=IMAGE_SIZE, device="cpu")


@pytest.fixture(scope="session")
def two_tower(emoji: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with an image and a text tower, aligned on the training emoji and their names."""
    from tests.two_tower import build_two_tower
    from wscl_embed.dataset import split_rows
    from wscl_embed.encoder_sources import load_encoder
    from wscl_embed.features import encode_images

    train = emoji.select(split_rows(emoji, "train"))
    lite0 = load_encoder("efficientnet-lite0", image_size=IMAGE_SIZE, device="cpu")
    features = encode_images(lite0, train, workers=0).values[:, 0]
    folder = tmp_path_factory.mktemp("two-tower")
    build_two_tower(folder, [names[0] for names in train["captions"]], features, image_size=IMAGE_SIZE)
    return folder


@pytest.fixture(scope="session")
def two_tower_run(emoji_folder: Path, two_tower: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A quick run of that model over the 240 emoji: to search by text, to serve."""
    from wscl_embed import fit

    quick: dict[str, Any] = {"epochs": 1, "cached_views": 1, "batch_size": 64, "workers": 0, "device": "cpu"}
    adapter = "hashtags:column=tags,min_df=1,n_clusters=12"
    output = tmp_path_factory.mktemp("runs") / "run"
    return fit(emoji_folder, adapter, output, model=str(two_tower), label_column="label", **quick).run.folder


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The system's Chromium without a window, driven by playwright."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    executable = next((found for found in map(shutil.which, names) if found), None)
    if executable is None:
        pytest.skip("NO BROWSER, SO NOBODY LOOKED AT THE REPORT. Install one: apt-get install --yes chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="browser tests need: pip install playwright")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's sandbox refuses root
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=executable, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture
def pages(browser: Browser) -> Iterator[WatchedPages]:
    """Pages of that browser in which, as is seen at the end, nothing went wrong."""
    from tests.browsing import WatchedPages

    watched = WatchedPages(browser)
    yield watched
    watched.close()
