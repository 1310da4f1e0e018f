"""A billion images on paper: what each stage takes, from rates measured on this code and rates assumed of a GPU.

    python -m benchmarks.scale
    python -m benchmarks.scale --images 1e8 --gpus 8 --cores 192 --decode-rate 300
    python -m benchmarks.scale --measure-decoding        # measures the decoding rate here, and calculates with it

A steady-state model: a stage that streams runs at the rate of its slowest resource, and that resource is named. What is
measured and what is assumed is said beside each number; docs/scale.md tells where the code as it is ends.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from benchmarks.paper.tables import markdown

PHOTO, PHOTOS, ROUNDS = (680, 512), 60, 7  # pixels; photos a round


@dataclass(frozen=True)
class Scale:
    """What is known of the data, the machines and the code; each field with its unit and where it is from."""

    images: float = 1e9  # given
    bytes_an_image: float = 93_000  # given: a JPEG of 680 x 512
    dim: int = 512  # given: of the embedding (ViT-B/32)
    bytes_a_value: int = 2  # given: float16
    flops_an_image: float = 8.8e9  # given: ViT-B/32 at 224 px, forward
    sample: float = 2e7  # given: images that are clustered and trained on
    epochs: int = 5  # given: full mode
    batch: int = 32_768  # given
    clusters: float = 1e5  # given
    gpus: int = 64  # given: H200
    cores: int = 1_536  # given: 192 beside each 8 GPUs
    network: float = 50e9  # given: bytes/s that the store of images gives to all together
    decode_rate: float = 134  # measured (--measure-decoding): JPEGs decoded and resized by a core a second
    write_rate: float = 1.5e9  # measured: bytes/s of a process writing embeddings
    tag_seconds: float = 148e-6  # measured: seconds a record from tags to clusters, in one process, at a million
    gpu_flops: float = 989e12  # given: peak of an H200, bfloat16 without sparsity
    utilisation: float = 0.35  # assumed: nobody has run this code on an H200


@dataclass(frozen=True)
class Stage:
    """One stage: seconds by resource, the longest of which is what it takes, and the bytes it leaves on disk."""

    name: str
    seconds: dict[str, float]
    disk: float = 0.0

    @property
    def bottleneck(self) -> str:
        return max(self.seconds, key=self.seconds.__getitem__)

    @property
    def hours(self) -> float:
        return self.seconds[self.bottleneck] / 3600


def stages(scale: Scale) -> list[Stage]:
    """The stages of the job in their order."""
    gpu = scale.gpus * scale.gpu_flops * scale.utilisation
    decode = scale.cores * scale.decode_rate
    seen = scale.sample * scale.epochs * 2  # two views
    steps = scale.sample * scale.epochs / scale.batch
    rows = 2 * scale.batch
    # Similarities once forward and twice backward (tiles are computed again), two flops a multiplication.
    loss = steps * 3 * 2 * rows**2 * scale.dim
    embeddings = scale.images * scale.dim * scale.bytes_a_value
    return [
        Stage("tags to clusters, of the sample", {"one process": scale.sample * scale.tag_seconds}),
        Stage(
            "training on the sample",
            {
                "GPUs": (3 * seen * scale.flops_an_image + loss) / gpu,
                "decoding": seen / 2 / decode,  # decoded once for both views
                "network": seen / 2 * scale.bytes_an_image / scale.network,
            },
        ),
        Stage(
            "embedding all",
            {
                "GPUs": scale.images * scale.flops_an_image / gpu,
                "decoding": scale.images / decode,
                "network": scale.images * scale.bytes_an_image / scale.network,
                "writing": embeddings / (scale.gpus * scale.write_rate),
            },
            disk=embeddings,
        ),
        Stage(
            "assigning all to the clusters' centres",
            {"GPUs": 2 * scale.images * scale.clusters * scale.dim / gpu},
            disk=scale.images * 4,
        ),
    ]


def sizes(scale: Scale) -> list[tuple[str, float]]:
    """What has to fit somewhere, in bytes."""
    return [
        ("images", scale.images * scale.bytes_an_image),
        ("embeddings", scale.images * scale.dim * scale.bytes_a_value),
        ("membership of all images in one process (CSR, one cluster each)", scale.images * (8 + 4 + 4)),
        ("ids of 16 characters as Python strings in one process", scale.images * 65),
        ("gathered batch on each GPU (rows of two views, float32)", 2 * scale.batch * scale.dim * 4),
        ("the same loss as a matrix, which is never made", (2 * scale.batch) ** 2 * 4),
        ("HNSW links (32 a row) beside the embeddings", scale.images * 32 * 2 * 4),
    ]


def tables(scale: Scale) -> str:
    """Stages and sizes as Markdown."""
    of_stages = [
        [stage.name, f"{stage.hours:.3g}", stage.bottleneck, share_of(stage), f"{stage.disk / 1e9:,.0f} GB"]
        for stage in stages(scale)
    ]
    of_sizes = [[name, f"{size / 1e9:,.3g} GB"] for name, size in sizes(scale)]
    header = ["stage", "hours", "set by", "hours of the other resources", "leaves"]
    return f"{markdown(header, of_stages)}\n\n{markdown(['what', 'size'], of_sizes)}"


def share_of(stage: Stage) -> str:
    others = [f"{name} {seconds / 3600:.2g}" for name, seconds in stage.seconds.items() if name != stage.bottleneck]
    return ", ".join(others) or "none"


def photos() -> list[bytes]:
    """JPEGs of `PHOTO` pixels of smooth noise."""
    from PIL import Image

    rng, contents = np.random.default_rng(0), []
    for _ in range(PHOTOS):
        coarse = Image.fromarray(rng.integers(0, 256, (PHOTO[1] // 8, PHOTO[0] // 8, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        coarse.resize(PHOTO, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        contents.append(buffer.getvalue())
    return contents


def measure_decoding() -> tuple[float, str]:
    """Photos a second of a core's processor time from file contents to tensors of 224 px as `embed` makes them."""
    import torch

    from benchmarks.embed import as_dataset
    from wscl_embed.encoder_sources import load_encoder
    from wscl_embed.features import draft_size
    from wscl_embed.image_rows import ImageRows

    torch.set_num_threads(1)
    contents = photos()
    encoder = load_encoder("ViT-B-32", "none", device="cpu")
    rows = ImageRows(as_dataset(contents), [encoder.preprocess], draft_size(encoder), None, hashed=True)
    rates = []
    for number in range(ROUNDS + 1):
        start = time.process_time()
        found = rows.__getitems__([*range(PHOTOS)])
        if number:  # the first round warms up
            rates.append(PHOTOS / (time.process_time() - start))
    assert all(getattr(image, "shape", None) == (1, 3, 224, 224) for _, image, _ in found)
    size = statistics.mean(len(content) for content in contents)
    rate, spread = statistics.median(rates), f"{min(rates):.0f} .. {max(rates):.0f}"
    return rate, (
        f"A core decodes and resizes {rate:.0f} JPEGs of {PHOTO[0]} x {PHOTO[1]} ({size / 1e3:.0f} kB) a second of its "
        f"processor time ({spread}, {ROUNDS} rounds of {PHOTOS}, load average {os.getloadavg()[0]:.1f})."
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables for the scale asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for field in fields(Scale):
        convert = type(field.default)
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=lambda text, to=convert: to(float(text)))
    parser.add_argument("--measure-decoding", action="store_true", help="measure --decode-rate on this machine")
    given = {name: value for name, value in vars(parser.parse_args(arguments)).items() if value is not None}
    measured = given.pop("measure_decoding")
    scale = Scale(**given)
    if measured:
        rate, said = measure_decoding()
        scale = replace(scale, decode_rate=rate)
        print(f"{said}\n")
    print(tables(scale))


if __name__ == "__main__":
    main()
