"""A table of attributes to columns: 0/1 indicators, or one-hot categories and scaled numbers; what clusters share."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.adapter import Terms
from wscl_embed.clusterers import Features
from wscl_embed.terms import describing_columns

DENSE_COLUMNS = 512  # wider encodings stay sparse: 200,000 records with 10,000 brands would take 16 GB


@dataclass(frozen=True)
class Indicator:
    """A 0/1 column: which records have a value. A null counts as not having it."""

    rows: NDArray[np.int64]
    """Records of which it is true, ascending."""
    holds: str
    """What is true of them, such as ``gender=Women`` or ``price>20``."""
    otherwise: str | None
    """What is true of the others, where that is as telling (booleans and numbers)."""


def indicators(name: str, values: Sequence[Any]) -> list[Indicator]:
    """The 0/1 columns of one attribute, by the kind of its n values (None where null).

    >>> [indicator.holds for indicator in indicators("colour", ["red", None, "blue"])]
    ['colour=blue', 'colour=red']
    >>> [(indicator.holds, indicator.rows.tolist()) for indicator in indicators("price", [10, 20, 30])]
    [('price>20', [2])]
    """
    known = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in known):
        rows = [row for row, value in enumerate(values) if value]
        return [Indicator(np.array(rows, dtype=np.int64), f"{name}=True", f"{name}=False")]
    if _is_numeric(known):
        middle = statistics.median(known)
        # Where half the values or more are the greatest one, nothing lies over the median.
        strict = max(known) > middle
        rows = [row for row, x in enumerate(values) if x is not None and (x > middle if strict else x >= middle)]
        above, below = (">", "<=") if strict else (">=", "<")
        return [Indicator(np.array(rows, dtype=np.int64), f"{name}{above}{middle:g}", f"{name}{below}{middle:g}")]
    rows_of = defaultdict(list)
    for row, value in enumerate(values):
        if isinstance(value, str):
            rows_of[value].append(row)
            continue
        for item in sorted({str(item) for item in _as_list(value) if not is_null(item)}):
            rows_of[item].append(row)
    return [Indicator(np.array(rows_of[item], dtype=np.int64), f"{name}={item}", None) for item in sorted(rows_of)]


def encode(table: dict[str, list[Any]], n: int) -> Features:
    """(n, 1 + F) float32: a column of ones, one-hot categories, numbers in standard deviations from the median.

    Two different categories are sqrt(2) apart, as are two numbers on average. A null category is a row of zeros, a null
    number the median; the values of a list share one unit of length.
    """
    blocks = [sparse.csr_array(_presence(table, n))]
    for name, values in table.items():
        known = [value for value in values if value is not None]
        if _is_numeric(known):
            middle, spread = statistics.median(known), float(np.std(known)) or 1.0
            column = [0.0 if value is None else (value - middle) / spread for value in values]
            blocks.append(sparse.csr_array(np.array(column, dtype=np.float32)[:, None]))
            continue
        categories = [value if value is None or isinstance(value, list) else str(value) for value in values]
        columns = [indicator.rows for indicator in indicators(name, categories)]
        rows = np.concatenate(columns)
        share = (1 / np.sqrt(np.bincount(rows, minlength=n)[rows])).astype(np.float32)
        positions = np.repeat(np.arange(len(columns)), [len(column) for column in columns])
        blocks.append(sparse.csr_array((share, (rows, positions)), shape=(n, len(columns))))
    encoded = sparse.csr_array(sparse.hstack(blocks, format="csr"))
    return encoded.toarray() if encoded.shape[1] <= DENSE_COLUMNS else encoded


def indicate(kept: Sequence[tuple[str, Indicator]], table: Mapping[str, Sequence[Any]], n: int) -> NDArray[np.float32]:
    """(n, 1 + len(kept)): a column of ones, NaN where all that is ``kept`` is null, and the indicators."""
    indicated = np.zeros((n, len(kept)), dtype=np.float32)
    for column, (_, indicator) in enumerate(kept):
        indicated[indicator.rows, column] = 1
    return np.hstack([_presence({name: table[name] for name, _ in kept}, n), indicated])


def characteristic_values(table: Mapping[str, Sequence[Any]], labels: NDArray[np.int64]) -> Terms:
    """The values that are most characteristic of each cluster 0..K-1 of (n,) ``labels``."""
    found = [indicator for name, values in table.items() for indicator in indicators(name, values)]
    rows = np.concatenate([indicator.rows for indicator in found])
    columns = np.repeat(np.arange(len(found)), [len(indicator.rows) for indicator in found])
    counts = sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(len(labels), len(found)))
    return describing_columns(counts, [indicator.holds for indicator in found], labels)


def joint_values(
    kept: Sequence[tuple[str, Indicator]], table: Mapping[str, Sequence[Any]], labels: NDArray[np.int64]
) -> list[list[str]]:
    """What all records of a cluster have in common, for each cluster 0..K-1 of (n,) ``labels``.

    The absence of categories is said only where there is nothing else to say; of a null nothing is said.
    """

    def counts(rows: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.bincount(labels[rows][labels[rows] >= 0], minlength=k)

    k = int(labels.max(initial=-1)) + 1
    sizes = counts(np.arange(len(labels)))
    stated: list[list[str]] = [[] for _ in range(k)]
    absent: list[list[str]] = [[] for _ in range(k)]
    for name, indicator in kept:
        true = counts(indicator.rows)
        known = counts(np.flatnonzero([value is not None for value in table[name]]))
        for cluster in range(k):
            if true[cluster] == sizes[cluster]:
                stated[cluster].append(indicator.holds)
            elif true[cluster] == 0 and known[cluster] == sizes[cluster] and indicator.otherwise is not None:
                stated[cluster].append(indicator.otherwise)
            elif true[cluster] == 0:
                absent[cluster].append(f"not {indicator.holds}")
    return [terms or others for terms, others in zip(stated, absent, strict=True)]


def _presence(table: Mapping[str, Sequence[Any]], n: int) -> NDArray[np.float32]:
    """(n, 1): 1 where any attribute of ``table`` is known, NaN where all are null."""
    presence = np.full((n, 1), np.nan, dtype=np.float32)
    presence[known_rows(table)] = 1
    return presence


def known_rows(table: Mapping[str, Sequence[Any]]) -> NDArray[np.bool_]:
    """(n,) whether any attribute of ``table`` has a value."""
    known = [[value is not None for value in values] for values in table.values()]
    return np.asarray(np.any(known, axis=0))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_numeric(known: Sequence[Any]) -> bool:
    return all(isinstance(value, Real) and not isinstance(value, bool) for value in known)


def is_null(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, list):
        return all(is_null(item) for item in value)
    return value is None or (isinstance(value, float) and not math.isfinite(value))
