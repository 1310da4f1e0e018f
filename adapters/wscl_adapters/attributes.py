"""Attributes (gender, colour, price, ...) to clusters: exact joint values, or an encoding for the clusterer."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wscl_adapters.attribute_columns import (
    Indicator,
    characteristic_values,
    encode,
    indicate,
    indicators,
    is_null,
    joint_values,
    known_rows,
)
from wscl_embed.adapter import Adapter, Terms, option
from wscl_embed.clusterers import Clustering, Features, make_clustering
from wscl_embed.errors import InputError, nearest

if TYPE_CHECKING:
    import datasets

MANY_NUMBERS = 50  # different numbers that are text: hardly codes any more
METHOD_OPTIONS = {"exact": ["top_k"], "cluster": ["clusterer", "n_clusters", "min_cluster_size"]}

logger = logging.getLogger("wscl_embed")


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
        present = int(np.count_nonzero(known_rows(table)))
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
        table = {name: [None if is_null(value) else value for value in values] for name, values in table.items()}
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


def _reads_as_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
