"""`Clusters`: the membership matrix every adapter ends in, and its table of clusters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.cluster_file import FORMAT, FORMAT_VERSION, read_parts
from wscl_embed.cluster_table import TABLE_COLUMNS, cluster_table, column_sizes, with_unique_names
from wscl_embed.errors import InputError
from wscl_embed.raw_labels import RawLabels, integer_labels

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["Clusters", "cluster_table"]


@dataclass(frozen=True, eq=False, repr=False)
class Clusters:
    """A sparse, non-negative membership matrix over N images and K clusters.

    ============== ==================================================================================================
    ``ids``        list of N unique strings, one an image
    ``membership`` SciPy CSR array (N, K), float32, >= 0. A row without entries is noise: the image's only positive is
                   its own other view. Hard clusters have one 1 a row.
    ``table``      pandas DataFrame of K rows: ``name``, ``source`` (the adapter), ``level`` (0 for a flat clustering),
                   ``size`` (images with an entry in the column), ``terms`` (list of describing words)
    ``raw``        `RawLabels` of each adapter with a clusterer: its labels before the noise policy
    ============== ==================================================================================================

    >>> clusters = Clusters.from_labels(["a", "b", "c"], [0, 0, -1], name="toy")
    >>> clusters.membership.toarray().tolist()
    [[1.0], [1.0], [0.0]]
    >>> clusters.labels.tolist()
    [0, 0, -1]
    >>> clusters
    Clusters(n_images=3, n_clusters=1, n_noise=1, sources=['toy'])
    """

    ids: list[str]
    membership: sparse.csr_array
    table: pd.DataFrame
    raw: tuple[RawLabels, ...] = ()

    def __post_init__(self) -> None:
        # A copy: tidying in place must not reach into the caller's matrix.
        membership = sparse.csr_array(self.membership).astype(np.float32, copy=True)
        membership.sum_duplicates()
        membership.eliminate_zeros()
        object.__setattr__(self, "membership", membership)
        object.__setattr__(self, "ids", list(self.ids))
        n, k = membership.shape
        if len(self.ids) != n:
            raise InputError(f"Clusters: {len(self.ids)} ids for a membership matrix of {n} rows; give one id a row.")
        odd = next((image_id for image_id in self.ids if not isinstance(image_id, str)), "")
        if not isinstance(odd, str):
            raise InputError(f"Clusters: ids must be strings; got {odd!r} ({type(odd).__name__}).")
        if len(set(self.ids)) != n:
            raise InputError("Clusters: ids must be unique.")
        if list(self.table.columns) != TABLE_COLUMNS or len(self.table) != k:
            raise InputError(
                f"Clusters: the table must have the columns {TABLE_COLUMNS} and {k} rows, one a cluster; "
                f"got {list(self.table.columns)} and {len(self.table)} rows."
            )
        for raw in self.raw:
            raw.check(n, k)
        if membership.nnz and not (np.isfinite(membership.data).all() and membership.data.min() > 0):
            raise InputError("Clusters: memberships must be finite and not negative.")

    @classmethod
    def from_labels(
        cls,
        ids: Sequence[str],
        labels: Sequence[int] | NDArray[np.integer],
        strengths: Sequence[float] | NDArray[np.floating] | None = None,
        *,
        name: str,
        terms: Sequence[Sequence[str]] | None = None,
    ) -> Clusters:
        """Hard clusters (or soft ones, with ``strengths``) from one label an image; a negative label is noise.

        Args:
            ids: N unique strings.
            labels: (N,) integers as scikit-learn's ``fit_predict`` returns them. They are renumbered to 0..K-1 in
                ascending order, so gaps do no harm. Names of classes become numbers by ``pandas.factorize``.
            strengths: (N,) membership strengths in (0, 1], such as HDBSCAN's ``probabilities_``. Default: all 1.
            name: the adapter that made them; clusters are called ``name-0``, ``name-1``, ...
            terms: describing words of each of the K clusters, in ascending order of label.

        Raises:
            InputError: lengths that differ, labels that are no whole numbers, strengths outside (0, 1], or ids that are
                no strings or not unique.
        """
        label_array = integer_labels(labels, "Clusters.from_labels: the labels")
        for what, shape in (
            ("labels", label_array.shape),
            ("strengths", np.shape(labels if strengths is None else strengths)),
        ):
            if shape != (len(ids),):
                raise InputError(f"Clusters.from_labels: {len(ids)} ids, but {what} of shape {shape}.")
        rows = np.flatnonzero(label_array >= 0)
        values, columns = np.unique(label_array[rows], return_inverse=True)
        if strengths is None:
            data = np.ones(len(rows), dtype=np.float32)
        else:
            data = np.asarray(strengths, dtype=np.float32)[rows]
            if data.size and not (data.min() > 0 and data.max() <= 1):
                raise InputError("Clusters.from_labels: strengths must lie in (0, 1].")
        membership = sparse.csr_array((data, (rows, columns)), shape=(len(ids), len(values)))
        return cls(list(ids), membership, cluster_table(membership, source=name, terms=terms))

    @classmethod
    def combine(cls, parts: Sequence[Clusters], weights: Sequence[float] | None = None) -> Clusters:
        """Put the blocks of several clusterings of the same images side by side, each scaled by sqrt(weight).

        The pair weight of two images is then the weighted sum of their pair weights in each part. The order of images
        is that of the first part. Names stay unique: where several parts come from one source (an adapter, twice) at
        the same level, that source is numbered, and a name that still occurs twice gets its source in front.

        Raises:
            InputError: no parts, a weight that is not positive, or parts over different images.
        """
        if not parts:
            raise InputError("Clusters.combine: give at least one Clusters.")
        scale = [1.0] * len(parts) if weights is None else list(weights)
        if len(scale) != len(parts) or not all(0 < weight < np.inf for weight in scale):
            raise InputError(f"Clusters.combine: give {len(parts)} positive weights, one a part; got {scale}.")
        ids = parts[0].ids
        if any(len(part) != len(ids) for part in parts):
            raise InputError(
                f"Clusters.combine: the parts are over {[len(part) for part in parts]} images; "
                "select() the images they share first."
            )
        import pandas as pd

        blocks = [part.select(ids).membership * np.float32(w**0.5) for part, w in zip(parts, scale, strict=True)]
        # A part without clusters (adapter none) is left out: pandas deprecates concatenating empty tables.
        tables = [part.table for part in parts if part.n_clusters] or [parts[0].table]
        table = pd.concat(with_unique_names(tables), ignore_index=True)
        ends = np.cumsum([part.n_clusters for part in parts])
        raw = [
            one.moved(int(end) - part.n_clusters, table["source"])
            for part, end in zip(parts, ends, strict=True)
            for one in part.select(ids).raw
        ]
        return cls(ids, sparse.csr_array(sparse.hstack(blocks, format="csr")), table, tuple(raw))

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        n_noise = int((np.diff(self.membership.indptr) == 0).sum())
        sources = list(dict.fromkeys(self.table["source"]))
        return f"Clusters(n_images={len(self)}, n_clusters={self.n_clusters}, n_noise={n_noise}, sources={sources})"

    @property
    def n_clusters(self) -> int:
        """K, the number of columns of the membership matrix."""
        return int(self.membership.shape[1])

    @property
    def labels(self) -> NDArray[np.int64]:
        """(N,) int64: the column each image belongs to most (the first of equals), -1 for noise."""
        matrix = self.membership
        labels = np.full(len(self), -1, dtype=np.int64)
        rows = np.repeat(np.arange(len(self)), np.diff(matrix.indptr))
        # Last write wins: sort so that each row's strongest, leftmost entry is written last.
        order = np.lexsort((-matrix.indices, matrix.data, rows))
        labels[rows[order]] = matrix.indices[order]
        return labels

    def blocks(self) -> dict[tuple[str, int], Clusters]:
        """The clusters of each source and level apart, over the same images, in the order of their columns."""
        columns: dict[tuple[str, int], list[int]] = {}
        for column, (source, level) in enumerate(zip(self.table["source"], self.table["level"], strict=True)):
            columns.setdefault((str(source), int(level)), []).append(column)
        return {
            block: Clusters(
                self.ids, sparse.csr_array(self.membership[:, chosen]), self.table.iloc[chosen].reset_index(drop=True)
            )
            for block, chosen in columns.items()
        }

    @property
    def raw_labels(self) -> NDArray[np.int64]:
        """(N, A) int64: the labels of each of the A adapters with a clusterer, as `RawLabels` has them."""
        stacked = np.empty((len(self), len(self.raw)), dtype=np.int64)
        for column, raw in enumerate(self.raw):
            stacked[:, column] = raw.labels
        return stacked

    @property
    def dropped(self) -> NDArray[np.bool_]:
        """(N,) bool: images to leave out of training: some adapter drops what is in none of its clusters, and none
        gives the image a cluster."""
        asked = np.zeros(len(self), dtype=np.bool_)
        for raw in self.raw:
            if raw.policy == "drop":
                asked |= raw.labels < 0
        empty: NDArray[np.bool_] = np.diff(self.membership.indptr) == 0
        return asked & empty

    def select(self, ids: Sequence[str]) -> Clusters:
        """The same clusters over ``ids`` in that order; sizes are counted anew, empty clusters are kept.

        Raises:
            InputError: an id that is not here.
        """
        if list(ids) == self.ids:
            return self
        position = {image_id: row for row, image_id in enumerate(self.ids)}
        missing = [image_id for image_id in ids if image_id not in position]
        if missing:
            raise InputError(f"Clusters: {len(missing)} ids are not among its {len(self)}, such as {missing[0]!r}.")
        rows = np.array([position[image_id] for image_id in ids], dtype=np.intp)
        membership = sparse.csr_array(self.membership[rows])
        table = self.table.assign(size=column_sizes(membership))
        return Clusters(list(ids), membership, table, tuple(one.select(rows) for one in self.raw))

    def to_arrow(self) -> pa.Table:
        """One row an image: ``id``, ``label`` (int64, -1 in none), ``clusters`` (list of columns), ``weights``.

        Where clusterers made them, also ``raw_labels`` (list of int64, one an adapter: -1 noise, -3 no signal) and
        ``dropped`` (bool). The cluster table and the noise policies are the JSON under the schema metadata key
        ``wscl_embed``.
        """
        import pyarrow as pa

        matrix = self.membership
        offsets = pa.array(matrix.indptr, pa.int32())
        columns = {
            "id": pa.array(self.ids, pa.string()),
            "label": pa.array(self.labels),
            "clusters": pa.ListArray.from_arrays(offsets, pa.array(matrix.indices, pa.int32())),
            "weights": pa.ListArray.from_arrays(offsets, pa.array(matrix.data, pa.float32())),
        }
        if self.raw:
            bounds = pa.array(np.arange(len(self) + 1) * len(self.raw), pa.int32())
            columns["raw_labels"] = pa.ListArray.from_arrays(bounds, pa.array(self.raw_labels.ravel()))
            columns["dropped"] = pa.array(self.dropped)
        table = pa.table(columns)
        header = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "table": self.table.to_dict(orient="records"),
            "noise": [{"source": raw.source, "policy": raw.policy} for raw in self.raw],
        }
        return table.replace_schema_metadata({"wscl_embed": json.dumps(header, ensure_ascii=False)})

    def save(self, path: str | Path) -> None:
        """Write `to_arrow` as Parquet; the file appears under its name only when it is whole."""
        import pyarrow.parquet as pq

        from wscl_embed.files import atomic_path

        with atomic_path(Path(path)) as temporary:
            pq.write_table(self.to_arrow(), temporary, compression="zstd")

    @classmethod
    def load(cls, path: str | Path | BinaryIO) -> Clusters:
        """Read what `save` wrote.

        Raises:
            InputError: a file that is not there, not Parquet, not of this format and version, or with parts that do not
                fit.
        """
        return cls(*read_parts(path))
