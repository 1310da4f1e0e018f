"""I(Z;T) from the labels of a few images against the count over all of them, and how often the interval holds it.

    python -m benchmarks.few_labels                    # the emoji of the demo
    python -m benchmarks.few_labels --data photos/ --split train --adapter captions --label-column category

Labels of n images drawn at random are kept, the others hidden, again and again. Beside the estimate of
`wscl_embed.diagnostics.information_plane` stand the count over the labelled images alone and its corrections by Miller
and Madow (Miller, 1955) and by Chao and Shen (Environmental and Ecological Statistics, 2003).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from math import log

import numpy as np
from numpy.typing import NDArray

from wscl_embed.clusters import Clusters
from wscl_embed.dataset import load_dataset, rows_of_split
from wscl_embed.demo import EMOJI
from wscl_embed.diagnostics import information_plane
from wscl_embed.diagnostics.information import partition
from wscl_embed.label_codes import label_codes
from wscl_embed.registry import make_adapter

Counts = NDArray[np.int64]


def plug_in(counts: Counts) -> float:
    """Bits, by shares."""
    shares = counts / counts.sum()
    return float(-(shares * np.log2(shares)).sum())


def miller_madow(counts: Counts) -> float:
    """Bits: half a degree of freedom more an image."""
    return plug_in(counts) + (len(counts) - 1) / (2 * int(counts.sum()) * log(2))


def chao_shen(counts: Counts) -> float:
    """Bits: shares shrunk by the coverage, and each value weighted by its chance to have been seen."""
    n, once = int(counts.sum()), int((counts == 1).sum())
    shares = counts / n * (1 - min(once, n - 1) / n)
    return float(-(shares * np.log2(shares) / (1 - (1 - shares) ** n)).sum())


def information(z: NDArray[np.int64], t: NDArray[np.int64], entropy: Callable[[Counts], float]) -> float:
    """I(Z;T) = H(Z) + H(T) - H(Z,T), each by ``entropy``."""
    pairs = np.stack([z, t])
    parts = [np.unique(values, axis=-1, return_counts=True)[1] for values in (z, t, pairs)]
    return entropy(parts[0]) + entropy(parts[1]) - entropy(parts[2])


def trial(clusters: Clusters, labels: list[object], n: int, seed: int) -> list[float]:
    """What counting and its corrections say, then the estimate and its interval."""
    kept = np.random.default_rng(1000 + seed).choice(len(labels), n, replace=False)
    z, t = partition(clusters)[kept], label_codes(labels)[kept]
    known: list[object] = [None] * len(labels)
    for row in kept.tolist():
        known[row] = labels[row]
    plane = information_plane(clusters, known, seed=seed)
    interval = plane.mutual_information_interval
    counted = [information(z, t, entropy) for entropy in (plug_in, miller_madow, chao_shen)]
    return [*counted, plane.mutual_information, interval.low, interval.high]


def main() -> None:
    """Print a row of a table for each adapter and number of labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=EMOJI)
    parser.add_argument("--split")
    parser.add_argument("--adapter", action="append")
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--labelled", type=int, nargs="+", default=[100, 300])
    parser.add_argument("--repeats", type=int, default=25)
    options = parser.parse_args()
    dataset = load_dataset(options.data)
    if options.split:
        dataset = rows_of_split(dataset, options.split)
    labels = list(dataset[options.label_column])
    print("| clusters | K | labels of | truth | counted | Miller-Madow | Chao-Shen | estimate | held | width |")
    print("| --- " * 10 + "|")
    for spec in options.adapter or ["hashtags", "captions"]:
        clusters = make_adapter(spec).assign(dataset)
        truth = information_plane(clusters, labels).mutual_information
        for n in options.labelled:
            trials = np.array([trial(clusters, labels, n, seed) for seed in range(options.repeats)])
            held = int(((trials[:, 4] <= truth) & (truth <= trials[:, 5])).sum())
            means = " | ".join(f"{value:.2f}" for value in trials[:, :4].mean(axis=0))
            width = (trials[:, 5] - trials[:, 4]).mean()
            row = f"| {spec} | {clusters.n_clusters} | {n} of {len(labels)} | {truth:.2f} | {means} "
            print(f"{row}| {held} of {options.repeats} | {width:.2f} |", flush=True)


if __name__ == "__main__":
    main()
