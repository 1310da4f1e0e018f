"""What to serve: real emoji, names that mean harm, and images that lie where nobody should look; and serving it."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.report_examples import HOSTILE

if TYPE_CHECKING:
    from wscl_embed.serving.site import Site

ODD_COLUMN = 'it\'s "odd" <b>'
OUTSIDE = {"by-symlink": "images/link.png", "by-dots": "../secret.png", "by-path": ""}
"""Ids of records whose image lies outside the dataset's folder, and their file names; the last is an absolute path."""


def folder_to_serve(emoji_folder: Path, folder: Path) -> Path:
    """The emoji, the first with a hostile id and label, a column of numbers, one with an odd name, and `OUTSIDE`."""
    from PIL import Image

    data = shutil.copytree(emoji_folder, folder / "data")
    secret = folder / "secret.png"
    Image.new("RGB", (64, 64), (255, 0, 255)).save(secret)
    (data / "images" / "link.png").symlink_to(secret)
    lines = (emoji_folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [{**json.loads(line), "price": number, ODD_COLUMN: f"v{number % 3}"} for number, line in enumerate(lines)]
    rows[0] |= {"id": HOSTILE, "label": HOSTILE}
    for image_id, name in OUTSIDE.items():
        rows.append({**rows[1], "id": image_id, "file_name": name or str(secret)})
    (data / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return data


def made_up_embeddings(data: Path, path: Path) -> Path:
    """An embedding file that claims to have embedded all of ``data``, the images outside too; by no encoder."""
    from wscl_embed import EmbeddingStore
    from wscl_embed.dataset import load_dataset

    ids = list(load_dataset(data)["id"])
    with EmbeddingStore.create(path, dim=8) as writer:
        writer.append(ids, np.random.default_rng(0).normal(size=(len(ids), 8)))
    return path


@contextmanager
def serving(source: Path, **options: Any) -> Iterator[tuple[str, Site]]:
    """Serve ``source`` as `wscl_embed.serve` does, from a thread: the address, and what is served."""
    from wscl_embed import Searcher
    from wscl_embed.pipeline.serving import open_site
    from wscl_embed.serving.app import make_app
    from wscl_embed.serving.server import Server, open_socket

    chosen = {name: options.pop(name) for name in ("data", "model") if name in options}
    answers, address = threading.Event(), []

    def ready(where: str) -> None:
        address.append(where.rstrip("/"))
        answers.set()

    with ExitStack() as opened:
        searcher = opened.enter_context(Searcher(source, **chosen))
        site = open_site(searcher, opened, **options)
        server = Server(make_app(site), opened.enter_context(open_socket(0)), ready)
        thread = threading.Thread(target=server.serve_until_stopped)
        thread.start()
        assert answers.wait(60)
        yield address[0], site
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
