"""Attributes (gender, colour, price, ...) to clusters: exact joint values, or an encoding for the clusterer."""

from __future__ import annotations

import logging
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.adapter import Adapter, Terms, option
from wscl_embed.clusterers import Clustering, Features, make_clustering
from wscl_embed.errors import InputError, nearest
from wscl_embed.terms import describing_terms

if TYPE_CHECKING:
    import datasets

MANY_NUMBERS = 50  # different numbers that are text: hardly codes any more
DENSE_COLUMNS = 512  # wider encodings stay sparse: 200,000 records with 10,000 brands would take 16 GB
METHOD_OPTIONS = {"exact": ["top_k"], "cluster": ["clusterer", "n_clusters", "min_cluster_size"]}

logger = logging.getLogger("wscl_embed")


@dataclass(frozen=True)
class Indicator:
    """A 0/1 column: which records have a value. A null counts as not having it."""

    rows: NDArray[np.int64]
    """Records of which it is true, ascending."""
    holds: str
    """What is true of them, such as ``gender=Women`` or ``price>20``."""
    otherwise: str | None
    """What is true of the others, where that is as telling (booleans and numbers)."""


@dataclass(kw_only=True)
class AttributesAdapter(Adapter):
    """Clusters records by their attributes, from one column of mappings or from several plain columns.

    ``method=exact`` is the paper's: every attribute becomes 0/1 indicators (a category one each, a boolean as it is, a
    number whether it lies over the median, a list one for each of its values), the ``top_k`` of highest entropy are
    kept, and there is one cluster per distinct joint value of those. ``method=cluster`` hands one-hot categories and
    scaled numbers to the clusterer. Nulls are allowed; a record is noise when all attributes (for ``exact``: all that
    the kept indicators come from) are null.
    """

    name = "attributes"

    column: str = option("attributes", "column of mappings from attribute to value")
    columns: list[str] | None = option(None, "plain columns, one an attribute, instead of column (a+b)")
    numbers: list[str] | None = option(None, "attributes to take as numbers though they are text, as all in a CSV are")
    categories: list[str] | None = option(None, "attributes to take as categories though they are numbers (codes)")
    method: Literal["exact", "cluster"] = option("exact", "exact: joint values of top_k indicators; cluster: clusterer")
    # On 6,335 products with 66 indicators, 12 give 172 clusters with 2.5% of the images in clusters of under 5 and an
    # adjusted mutual information with the class of .360; 6 give .327 (45 clusters), 20 give .325 (422 clusters), all
    # 66 give .304 (683 clusters, 12.3% of the images in clusters of under 5, so with hardly a partner in a batch).
    top_k: int = option(12, "indicators of highest entropy kept for method exact", at_least=1)

    def __post_init__(self) -> None:
        """Check the options; those of the other method are refused rather than ignored."""
        super().__post_init__()
        if self.method not in METHOD_OPTIONS:
            raise InputError(f"adapter {self.name}: method must be exact or cluster; got {self.method!r}.")
        for other in METHOD_OPTIONS.keys() - {self.method}:
            changed = [
                x.name for x in fields(self) if x.name in METHOD_OPTIONS[other] and getattr(self, x.name) != x.default
            ]
            if changed:
                raise InputError(f"adapter {self.name}: {changed[0]} applies only with method={other}.")

    def features(self, dataset: datasets.Dataset) -> Features:
        """(n, 1 + F); the first column is 1, for a record of all zeros has a signal too. NaN where all is null."""
        return self.features_and_terms(dataset)[0]

    def terms(self, dataset: datasets.Dataset, labels: NDArray[np.int64]) -> Terms:
        """What a cluster's records have in common (``exact``), or the values that are most characteristic of it."""
        return self.features_and_terms(dataset)[1](labels)

    def features_and_terms(self, dataset: datasets.Dataset) -> tuple[Features, Callable[[NDArray[np.int64]], Terms]]:
        """Both from a table made once."""
        table = self.table(dataset)
        if self.method == "cluster":
            return encode(table, len(dataset)), partial(characteristic_values, table)
        kept = self.kept(table)
        return indicate(kept, table, len(dataset)), partial(joint_values, kept, table)

    def cluster(self, features: Features) -> Clustering:
        """One cluster per distinct row for ``exact``, the clusterer's otherwise."""
        return make_clustering(features, "exact") if self.method == "exact" else super().cluster(features)

    def kept(self, table: dict[str, list[Any]]) -> list[tuple[str, Indicator]]:
        """The ``top_k`` indicators of highest empirical entropy, each with its attribute; equals in order of name."""
        present = sum(any(value is not None for value in record) for record in zip(*table.values(), strict=True))
        pairs = [(name, indicator) for name, values in table.items() for indicator in indicators(name, values)]
        # The entropy of a 0/1 column grows with its rarer value, and counts compare without rounding.
        pairs.sort(key=lambda pair: -min(len(pair[1].rows), present - len(pair[1].rows)))
        return pairs[: self.top_k]

    def table(self, dataset: datasets.Dataset) -> dict[str, list[Any]]:
        """n values of each attribute with a value at all; blank strings, empty lists and what is not finite are None.

        Raises:
            InputError: a column that is missing or null throughout, or ``column`` holds no mappings.
        """
        if self.columns:
            table = {name: self.read(dataset, name) for name in sorted(self.columns)}
        else:
            records = [{} if record is None else record for record in self.read(dataset, self.column)]
            if not all(isinstance(record, Mapping) for record in records):
                raise InputError(
                    f"adapter {self.name}: the column {self.column!r} holds no mappings from attribute to value. "
                    f"Plain columns are named with --adapter {self.name}:columns={self.column}+OTHER."
                )
            names = sorted({name for record in records for name in record})
            table = {name: [record.get(name) for record in records] for name in names}
        table = {name: [None if _is_null(value) else value for value in values] for name, values in table.items()}
        table = {name: values for name, values in table.items() if any(value is not None for value in values)}
        if not table:
            raise self.no_signal(dataset)
        return self.converted(table)

    def converted(self, table: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """``table`` with the attributes ``numbers`` as numbers and ``categories`` as text.

        Raises:
            InputError: an attribute that is not there, or text that is no number.
        """
        for name in [*(self.numbers or []), *(self.categories or [])]:
            if name not in table:
                raise InputError(f"adapter {self.name}: no attribute {name!r} has a value. {nearest(name, table)}")
        for name in self.numbers or []:
            table[name] = [None if value is None else self._number(name, value) for value in table[name]]
        for name in self.categories or []:
            table[name] = [None if value is None else str(value) for value in table[name]]
        for name, values in table.items():
            known = [value for value in values if value is not None]
            different = set(known) if all(isinstance(value, str) for value in known) else set()
            codes = name in (self.categories or [])
            if len(different) > MANY_NUMBERS and not codes and all(map(_reads_as_number, different)):
                logger.warning(
                    "adapter %s: %r holds %d different numbers written as text, each a category of its own. Say "
                    "numbers=%s to take them as numbers, or categories=%s if they are codes.",
                    self.name,
                    name,
                    len(different),
                    name,
                    name,
                )
        return table

    def _number(self, name: str, value: Any) -> float | None:
        if not _reads_as_number(value):
            raise InputError(f"adapter {self.name}: {name}={value!r} is no number, though numbers={name}.")
        number = float(value)
        return number if math.isfinite(number) else None

    def remedy(self) -> str:
        """Which option to change when there are too few clusters."""
        if self.method == "exact":
            return f"Raise top_k (now {self.top_k}), or read other attributes with column or columns."
        return super().remedy()


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
        for item in sorted({str(item) for item in _as_list(value) if not _is_null(item)}):
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
    tokens: list[list[str]] = [[] for _ in labels]
    for indicator in (indicator for name, values in table.items() for indicator in indicators(name, values)):
        for row in indicator.rows.tolist():
            tokens[row].append(indicator.holds)
    return describing_terms(tokens, labels)


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
    known = np.zeros(n, dtype=np.bool_)
    for values in table.values():
        known |= np.array([value is not None for value in values])
    presence = np.full((n, 1), np.nan, dtype=np.float32)
    presence[known] = 1
    return presence


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _is_numeric(known: Sequence[Any]) -> bool:
    return all(isinstance(value, Real) and not isinstance(value, bool) for value in known)


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_null(value: Any) -> bool:
    if isinstance(value, list):
        return all(_is_null(item) for item in value)
    if isinstance(value, float):
        return not math.isfinite(value)
    return value is None or (isinstance(value, str) and not value.strip())
