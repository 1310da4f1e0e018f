"""Many images and many rows through the real commands, with their memory watched.

    python -m benchmarks.load images                    # 200,000 images: embed, search
    python -m benchmarks.load rows                      # 10,000,000 x 64 float16: store, index, search
    python -m benchmarks.load rows --lists 1000         # an index with fewer lists than `index` makes: built sooner

All inputs are made in a temporary folder that is deleted at the end. Images: 300 emoji of the demo as JPEGs of 48 px,
repeated under distinct ids, in one Parquet file. The encoder is timm's test_convnext (64 dimensions, random weights) at
32 px: what counts is what everything around it takes. Rows: 10,000 random directions, each row near one of them.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.memory import Watched, watch

COUNTS = {"images": 200_000, "rows": 10_000_000}
MODEL = ["--model", "timm/test_convnext", "--pretrained", "none"]
DIM, SIZE, DISTINCT, CENTRES, SPREAD, BLOCK = 64, 32, 300, 10_000, 0.08, 65_536
INK, FAINT, LINE, MAPPED = "#1f2328", "#59636e", "#0969da", "#b6d4f5"


def make_images(folder: Path, count: int) -> None:
    """``images.parquet``, and one of them as ``query.jpg``."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from wscl_embed.demo import EMOJI

    column = pq.read_table(EMOJI, columns=["image"]).column("image").slice(0, DISTINCT).to_pylist()
    contents = []
    for record in column:
        buffer = io.BytesIO()
        picture = Image.open(io.BytesIO(record["bytes"])).convert("RGBA")
        Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB").resize((48, 48)).save(
            buffer, "JPEG", quality=85
        )
        contents.append(buffer.getvalue())
    (folder / "query.jpg").write_bytes(contents[0])
    with pq.ParquetWriter(
        folder / "images.parquet", pa.schema({"id": pa.string(), "image": pa.binary()}), use_dictionary=["image"]
    ) as writer:
        for start in range(0, count, BLOCK):
            rows = range(start, min(count, start + BLOCK))
            images = pa.array([contents[row % len(contents)] for row in rows], pa.binary())
            writer.write_table(pa.table({"id": [f"photo-{row:08d}" for row in rows], "image": images}))


def write_rows(path: Path, count: int) -> None:
    """An embedding file of ``count`` rows around `CENTRES` directions, written block by block."""
    from wscl_embed import EmbeddingStore
    from wscl_embed.encoder_sources import load_encoder

    encoder = load_encoder("timm/test_convnext", "none", image_size=SIZE, device="cpu")
    attributes = {"weights_hash": encoder.weights_hash(), "preprocess": f'{{"size": [{SIZE}, {SIZE}]}}'}
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CENTRES, DIM), dtype=np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    with EmbeddingStore.create(path, DIM, dtype="float16", attributes=attributes) as writer:
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
            noise = SPREAD * generator.standard_normal((size, DIM), dtype=np.float32)
            ids = [f"photo-{row:08d}" for row in range(start, start + size)]
            writer.append(ids, centres[generator.integers(0, CENTRES, size)] + noise)


def build_index(path: Path, lists: int) -> None:
    """`wscl-embed index` with another number of inverted lists."""
    from wscl_embed.cli import main as command
    from wscl_embed.searching import building

    building.number_of_lists = lambda rows: lists
    sys.argv[1:] = ["index", str(path), *MODEL]
    command()


def watch_images(folder: Path, count: int, limit: float) -> list[Watched]:
    """`embed` of the images, then a search; no index, for which 10 of hundreds of equals it finds says nothing."""
    make_images(folder, count)
    output = folder / "images.h5"
    grown = folder / ".images.h5.partial" / "part-0.vectors"
    options = ["--image-size", str(SIZE), "--dtype", "float16", "--batch-size", "256", "--output", str(output)]

    def done() -> float:
        return grown.stat().st_size / (2 * DIM * count) if grown.exists() else float(output.exists())

    embed = ["wscl_embed", "embed", "--data", str(folder / "images.parquet"), *MODEL, *options]
    embedded = watch("embed", embed, done=done, limit=limit)
    return [embedded, watch_search("search", folder, output, limit)]


def watch_rows(folder: Path, count: int, limit: float, lists: int | None) -> list[Watched]:
    """A store of rows written, then an index and searches."""
    make_images(folder, 1)
    output = folder / "rows.h5"
    stored = watch("store", ["benchmarks.load", "store", str(output), "--count", str(count)], limit=limit)
    exact = watch_search("search, exact", folder, output, limit)
    fewer = ["benchmarks.load", "index", str(output), "--lists", str(lists)]
    index = watch("index", fewer if lists else ["wscl_embed", "index", str(output), *MODEL], limit=limit)
    return [stored, exact, index, watch_search("search, index", folder, output, limit)]


def watch_search(name: str, folder: Path, output: Path, limit: float) -> Watched:
    """One `search` by image, which loads the encoder, too."""
    search = ["wscl_embed", "search", str(output), "--image", str(folder / "query.jpg"), *MODEL, "--json"]
    return watch(name, search, every=0.2, limit=limit)


def print_table(runs: Sequence[Watched], count: int) -> None:
    """A line a command; then what `index` said."""
    print("| command | time | rows/s | MiB at 10 % | at 50 % | at 95 % | peak | with mapped files |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for run in runs:
        at = " | ".join(f"{run.at(share).own:,.0f}" for share in (0.1, 0.5, 0.95))
        speed = f"{count / run.seconds:,.0f}" if "search" not in run.name else ""
        print(f"| {run.name} | {run.seconds:.1f} s | {speed} | {at} | {run.peak.own:,.0f} | {run.most_mapped:,.0f} |")
    print("\n".join(run.output for run in runs if run.name == "index"))


def draw(runs: Sequence[Watched], path: Path, title: str) -> None:
    """A panel a command: its memory over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * len(runs), 3.0), dpi=130, layout="constrained")
    figure.suptitle(title, color=INK, fontsize=11)
    panels = figure.subplots(1, len(runs), sharey=True, squeeze=False)[0]
    for panel, run in zip(panels, runs, strict=True):
        seconds = [sample.seconds for sample in run.samples]
        panel.fill_between(seconds, [one.whole for one in run.samples], color=MAPPED, linewidth=0)
        panel.plot(seconds, [one.own for one in run.samples], color=LINE, linewidth=1.4)
        panel.set_title(run.name, color=FAINT, fontsize=10)
        panel.set_xlabel("seconds", color=FAINT)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(0, 1.05 * max(run.most_mapped for run in runs))
    panels[0].set_ylabel("MiB (pale: with mapped files)", color=FAINT)
    figure.savefig(path)


def main() -> None:
    """Run, print the table, draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["images", "rows", "store", "index"], help="store, index: what `rows` starts")
    parser.add_argument("file", nargs="?", type=Path, help="of store and index")
    parser.add_argument("--lists", type=int, help="inverted lists of the index [as many as `index` makes]")
    parser.add_argument("--count", type=int, help="of images or rows")
    parser.add_argument("--folder", type=Path, help="where to put the temporary folder [the system's]")
    parser.add_argument("--picture", type=Path, help="the PNG [docs/pictures/load-WHAT.png]")
    parser.add_argument("--limit", type=float, default=3600, help="seconds a command may take [%(default)s]")
    options = parser.parse_args()
    count = options.count or COUNTS["images" if options.what == "images" else "rows"]
    if options.what == "store":
        return write_rows(options.file, count)
    if options.what == "index":
        return build_index(options.file, options.lists)
    picture = options.picture or Path(__file__).parents[1] / "docs" / "pictures" / f"load-{options.what}.png"
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="load-") as name:
        os.environ.update({"HF_HOME": f"{name}/hf", "WSCL_EMBED_CACHE": f"{name}/cache", "HF_HUB_OFFLINE": "1"})
        if options.what == "images":
            runs = watch_images(Path(name), count, options.limit)
        else:
            runs = watch_rows(Path(name), count, options.limit, options.lists)
    print(f"{count:,} {options.what}; {os.cpu_count()} cores, load average at the end {os.getloadavg()[0]:.1f}\n")
    print_table(runs, count)
    picture.parent.mkdir(parents=True, exist_ok=True)
    draw(runs, picture, f"{count:,} {options.what}")
    return None


if __name__ == "__main__":
    main()
