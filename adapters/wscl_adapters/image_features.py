"""The frozen encoder's image features to clusters: for datasets without any other signal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wscl_embed.adapter import Adapter
from wscl_embed.clusterers import Features
from wscl_embed.errors import InputError

if TYPE_CHECKING:
    import datasets

COLUMN = "image_features"


@dataclass(kw_only=True)
class ImageFeaturesAdapter(Adapter):
    """Clusters records by the pretrained encoder's features, L2-normalised. A null or zero vector is noise."""

    name = "image_features"
    needs_image_features = True

    def features(self, dataset: datasets.Dataset) -> Features:
        """(n, D) float32 unit rows; NaN where the vector is null."""
        vectors = self.vectors(dataset)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(norms > 0, norms, 1)

    def vectors(self, dataset: datasets.Dataset) -> NDArray[np.float32]:
        """(n, D) float32 as the column holds them, read through Arrow: 9,000 x 1,280 Python floats are slow and large.

        Raises:
            InputError: no such column, null throughout, not vectors, or vectors of several lengths.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if COLUMN not in dataset.column_names:
            raise InputError(
                f"adapter {self.name}: the dataset has no column {COLUMN!r}; `wscl_embed.cluster` and "
                f"`wscl_embed.fit` add it. Its columns are: {', '.join(dataset.column_names)}."
            )
        table = dataset.select_columns([COLUMN]).with_format("arrow")[:]
        column = table.column(0).combine_chunks()
        present = column.is_valid().to_numpy(zero_copy_only=False)
        if not present.any():
            raise InputError(f"adapter {self.name}: the column {COLUMN!r} is null in all {len(present)} records.")
        kind = column.type
        if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
            raise InputError(f"adapter {self.name}: the column {COLUMN!r} holds {kind}, not vectors of numbers.")
        column = column.drop_null()
        lengths = pc.unique(pc.list_value_length(column)).to_pylist()
        if len(lengths) > 1:
            raise InputError(
                f"adapter {self.name}: the column {COLUMN!r} has vectors of the lengths {sorted(lengths)}."
            )
        values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
        known: NDArray[np.float32] = values.reshape(len(column), lengths[0])
        if present.all():
            return known
        vectors = np.full((len(present), lengths[0]), np.nan, dtype=np.float32)
        vectors[present] = known
        return vectors

    def remedy(self) -> str:
        """Which option to change when there are too few clusters."""
        if self.clusterer in ("hdbscan", "kmeans"):
            return super().remedy()
        return f"Take clusterer=kmeans (now {self.clusterer!r})."
