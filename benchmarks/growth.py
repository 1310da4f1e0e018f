"""How time and memory grow with the number of rows: clusters, an epoch's sampling, the loss, embedding, search.

    python -m benchmarks.growth                                          # to 100,000 rows
    python -m benchmarks.growth --most 1000000 --tags harrison_tags/     # a million, and tags
    python -m benchmarks.growth --only "search, exact" --only "the loss"

Each size has a process of its own (`benchmarks.turns`). Time is that of the processors, which other work on the machine
disturbs less, with that of processes it starts; memory is what the process itself grew by beyond its input. A training
step costs its batch, whatever the number of rows: so an epoch's batches are drawn over n rows, and the loss is taken at
batches of n rows. The slope is that of a line through the points from the largest size down to a tenth of it, both axes
logarithmic: 1 is proportional to n, 2 to its square. Results are appended to ``--results`` as they come, and what is
there is not made again.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.load import INK, LINE, MODEL, SIZE, make_images
from benchmarks.paper.tables import markdown
from benchmarks.search import draw
from benchmarks.turns import alone, machine

DIM = 64
SIZES = [1_000, 10_000, 100_000, 1_000_000]
Job = Callable[[], Any]


@dataclass(frozen=True)
class Curve:
    """What is measured over the sizes up to ``most``: ``prepare`` gives the job for one of them."""

    prepare: Callable[[int], Job]
    most: int = 10**9


def done(job: Callable[[], object]) -> Job:
    """The job without its result, which need not go from process to process, and without what it says."""

    def run() -> None:
        with redirect_stderr(io.StringIO()):
            job()

    return run


def tags(folder: Path, n: int) -> Job:
    """Hashtags of n posts to `Clusters`."""
    import datasets

    from benchmarks.hashtags import draw as draw_posts
    from benchmarks.hashtags import read_harrison
    from wscl_adapters.hashtags import HashtagsAdapter

    posts, _ = draw_posts(read_harrison(folder), n)
    dataset = datasets.Dataset.from_dict({"id": [str(row) for row in range(n)], "tags": posts})
    HashtagsAdapter().assign(dataset.select(range(100)))  # imports
    return done(lambda: HashtagsAdapter().assign(dataset))


def kmeans(clusters: int | None, n: int) -> Job:
    """k-means of n x `DIM` rows, k as for so many rows or given."""
    from wscl_embed.clusterers import default_n_clusters, make_clustering

    rows = draw(n, DIM)
    make_clustering(rows[:100], "kmeans", n_clusters=2)
    return done(lambda: make_clustering(rows, "kmeans", n_clusters=clusters or default_n_clusters(n)))


def sampling(n: int) -> Job:
    """The batches of an epoch over n rows in 5 sqrt(n) clusters."""
    from scipy import sparse

    from wscl_embed.clusterers import default_n_clusters
    from wscl_embed.sampling import ClusterBatchSampler

    k = default_n_clusters(n)
    labels = np.random.default_rng(0).integers(0, k, n)
    membership = sparse.csr_array((np.ones(n, np.float32), labels, np.arange(n + 1)), shape=(n, k))
    return done(lambda: [len(batch) for batch in ClusterBatchSampler(membership, 256)])


def loss(n: int) -> Job:
    """Cl-InfoNCE forward and backward over a batch of n / 2 images of two views, 128 dimensions."""
    import torch

    from wscl_embed.loss import cl_infonce

    z = torch.nn.functional.normalize(torch.randn(n // 2, 2, 128), dim=-1).requires_grad_()
    labels = torch.arange(n // 2) // 4
    cl_infonce(z[:8], labels[:8], 0.1).backward()  # type: ignore[no-untyped-call]
    return done(lambda: cl_infonce(z, labels, 0.1).backward())  # type: ignore[no-untyped-call]


def embedding(n: int) -> Job:
    """`embed` of n JPEGs of 48 px, timm's test_convnext at 32 px."""
    from wscl_embed import embed

    folder = tempfile.mkdtemp(prefix="growth-")
    make_images(Path(folder), n)
    model: dict[str, Any] = {"model": MODEL[1], "pretrained": MODEL[3], "image_size": SIZE, "batch_size": 256}
    data, first = f"{folder}/images.parquet", f"{folder}/first"
    Path(first).mkdir()
    make_images(Path(first), 300)
    embed(f"{first}/images.parquet", output=f"{first}/images.h5", **model)
    return done(lambda: embed(data, output=f"{folder}/images.h5", **model))


def stored(n: int) -> Any:
    """An embedding file of n x `DIM` rows, open; and queries."""
    from wscl_embed import EmbeddingStore

    rows = draw(n + 100, DIM)
    path = Path(tempfile.mkdtemp(prefix="growth-")) / "rows.h5"
    with EmbeddingStore.create(path, DIM) as writer:
        writer.append([str(row) for row in range(n)], rows[:n])
    return EmbeddingStore(path), rows[n:]


def exact_search(n: int) -> Job:
    """100 queries, one at a time, among n rows."""
    from wscl_embed.store.exact import nearest

    store, queries = stored(n)
    nearest(queries[:1], store.embeddings, 10)
    return done(lambda: [nearest(query[None], store.embeddings, 10) for query in queries])


def building(n: int) -> Job:
    """The index `index` builds of n rows, with the measuring of its recall."""
    from wscl_embed.searching.building import build

    store, _ = stored(n)
    return done(lambda: build(store, "hnsw", 0.95))


def index_search(n: int) -> Job:
    """100 queries, one at a time, through an index of n rows with a recall@10 of 0.95."""
    from wscl_embed.searching.building import build

    store, queries = stored(n)
    index, _ = build(store, "hnsw", 0.95)
    return done(lambda: [index.search(query[None], 10) for query in queries])


def curves(folder: Path | None) -> dict[str, Curve]:
    """All that is measured; tags where there are some to draw from."""
    return {
        **({} if folder is None else {"tags to clusters": Curve(partial(tags, folder))}),
        "k-means, k = 5 sqrt(n)": Curve(partial(kmeans, None)),
        "k-means, k = 200": Curve(partial(kmeans, 200)),
        "batches of an epoch": Curve(sampling),
        "the loss, a batch of n rows": Curve(loss, most=100_000),
        "embed": Curve(embedding),
        "search, exact, 100 queries": Curve(exact_search),
        "index, built and measured": Curve(building),
        "search, index, 100 queries": Curve(index_search, most=100_000),
    }


def slope(points: dict[int, float]) -> float:
    """Of a line through the points from the largest size down to a tenth of it, on logarithmic axes.

    >>> round(slope({10: 999.0, 1_000: 1.0, 3_000: 9.0, 10_000: 100.0}), 2)
    2.0
    """
    sizes = [n for n in points if n >= max(points) / 10]
    return float(np.polyfit(np.log(sizes), np.log([points[n] for n in sizes]), 1)[0])


def table(lines: Sequence[dict[str, Any]]) -> str:
    """Seconds and memory of each curve at each size, and the slope of the seconds."""
    sizes = sorted({line["rows"] for line in lines})
    rows = []
    for name in dict.fromkeys(line["what"] for line in lines):
        found = {line["rows"]: line for line in lines if line["what"] == name}
        cells = [
            f"{found[n]['seconds']:.3g} s, {max(0, found[n]['megabytes']):.0f} MB" if n in found else "" for n in sizes
        ]
        steep = f"{slope({n: line['seconds'] for n, line in found.items()}):.2f}" if len(found) > 1 else ""
        rows.append([name, *cells, steep])
    return markdown(["processor time, memory", *(f"{n:,}" for n in sizes), "slope of the time"], rows)


def picture(lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Time and memory over the rows, both axes logarithmic."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.6), dpi=130, layout="constrained")
    panels = figure.subplots(1, 2)
    names = list(dict.fromkeys(line["what"] for line in lines))
    for number, name in enumerate(names):
        found = sorted((line["rows"], line["seconds"], line["megabytes"]) for line in lines if line["what"] == name)
        sizes, seconds, megabytes = zip(*found, strict=True)
        style: dict[str, Any] = {"marker": "o", "markersize": 3.5, "linewidth": 1.4, "color": f"C{number}"}
        panels[0].plot(sizes, seconds, label=name, **style)
        panels[1].plot(sizes, np.maximum(megabytes, 1), **style)
    low, high = min(line["rows"] for line in lines), max(line["rows"] for line in lines)
    for power, dashes in ((1, ":"), (2, "--")):
        reach = np.array([low, min(high, low * 10 ** (4 / power))], dtype=float)
        panels[0].plot(reach, 2e-3 * (reach / low) ** power, dashes, color=LINE, label=f"n{'²' if power == 2 else ''}")
    for panel, title in zip(panels, ("seconds of processor time", "MB beyond the input (at least 1)"), strict=True):
        panel.set(xscale="log", yscale="log", xlabel="rows")
        panel.set_title(title, color=INK, fontsize=10, loc="left")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(alpha=0.2)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Measure what is missing, then print the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=100_000)
    parser.add_argument("--tags", type=Path)
    parser.add_argument("--only", action="append", help="a part of a name")
    parser.add_argument("--results", type=Path, default=Path("runs/growth.jsonl"))
    parser.add_argument("--picture", type=Path, default=Path(__file__).parents[1] / "docs" / "pictures" / "growth.png")
    options = parser.parse_args()
    options.results.parent.mkdir(parents=True, exist_ok=True)
    known = options.results.read_text(encoding="utf-8").splitlines() if options.results.is_file() else []
    lines = [json.loads(line) for line in known]
    there = {(line["what"], line["rows"]) for line in lines}
    with options.results.open("a", encoding="utf-8") as results, tempfile.TemporaryDirectory(prefix="growth-") as own:
        os.environ["TMPDIR"] = own  # of the processes, too
        for name, curve in curves(options.tags).items():
            if options.only and not any(part in name for part in options.only):
                continue
            for n in SIZES:
                if n > min(options.most, curve.most) or (name, n) in there:
                    continue
                one = alone(partial(curve.prepare, n))
                line = {"what": name, "rows": n, "seconds": one.cpu_seconds, "megabytes": one.megabytes}
                lines.append(line)
                print(json.dumps(line), file=results, flush=True)
    print(f"{machine()}\n\n{table(lines)}")
    picture(lines, options.picture)


if __name__ == "__main__":
    main()
