"""Weak signals between SimCLR and SupCon, and before and after the frozen encoder: same encoder, steps, batches.

    python -m benchmarks.paper --data photos/ --split val            # to tune on
    python -m benchmarks.paper --data photos/ --split test           # read once a method
    python -m benchmarks.paper --data photos/ --split val --only captions --seeds 1
    python -m benchmarks.paper --data photos/ --split val --ablations   # numbers of clusters and of attributes
    python -m benchmarks.paper --data photos/ --split held-out --seeds 2   # temperatures, denominators, batches, ...

The data need the splits train, val and test, and the columns tags, captions, attributes and the label. Each method is
trained with several seeds (of clustering, batches and initialisation; the augmented views are the same), and the mean
of each metric gets the 95 % interval of Student's t over them. For the test split, the guard (``--wise-ft auto`` of
`fit`) chooses on val how far to go from the frozen to the tuned map; both are in the table. Results are appended to
``--results`` as they come, and what is there is not made again. ``held-out`` trains on three fifths of the training
images and scores on the others and the validation images, to compare variants; the test split has no part in it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.paper.guarding import choose_alpha
from benchmarks.paper.methods import ABLATIONS, METHODS, REMEDIES
from benchmarks.paper.setting import Setting, hold_out, open_setting
from benchmarks.paper.tables import read_results, retrieval_table, shares_table


def measure(setting: Setting, name: str, seed: int, split: str) -> dict[str, Any]:
    """Train once and score: one line of the results."""
    start = time.perf_counter()
    weight = {**METHODS, **ABLATIONS, **REMEDIES}[name](setting, seed)
    seconds = time.perf_counter() - start
    line = {"method": name, "seed": seed, "seconds": round(seconds, 1), "tuned": setting.score(weight, split).means()}
    if split == "test":
        alpha = choose_alpha(setting, weight)
        mixed = torch.lerp(torch.eye(len(weight)), weight, alpha)
        line |= {"alpha": alpha, "guarded": setting.score(mixed, split).means()}
    return line


def main() -> None:
    """Make what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--label-column", default="label")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--split", choices=["val", "test", "held-out"], default="val")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=[*METHODS, *ABLATIONS, *REMEDIES], metavar="METHOD")
    parser.add_argument("--ablations", action="store_true", help="those methods instead")
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    path = options.results or Path(f"runs/paper-{options.split}.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    setting = open_setting(options.data, options.label_column, options.image_size)
    if options.split == "held-out":
        setting = hold_out(setting)
    lines = read_results(path)
    done = {(line["method"], line["seed"]) for line in lines}
    methods = ABLATIONS if options.ablations else REMEDIES if options.split == "held-out" else METHODS
    names = options.only or list(methods)
    wanted = [(name, seed) for seed in range(options.seeds) for name in names]
    with path.open("a", encoding="utf-8") as results:
        for name, seed in wanted:
            if (name, seed) in done:
                continue
            lines.append(measure(setting, name, seed, options.split))
            print(json.dumps(lines[-1]), file=results, flush=True)
    frozen = setting.score(None, options.split).means()
    print(retrieval_table(frozen, lines))
    print()
    print(shares_table(frozen, lines))


if __name__ == "__main__":
    main()
