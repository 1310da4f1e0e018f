"""Results to tables: means with intervals, and the share of a gap that a signal closes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

COLUMNS = {"recall@1": "Recall@1", "map@r": "mAP@R", "knn": "kNN", "linear_probe": "linear probe"}
FLOOR, CEILING = "SimCLR", "SupCon"

Line = dict[str, Any]
Means = Mapping[str, float]


def read_results(path: Path) -> list[Line]:
    """The lines of an earlier, perhaps interrupted, call."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def interval(values: Sequence[float]) -> float:
    """Half the 95 % interval of the mean, by Student's t; 0 of a single value.

    >>> round(interval([1.0, 2.0, 3.0]), 3)
    2.484
    """
    if len(values) < 2:
        return 0.0
    return float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))


def retrieval_table(frozen: Means, lines: Sequence[Line]) -> str:
    """A row a method, tuned and guarded."""
    header = ["method", *COLUMNS.values()]
    rows = [["(frozen encoder)", *(f"{frozen[metric]:.3f}" for metric in COLUMNS)]]
    for name, of_method in by_method(lines).items():
        rows.append([name, *cells([line["tuned"] for line in of_method])])
        if "guarded" in of_method[0]:
            alphas = "/".join(f"{line['alpha']:g}" for line in of_method)
            rows.append([f"- guarded, alpha {alphas}", *cells([line["guarded"] for line in of_method])])
    return markdown(header, rows)


def cells(means: Sequence[Means]) -> list[str]:
    """Mean and half an interval of each metric; of a single seed its value."""
    texts = []
    for metric in COLUMNS:
        values = [one[metric] for one in means]
        half = f" ± {interval(values):.3f}" if len(values) > 1 else ""
        texts.append(f"{np.mean(values):.3f}{half}")
    return texts


def shares_table(frozen: Means, lines: Sequence[Line]) -> str:
    """The share of the gap from SimCLR, and from the frozen encoder, to SupCon that each method closes.

    Of the means over the seeds; nothing where the ends are missing.
    """
    means = {
        (name, kind): {metric: float(np.mean([line[kind][metric] for line in of_method])) for metric in COLUMNS}
        for name, of_method in by_method(lines).items()
        for kind in ("tuned", "guarded")
        if kind in of_method[0]
    }
    floor, ceiling = means.get((FLOOR, "tuned")), means.get((CEILING, "tuned"))
    if floor is None or ceiling is None:
        return f"No shares: {FLOOR} and {CEILING} are needed."
    rows = []
    for (name, kind), found in means.items():
        if name in (FLOOR, CEILING):
            continue
        shares = [
            (found[metric] - end[metric]) / (ceiling[metric] - end[metric])
            for end in (floor, frozen)
            for metric in ("recall@1", "map@r")
        ]
        rows.append([name if kind == "tuned" else f"- {kind}", *(f"{100 * share:.0f} %" for share in shares)])
    header = ["method", "SimCLR to SupCon, Recall@1", "mAP@R", "frozen to SupCon, Recall@1", "mAP@R"]
    return markdown(header, rows)


def by_method(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """The lines of each method, the methods in their order."""
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line["method"], []).append(line)
    return found


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
