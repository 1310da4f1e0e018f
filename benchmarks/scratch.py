"""Small networks from random weights, as in the paper: SimCLR, weak clusters, SupCon, through `wscl_embed.fit`.

    python -m benchmarks.scratch --data photos/ --folder runs/scratch                  # trains, scores on val
    python -m benchmarks.scratch --data photos/ --folder runs/scratch --split test     # scores what is there on test
    python -m benchmarks.scratch --data photos/ --folder runs/scratch --only SimCLR --only SupCon

Every method is a run of ``fit --tune full --pretrained none`` with the same network, steps, batches, augmentation and
projection head; only the adapter differs. Labels are read by SupCon and by the scores alone. Floors: the network before
training, and 16 x 16 pixels as they are. Images are made 72 px small once, because decoding them larger would take most
of the time. Runs that are there are not made again, and one that was interrupted is continued.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper.tables import cells, markdown
from wscl_embed import EmbeddingStore, embed, evaluate, fit, load_dataset
from wscl_embed.dataset import image_source
from wscl_embed.images import decode_image

STORED, SIZE, PIXELS = 72, 64, 16  # pixels a side: of the copies, for the network, of the floor


@dataclass(frozen=True)
class Method:
    """An adapter, and what else it needs."""

    adapter: str
    options: Mapping[str, Any] = field(default_factory=dict)


METHODS = {
    "SimCLR": Method("none"),
    "captions": Method("captions"),
    "SupCon": Method("labels"),
    "image clusters, made anew": Method("image_features", {"recluster_every": 2, "recluster_warmup": 4}),
    "hashtags": Method("hashtags"),
    "attributes": Method("attributes"),
}


def small_copies(data: str, folder: Path) -> Path:
    """The same dataset with images of `STORED` pixels, as `load_dataset` reads it."""
    copies = folder / "images"
    if (copies / "metadata.jsonl").exists():
        return copies
    copies.mkdir(parents=True, exist_ok=True)
    lines = []
    for record in load_dataset(data):
        name = f"{Path(record['id']).name}.png"
        decode_image(image_source(record.pop("image"))).resize((STORED, STORED)).save(copies / name)
        lines.append(json.dumps({**record, "file_name": name}))
    (copies / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return copies


def write_pixels(images: Path, path: Path) -> None:
    """An embedding file of the images' pixels, less their mean."""
    dataset = load_dataset(str(images))
    small = (decode_image(image_source(image)).resize((PIXELS, PIXELS)) for image in dataset["image"])
    pixels = np.stack([np.asarray(one, dtype=np.float32).ravel() for one in small])
    with EmbeddingStore.create(path, pixels.shape[1]) as writer:
        writer.append(dataset["id"], pixels - pixels.mean(axis=0))


def train(images: Path, method: Method, run: Path, options: argparse.Namespace, seed: int) -> None:
    """``fit`` from random weights; nothing of the untrained network is mixed into the result."""
    fit(
        images,
        method.adapter,
        run,
        resume=True,
        model=options.model,
        pretrained="none",
        image_size=SIZE,
        tune="full",
        wise_ft="1",
        projection="mlp",
        epochs=options.epochs,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        workers=options.workers,
        seed=seed,
        **method.options,
    )


def make(images: Path, name: str, seed: int, options: argparse.Namespace) -> Path:
    """The embedding file of a method, made if it is not there."""
    run = options.folder / f"{name.replace(' ', '-').replace(',', '')}-{seed}"
    path = run / "embeddings.h5"
    if not (run / "metrics.json").exists():
        start = time.process_time()
        train(images, METHODS[name], run, options, seed)
        print(f"{name}, seed {seed}: {time.process_time() - start:.0f} s of processor time", flush=True)
    return path


def floors(images: Path, options: argparse.Namespace) -> dict[str, Path]:
    """The embedding files of what is not trained."""
    pixels, untrained = options.folder / "pixels.h5", options.folder / "untrained.h5"
    if not pixels.exists():
        write_pixels(images, pixels)
    if not untrained.exists():
        embed(images, options.model, untrained, pretrained="none", image_size=SIZE, workers=options.workers)
    return {f"pixels, {PIXELS} x {PIXELS}": pixels, "untrained network": untrained}


def main() -> None:
    """Make what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--folder", type=Path, default=Path("runs/scratch"))
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--only", action="append", choices=METHODS, metavar="METHOD")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--model", default="timm/test_resnet")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    images = small_copies(options.data, options.folder)
    found = {name: [path] for name, path in floors(images, options).items()}
    for seed in range(options.seeds):
        for name in options.only or METHODS:
            found.setdefault(name, []).append(make(images, name, seed, options))
    rows = []
    for name, paths in found.items():
        scores = [evaluate(path, images, options.label_column, split=options.split)["after"] for path in paths]
        rows.append([name, *cells(scores)])
    print(markdown(["method", "Recall@1", "mAP@R", "kNN", "linear probe"], rows))


if __name__ == "__main__":
    main()
