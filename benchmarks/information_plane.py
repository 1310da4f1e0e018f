"""The paper's synthetic study: clusters made from the labels with known I(Z;T) and H(Z|T), and what they retrieve.

    python -m benchmarks.information_plane --data photos/ --plot docs/information_plane.png

As in Tsai et al. (ICLR 2022, arXiv 2202.06670): classes are merged (I(Z;T) falls, H(Z|T) stays 0), split at random
(H(Z|T) rises, I(Z;T) stays H(T)), or the labels of a share of the images are permuted (one falls, the other rises).
Trained like everything in `benchmarks.paper`, scored on the validation split.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.paper.methods import train
from benchmarks.paper.setting import Setting, open_setting
from benchmarks.paper.tables import cells, markdown
from wscl_embed.clusters import Clusters
from wscl_embed.diagnostics import information_plane
from wscl_embed.diagnostics.plot import FAINT, load_matplotlib
from wscl_embed.files import atomic_path

Labels = NDArray[np.int64]
Make = Callable[[Labels, np.random.Generator], Labels]


def merged(groups: int) -> Make:
    """Each class into one of ``groups``, at random, none of them empty."""

    def make(labels: Labels, rng: np.random.Generator) -> Labels:
        classes = int(labels.max()) + 1
        return rng.permutation(np.arange(classes) % groups)[labels]

    return make


def split(parts: int) -> Make:
    """Each class into ``parts``, image by image at random."""
    return lambda labels, rng: labels * parts + rng.integers(parts, size=len(labels))


def permuted(share: float) -> Make:
    """The labels of a share of the images go to each other."""

    def make(labels: Labels, rng: np.random.Generator) -> Labels:
        moved = rng.choice(len(labels), round(share * len(labels)), replace=False)
        changed = labels.copy()
        changed[np.sort(moved)] = labels[moved]
        return changed

    return make


STUDY: dict[str, dict[str, Make]] = {
    "merged": {f"into {groups}": merged(groups) for groups in (16, 8, 4, 2)},
    "split": {f"in {parts}": split(parts) for parts in (2, 4, 16, 64)},
    "permuted": {f"{share:.0%}": permuted(share) for share in (0.1, 0.25, 0.5, 0.75)},
}


@dataclass(frozen=True)
class Point:
    """One clustering: where it is, in bits, and the means of each seed."""

    family: str
    name: str
    mutual_information: float
    conditional_entropy: float
    means: list[dict[str, float]]


def measure(setting: Setting, family: str, name: str, make: Make | None, seeds: int) -> Point:
    """Train on it with several seeds; None is no clusters at all."""
    labels = [setting.labels[row] for row in setting.rows["train"]]
    codes = np.unique([str(label) for label in labels], return_inverse=True)[1].astype(np.int64)
    means, planes = [], []
    for seed in range(seeds):
        made = np.full(len(codes), -1) if make is None else make(codes, np.random.default_rng(seed))
        clusters = Clusters.from_labels(list(setting.train["id"]), made, name="made")
        planes.append(information_plane(clusters, labels))
        means.append(setting.score(train(setting, clusters, seed), "val").means())
    known = [
        float(np.mean([getattr(p, bits) for p in planes])) for bits in ("mutual_information", "conditional_entropy")
    ]
    return Point(family, name, *known, means)


def draw(points: Sequence[Point], frozen: dict[str, float], path: Path) -> None:
    """Both metrics over the plane, one panel each."""
    figure = load_matplotlib().Figure(figsize=(11, 4.6), dpi=140, layout="constrained")
    for axes, metric, title in zip(figure.subplots(1, 2), ("recall@1", "map@r"), ("Recall@1", "mAP@R"), strict=True):
        values = [float(np.mean([one[metric] for one in point.means])) for point in points]
        xs, ys = zip(*((point.mutual_information, point.conditional_entropy) for point in points), strict=True)
        shown = axes.scatter(xs, ys, c=values, s=110, cmap="viridis", edgecolors="black", linewidths=0.5, zorder=3)
        for point, value, x, y in zip(points, values, xs, ys, strict=True):
            text = f"{point.family} {point.name}".strip() + f"\n{value:.3f}"
            if point.family == "merged":  # all on the axis, side by side
                text = text.replace(" ", "\n", 1)
                place = {"xytext": (0, -9), "ha": "center", "va": "top"}
            else:
                left = x > 0.75 * max(xs)
                place = {"xytext": (-9 if left else 9, 0), "ha": "right" if left else "left", "va": "center"}
            axes.annotate(text, (x, y), textcoords="offset points", fontsize=7, **place)
        axes.set(
            xlabel="I(Z;T) in bits", ylabel="H(Z|T) in bits", xlim=(0, 1.08 * max(xs)), ylim=(-1.4, 1.06 * max(ys))
        )
        axes.set_title(f"{title} (frozen encoder {frozen[metric]:.3f})", fontsize=10, color=FAINT, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
        figure.colorbar(shown, ax=axes)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")


def main() -> None:
    """Print a row of the table for each clustering, then draw them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--plot", type=Path, default=Path("runs/information_plane.png"))
    options = parser.parse_args()
    setting = open_setting(options.data, options.label_column, options.image_size)
    ends: list[tuple[str, str, Make | None]] = [("SupCon", "", lambda labels, _: labels), ("SimCLR", "", None)]
    study = [(family, name, make) for family, makes in STUDY.items() for name, make in makes.items()]
    print(markdown(["clusters", "I(Z;T)", "H(Z\\|T)", "Recall@1", "mAP@R", "kNN", "linear probe"], []))
    points = []
    for family, name, make in [*ends, *study]:
        point = measure(setting, family, name, make, options.seeds)
        bits = [f"{point.mutual_information:.2f}", f"{point.conditional_entropy:.2f}"]
        print(f"| {' | '.join([f'{family} {name}'.strip(), *bits, *cells(point.means)])} |", flush=True)
        points.append(point)
    options.plot.parent.mkdir(parents=True, exist_ok=True)
    draw(points, setting.score(None, "val").means(), options.plot)


if __name__ == "__main__":
    main()
