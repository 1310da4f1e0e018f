"""Class labels as they are: the supervised ceiling (SupCon), or multi-label membership."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from wscl_embed.adapter import Adapter, option
from wscl_embed.clusters import Clusters, cluster_table
from wscl_embed.errors import InputError

if TYPE_CHECKING:
    import datasets


@dataclass(kw_only=True)
class LabelsAdapter(Adapter):
    """One cluster per distinct label.

    The column holds a string, integer or boolean a record, or a list of them: such a record belongs to several
    clusters. A record whose label is null (or NaN, a blank string, an empty list) is noise.
    """

    name = "labels"

    column: str = option("label", "column with the label, or a list of labels, of each record")

    def assign(self, dataset: datasets.Dataset) -> Clusters:
        """Membership 1 in the cluster of each of a record's labels; clusters stand in ascending order of label.

        Raises:
            InputError: the column is missing, carries no label, or something else (names the id).
        """
        known = class_names(dataset.features.get(self.column))
        pairs = zip(dataset["id"][:], self.read(dataset, self.column), strict=True)
        records = [self._labels(value, record_id, known) for record_id, value in pairs]
        values = sorted({value for labels in records for value in labels})
        if not values:
            raise self.no_signal(dataset)
        position = {value: column for column, value in enumerate(values)}
        rows = np.repeat(np.arange(len(records)), [len(labels) for labels in records])
        columns = np.array([position[value] for labels in records for value in labels], dtype=np.int64)
        shape = (len(records), len(values))
        membership = sparse.csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
        names = [str(value) for value in values]
        table = cluster_table(membership, source=self.name, names=names, terms=[[name] for name in names])
        return Clusters(dataset["id"][:], membership, table)

    def _labels(self, value: Any, record_id: str, known: list[str] | None) -> list[Any]:
        """The distinct labels of one record."""
        values = value if isinstance(value, list) else [value]
        if any(isinstance(item, (list, dict)) for item in values):
            raise InputError(
                f"adapter {self.name}: {value!r:.80} in the column {self.column!r} of the record {record_id!r} is no "
                "label; a string, number or boolean, or a list of them, is needed."
            )
        labels = [item for item in values if not _is_null(item)]
        if known is not None:
            labels = [known[item] for item in labels if item >= 0]  # -1: unlabelled, by the Hub's convention
        return list(dict.fromkeys(labels))

    def remedy(self) -> str:
        """Which option to change when there are too few clusters."""
        return f"Name another column (now column={self.column})."


def _is_null(value: Any) -> bool:
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def class_names(feature: Any) -> list[str] | None:
    """The names behind the integers of a `datasets.ClassLabel` column, or of a list of them."""
    names: list[str] | None = getattr(getattr(feature, "feature", feature), "names", None)
    return names
