"""Whether a change is more than chance: paired bootstrap intervals, and a verdict in words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError

DECISIVE = ("recall@1", "map@r")
DECISIVE_BY_TEXT = ("text_to_image_recall@10",)  # of 1, 5 and 10 the one that varies least
RESAMPLES = 1000
BLOCK = 2**22  # draws at a time
PerQuery = Mapping[str, NDArray[np.float64]]
VERDICTS = {
    "better": "better: the tuned embedding retrieves better than the frozen one.",
    "no difference": "no difference: the change is within what chance would give on this many queries.",
    "mixed": "mixed: one of Recall@1 and mAP@R is better, the other worse; decide by the one you need.",
    "worse": "worse: do not ship this one. The signal does not agree with what is searched for; try another adapter.",
}


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


def compare(before: PerQuery, after: PerQuery) -> dict[str, Change]:
    """Metric name -> `Change`, from paired bootstrap resamples of the queries (Efron and Tibshirani, 1993).

    Args:
        before: metric name -> (q,), one value a query; metrics may have queries of their own. What
            `evaluate_retrieval` gives as ``per_query``, not its ``means()``.
        after: the same metrics over the same queries.

    Raises:
        InputError: a metric that is not one finite number for each of the same queries in both.

    >>> compare({"recall@1": np.array([0.0, 1.0])}, {"recall@1": np.array([0.0, 1.0])})["recall@1"]
    Change(mean=0.0, low=0.0, high=0.0)
    """
    for name, values in before.items():
        one, other = np.asarray(values), np.asarray(after.get(name))
        if one.ndim != 1 or not one.size or one.shape != other.shape or not np.isfinite(one + other).all():
            raise InputError(
                f"compare: {name} must be one finite number for each of the same queries, before and after; "
                f"got shapes {one.shape} and {other.shape}."
            )
    resampled = resample_changes(before, after)
    return {name: change_of(after[name] - before[name], means) for name, means in resampled.items()}


def change_of(difference: NDArray[np.float64], resampled: NDArray[np.float64]) -> Change:
    """The change whose differences query by query, and whose means over resamples of the queries, are given."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Change(float(difference.mean()), float(low), float(high))


def resample_changes(before: PerQuery, after: PerQuery) -> dict[str, NDArray[np.float64]]:
    """Metric name -> (`RESAMPLES`,) means of after - before over queries drawn with replacement.

    Metrics over equally many queries are over the same ones, and are resampled together.
    """
    groups: dict[int, list[str]] = defaultdict(list)
    for name, values in before.items():
        groups[len(values)].append(name)
    found: dict[str, NDArray[np.float64]] = {}
    for names in groups.values():
        means = _resampled_means(np.stack([after[name] - before[name] for name in names], axis=1))
        found |= {name: means[:, column] for column, name in enumerate(names)}
    return {name: found[name] for name in before}


def _resampled_means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(`RESAMPLES`, m) means of (q, m) values over q rows drawn with replacement."""
    rng = np.random.default_rng(0)
    n = len(values)
    means = np.empty((RESAMPLES, values.shape[1]))
    step = max(1, BLOCK // n)
    for start in range(0, RESAMPLES, step):
        draws = rng.integers(n, size=(min(step, RESAMPLES - start), n))
        for row, draw in enumerate(draws, start):
            means[row] = np.bincount(draw, minlength=n) @ values / n  # how often each row was drawn
    return means


def verdict(changes: Mapping[str, Change]) -> str:
    """A key of `VERDICTS`, decided by Recall@1 and mAP@R; without labels by text-to-image recall.

    Raises:
        InputError: the changes of those are not among ``changes``.

    >>> verdict({"recall@1": Change(0.02, 0.01, 0.03), "map@r": Change(0.0, -0.01, 0.01)})
    'better'
    """
    deciding = DECISIVE if DECISIVE[0] in changes else DECISIVE_BY_TEXT
    if not changes.keys() >= set(deciding):
        wanted = f"{' and '.join(DECISIVE)}, or {DECISIVE_BY_TEXT[0]}"
        raise InputError(f"verdict: it is decided by {wanted}; got {', '.join(changes) or 'nothing'}.")
    directions = {changes[name].direction for name in deciding}
    if directions >= {1, -1}:
        return "mixed"
    if -1 in directions:
        return "worse"
    return "better" if 1 in directions else "no difference"
