"""Image-to-image retrieval: Recall@k and mAP@R, before against after, with a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError

RECALL_AT = (1, 5, 10)
METRICS = (*(f"recall@{k}" for k in RECALL_AT), "map@r")
VERDICTS = {
    "better": "better: the tuned embedding retrieves better than the frozen one.",
    "no difference": "no difference: the change is within what chance would give on this many queries.",
    "mixed": "mixed: one of Recall@1 and mAP@R is better, the other worse; decide by the one you need.",
    "worse": "worse: do not ship this one. The signal does not agree with the labels; try another adapter.",
}


@dataclass(frozen=True)
class Retrieval:
    """Per-query results of leave-one-out retrieval.

    ============== ==========================================================================================
    ``per_query``  metric name -> (q,) float64
    ``n_skipped``  images whose label no other image has: nothing to find, so they are no queries
    ============== ==========================================================================================
    """

    per_query: dict[str, NDArray[np.float64]]
    n_skipped: int

    @property
    def n_queries(self) -> int:
        """q, how many images were queries."""
        return len(self.per_query["map@r"])

    def means(self) -> dict[str, float]:
        """Metric name -> mean over the queries."""
        return {name: float(values.mean()) for name, values in self.per_query.items()}


def evaluate_retrieval(embeddings: NDArray[np.floating], labels: Sequence[object], *, chunk: int = 256) -> Retrieval:
    """Query with each image among all the others.

    Recall@k is the share of queries with an image of the same label among their k nearest; mAP@R is the mean average
    precision over the R nearest, R being the number of other images of the query's label (Musgrave et al., "A Metric
    Learning Reality Check", ECCV 2020).

    Args:
        embeddings: (n, D); compared by cosine.
        labels: n labels; an image whose label is None is neither query nor result.
        chunk: queries at a time; memory is O(chunk n).

    Raises:
        InputError: no label occurs twice.

    >>> result = evaluate_retrieval(np.array([[1, 0], [1, 0.1], [0, 1]]), ["a", "a", "b"])
    >>> result.means()["recall@1"], result.n_queries, result.n_skipped
    (1.0, 2, 1)
    """
    present = np.flatnonzero([label is not None for label in labels])
    names = np.asarray([str(labels[int(row)]) for row in present], dtype=object)
    _, codes = np.unique(names, return_inverse=True)
    counts = np.bincount(codes) if len(codes) else np.zeros(0, dtype=np.int64)
    relevant = counts[codes] - 1  # R of each image
    queries = np.flatnonzero(relevant > 0)
    if not len(queries):
        raise InputError(f"no label occurs twice among the {len(labels)} images to evaluate: nothing can be retrieved.")
    unit = normalise(np.asarray(embeddings, dtype=np.float32)[present])
    depth = min(len(unit) - 1, max(int(relevant.max()), max(RECALL_AT)))
    parts = []
    for start in range(0, len(queries), chunk):
        rows = queries[start : start + chunk]
        nearest = _nearest(unit, rows, depth)
        parts.append(_score(codes[nearest] == codes[rows, None], relevant[rows]))
    merged = {name: np.concatenate([part[name] for part in parts]) for name in METRICS}
    return Retrieval(merged, len(present) - len(queries))


def normalise(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of (n, D) at unit length; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _nearest(unit: NDArray[np.float32], rows: NDArray[np.int64], depth: int) -> NDArray[np.int64]:
    """(q, depth) row numbers by falling similarity, the query itself left out; equals in row order."""
    similarity = unit[rows] @ unit.T
    similarity[np.arange(len(rows)), rows] = -np.inf
    return np.argsort(-similarity, axis=1, kind="stable")[:, :depth]


def _score(hits: NDArray[np.bool_], relevant: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Metrics of each query from its (q, depth) hits and its R."""
    ranks = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(axis=1) / ranks
    within_r = ranks <= relevant[:, None]
    scores = {f"recall@{k}": np.asarray(hits[:, :k].any(axis=1), dtype=np.float64) for k in RECALL_AT}
    scores["map@r"] = np.asarray((precision * hits * within_r).sum(axis=1) / relevant)
    return scores


@dataclass(frozen=True)
class Change:
    """The mean of after - before over the same queries, with its 95 % paired bootstrap interval."""

    mean: float
    low: float
    high: float

    @property
    def direction(self) -> int:
        """1 or -1 when the interval excludes zero, else 0."""
        return int(self.low > 0) - int(self.high < 0)


def compare(before: Retrieval, after: Retrieval, *, resamples: int = 1000, seed: int = 0) -> dict[str, Change]:
    """Metric name -> `Change`, from paired bootstrap resamples of the queries (Efron and Tibshirani, 1993)."""
    rng = np.random.default_rng(seed)
    draws = rng.integers(before.n_queries, size=(resamples, before.n_queries))
    changes = {}
    for name in METRICS:
        difference = after.per_query[name] - before.per_query[name]
        low, high = np.quantile(difference[draws].mean(axis=1), [0.025, 0.975])
        changes[name] = Change(float(difference.mean()), float(low), float(high))
    return changes


def verdict(changes: dict[str, Change]) -> str:
    """A key of `VERDICTS`, decided by Recall@1 and mAP@R.

    >>> verdict({"recall@1": Change(0.02, 0.01, 0.03), "map@r": Change(0.0, -0.01, 0.01)})
    'better'
    """
    directions = {changes["recall@1"].direction, changes["map@r"].direction}
    if directions == {1, -1}:
        return "mixed"
    if -1 in directions:
        return "worse"
    return "better" if 1 in directions else "no difference"
