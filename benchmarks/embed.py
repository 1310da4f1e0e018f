"""Images to embeddings against a plain open_clip loop over a DataLoader: same images, same model, same machine.

    python -m benchmarks.embed                                     # the demo's emoji, EfficientNet-Lite0 at 96 px
    python -m benchmarks.embed --data photos/ --image-size 224     # your own images
    python -m benchmarks.embed --model ViT-B-32 --side 1200        # all as JPEGs with this short side, as from a camera

All take turns, and every ratio is taken within a round: the median of the rounds counts, their range is the spread.
Before, the embeddings are checked to be those of the plain loop: cosines above 0.9999, or 0.99 with `--side`, where we
decode JPEGs at a reduced size and the loop does not. What a CPU does for other processes slows all of them, but not
equally: the processor time beside is what each way costs.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from wscl_embed import load_dataset
from wscl_embed.dataset import image_source
from wscl_embed.demo import EMOJI
from wscl_embed.encoder import Encoder
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.features import draft_size, iterate_encoded
from wscl_embed.image_rows import ImageRows, available_cores, collate
from wscl_embed.images import decode_image
from wscl_embed.threads import at_a_time, in_threads

BATCH = 64
BAD_EVERY = 100  # one percent
Embeddings = NDArray[np.float32]


class Plain(torch.utils.data.Dataset[Any]):
    """What one writes first: Pillow, open_clip's transform."""

    def __init__(self, contents: Sequence[bytes], preprocess: Callable[[Any], torch.Tensor]) -> None:
        self.contents, self.preprocess = contents, preprocess

    def __len__(self) -> int:
        return len(self.contents)

    def __getitem__(self, row: int) -> torch.Tensor:
        from PIL import Image

        return self.preprocess(Image.open(BytesIO(self.contents[row])).convert("RGB"))


def plain_loop(model: Any, images: Plain, workers: int, threads: int) -> Embeddings:
    """The loop of open_clip's README, with a DataLoader."""
    torch.set_num_threads(threads)
    with torch.inference_mode():
        parts = [model.encode_image(batch) for batch in DataLoader(images, BATCH, num_workers=workers)]
    torch.set_num_threads(available_cores())
    return torch.cat(parts).numpy()


def ours(encoder: Encoder, dataset: Any) -> Embeddings:
    """What `embed` does, but for the file."""
    batches = iterate_encoded(encoder, dataset, hashed=True, batch_size=BATCH)
    return np.concatenate([batch.values[:, 0] for batch in batches])


def decode_only(encoder: Encoder, dataset: Any) -> None:
    """The decoding of `ours` on all cores."""
    rows = ImageRows(dataset, [encoder.preprocess], draft_size(encoder), None, hashed=True)
    step = BATCH // at_a_time()
    starts = range(0, len(dataset), step)
    for _ in in_threads(lambda start: collate(rows.__getitems__([*range(len(dataset))][start : start + step])), starts):
        pass


def forward_only(encoder: Encoder, pixels: torch.Tensor, *, divided: bool) -> None:
    """Images in memory through the tower: ``divided``, every operation among all cores, or a batch a core."""
    encode = torch.inference_mode()(encoder.encode)
    for _ in (map if divided else in_threads)(encode, pixels.split(BATCH if divided else BATCH // at_a_time())):
        pass


def read_images(data: str, count: int, side: int | None) -> list[bytes]:
    """Image files in memory, transparency over white; with ``side`` all as JPEGs with this short side."""
    dataset = load_dataset(data)
    dataset = dataset.select(range(min(count, len(dataset))))
    contents = []
    for image in dataset["image"]:
        opened = decode_image(image_source(image))
        if side is not None:
            scale = side / min(opened.size)
            opened = opened.resize((round(opened.width * scale), round(opened.height * scale)))
        buffer = BytesIO()
        opened.save(buffer, "JPEG" if side else "PNG", quality=90)
        path = image["path"]
        contents.append(
            Path(path).read_bytes() if side is None and path and path.endswith(".jpg") else buffer.getvalue()
        )
    return contents


def as_dataset(contents: Sequence[bytes]) -> Any:
    """A dataset of images in memory."""
    import datasets

    features = datasets.Features({"id": datasets.Value("string"), "image": datasets.Image(decode=False)})
    images = [{"bytes": content, "path": None} for content in contents]
    return datasets.Dataset.from_dict({"id": [str(row) for row in range(len(images))], "image": images}, features)


def check_equal(one: Embeddings, other: Embeddings, least: float) -> None:
    """See that the embeddings are the same."""
    cosines = (one * other).sum(1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1))
    assert cosines.min() > least, f"the embeddings differ: a cosine of {cosines.min():.5f}"


def measure(ways: dict[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[list[float], list[float]]]:
    """Seconds by the clock and of the processors, round by round, taking turns."""
    taken: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            cpu, start = processor_seconds(), time.perf_counter()
            way()
            if number:  # the first round warms up
                taken[name][0].append(time.perf_counter() - start)
                taken[name][1].append(processor_seconds() - cpu)
    return taken


def processor_seconds() -> float:
    """Of this process and of the workers that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def make_ways(options: argparse.Namespace) -> tuple[dict[str, Callable[[], Any]], int]:
    """What is measured, after a check that it gives the same; and how many images there are."""
    encoder = load_encoder(options.model, options.pretrained, image_size=options.image_size, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        encoder.save(Path(folder))
        model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    contents = read_images(options.data, options.images, options.side)
    good = as_dataset(contents)
    spoilt = as_dataset([c[: len(c) // 2] if row % BAD_EVERY == 50 else c for row, c in enumerate(contents)])
    plain, cores = Plain(contents, preprocess), available_cores()
    pixels = torch.stack([plain[row] for row in range(len(plain))])
    check_equal(ours(encoder, good), plain_loop(model.eval(), plain, 0, 1), 0.99 if options.side else 0.9999)
    loop = functools.partial(plain_loop, model, plain)
    return {
        "wscl_embed": lambda: ours(encoder, good),
        "wscl_embed, 1 % of the images damaged": lambda: ours(encoder, spoilt),
        "open_clip loop": lambda: loop(0, cores),
        f"open_clip loop, {cores} workers": lambda: loop(cores, cores),
        f"open_clip loop, {cores} workers, 1 torch thread": lambda: loop(cores, 1),
        "decoding alone": lambda: decode_only(encoder, good),
        "forward alone, operations divided": lambda: forward_only(encoder, pixels, divided=True),
        "forward alone, a batch a core": lambda: forward_only(encoder, pixels, divided=False),
    }, len(contents)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(EMOJI), help="[the demo's emoji]")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--pretrained", help="none: random weights, which are as fast as others")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--side", type=int, help="all images as JPEGs with this short side [as they are]")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    ways, n = make_ways(options)
    taken = measure(ways, options.rounds)
    print(f"{n} images, {options.model}, median of {options.rounds} rounds; {available_cores()} cores,", end=" ")
    print(f"{platform.machine()}, load average {load:.1f} before and {os.getloadavg()[0]:.1f} after;", end=" ")
    print(f"Python {platform.python_version()}, torch {torch.__version__}, open_clip {open_clip.__version__}")
    print("\n| way | images/s | processor time an image | our speed / its, range |\n| --- | --- | --- | --- |")
    own = taken["wscl_embed"][0]
    for name, (seconds, processor) in taken.items():
        ratios = [other / one for one, other in zip(own, seconds, strict=True)]
        speed, cost = n / statistics.median(seconds), 1000 * statistics.median(processor) / n
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} .. {max(ratios):.2f})"
        print(f"| {name} | {speed:.1f} | {cost:.2f} ms | {spread} |")


if __name__ == "__main__":
    main()
