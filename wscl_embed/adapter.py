"""`Adapter`: what turns a signal of a dataset into `Clusters`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import Field, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.clusterers import Clustering, Features, as_rows, check_clusterer, make_clustering
from wscl_embed.clusterers.noise import Policy, check_policy, memberships
from wscl_embed.clusters import Clusters, cluster_table
from wscl_embed.errors import InputError
from wscl_embed.limits import MAX_SEED
from wscl_embed.raw_labels import NO_SIGNAL, RawLabels

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

Terms: TypeAlias = Sequence[Sequence[str]]


def option(default: Any, help: str, *, at_least: float | None = None, at_most: float | None = None) -> Any:
    """A dataclass field that is an option of an adapter: default, the line `wscl-embed adapters` shows, and limits.

    Raises:
        ValueError: a default that could be changed, such as a list.
    """
    if isinstance(default, (list, dict, set)):
        raise ValueError(f"the default of an option must not be a {type(default).__name__}: take a tuple, or None.")
    return field(default=default, metadata={"help": help, "at_least": at_least, "at_most": at_most})


@dataclass(kw_only=True)
class Adapter:
    """Turns a dataset into `Clusters`.

    Write one by subclassing: give it a ``name``, make it a keyword-only dataclass whose fields are its options, and
    implement `features`; clustering, noise and describing terms are inherited. For another way to clusters
    altogether, override `assign`: without `features` the options of the clusterer do not apply and are not offered.
    Register the class in the entry-point group ``wscl_embed.adapters`` and it works as
    ``wscl-embed fit --adapter <name>:<option>=<value>``.

    >>> from dataclasses import dataclass
    >>> @dataclass(kw_only=True)
    ... class TitleLength(Adapter):
    ...     name = "title_length"
    ...     column: str = option("title", "column with the title")
    ...     def features(self, dataset):
    ...         return np.array([[len(title)] for title in self.read(dataset, self.column)], dtype=float)
    """

    name: ClassVar[str]
    needs_image_features: ClassVar[bool] = False
    """True: the dataset is handed over with a column ``image_features``, the frozen encoder's (n, D) float32."""
    expects_clusters: ClassVar[bool] = True
    """False: having no clusters is the point (self-supervised baseline), and no reason for an error."""

    clusterer: Any = option("kmeans", "kmeans, hdbscan, exact, or (in Python) any object with fit_predict")
    n_clusters: int | None = option(
        None,
        "number of clusters for kmeans (default: 5 sqrt(records), at most a fifth of them)",
        at_least=1,
    )
    min_cluster_size: int = option(5, "smallest cluster hdbscan makes", at_least=2)
    seed: int = option(0, "seed of the clusterer and of dimension reduction", at_least=0, at_most=MAX_SEED)
    noise: Policy = option(
        "instance", "records in no cluster: instance (alone), drop, nearest (cluster), soft (share the nearby clusters)"
    )
    strengths: bool = option(False, "weigh membership by how sure the clusterer is (hdbscan)")

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            InputError: a value outside its limits, an unknown clusterer, or a clusterer's option where none is
                used; a subclass without a name, or whose options are no fields of a dataclass.
        """
        self._check_class()
        offered = self.option_fields()
        for item in fields(self):
            if item.name not in offered and getattr(self, item.name) != item.default:
                raise InputError(f"adapter {self.name} clusters no features, so it has no option {item.name!r}.")
            self._check_limits(item)
        check_clusterer(self.clusterer)
        check_policy(self.noise)
        if self.strengths and self.clusterer in ("kmeans", "exact"):
            raise InputError(f"adapter {self.name}: the clusterer {self.clusterer} knows no strengths; hdbscan does.")

    def _check_class(self) -> None:
        bare = [name for name, value in vars(type(self)).items() if isinstance(value, Field)]
        if bare:
            raise InputError(
                f"{type(self).__name__}: its options ({', '.join(bare)}) are no fields yet; "
                "put @dataclass(kw_only=True) above the class."
            )
        if not isinstance(getattr(self, "name", None), str):
            raise InputError(f'{type(self).__name__}: give the class a name, as in name = "place".')

    def _check_limits(self, item: Field[Any]) -> None:
        value = getattr(self, item.name)
        low, high = item.metadata.get("at_least"), item.metadata.get("at_most")
        limits = [f"at {word} {limit}" for word, limit in (("least", low), ("most", high)) if limit is not None]
        try:
            within = value is None or ((low is None or value >= low) and (high is None or value <= high))
        except TypeError:  # text, for one
            within = False
        if not within:  # NaN is not, either
            raise InputError(f"adapter {self.name}: {item.name} must be {' and '.join(limits)}; got {value!r}.")

    @classmethod
    def option_fields(cls) -> dict[str, Field[Any]]:
        """The options by name: its own, then those of the clusterer where `features` is implemented."""
        # Compared as objects: a subclass that declares an option of the same name anew has it as its own.
        shared = {item.name: item for item in fields(cls) if item is Adapter.__dataclass_fields__.get(item.name)}
        own = {item.name: item for item in fields(cls) if item.name not in shared}
        return own if cls.features is Adapter.features else {**own, **shared}

    def options(self) -> dict[str, Any]:
        """The options and their values."""
        return {name: getattr(self, name) for name in self.option_fields()}

    def features(self, dataset: datasets.Dataset) -> Features:
        """(n, F) array or CSR (lists, a data frame or a tensor will do), one row a record.

        A row of zeros or with a NaN has no signal and becomes noise.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement features() or override assign().")

    def cluster(self, features: Features) -> Clustering:
        """The clusters, and noise, of the (m, F) rows that carry a signal."""
        return make_clustering(
            features,
            self.clusterer,
            n_clusters=self.n_clusters,
            min_cluster_size=self.min_cluster_size,
            seed=self.seed,
        )

    def terms(self, dataset: datasets.Dataset, labels: NDArray[np.int64]) -> Terms:
        """Describing words of each cluster 0..K-1 for (n,) ``labels`` (-1 noise). Default: none."""
        return [[] for _ in range(int(labels.max(initial=-1)) + 1)]

    def features_and_terms(self, dataset: datasets.Dataset) -> tuple[Features, Callable[[NDArray[np.int64]], Terms]]:
        """`features`, and `terms` as a function of the labels alone. `assign` and ``hierarchy:of=...`` call this.

        The default calls the two. Override it where both begin with the same reading of the signal, to read it once.
        """
        return self.features(dataset), partial(self.terms, dataset)

    def assign(self, dataset: datasets.Dataset) -> Clusters:
        """Cluster the rows of `features`; raises what `with_signal` does."""
        features, terms_of = self.features_and_terms(dataset)
        rows, present = self.with_signal(features, dataset)
        made = self.cluster(rows)
        if self.strengths and made.strengths is None:
            raise InputError(
                f"adapter {self.name}: strengths=true, but the clusterer {self.clusterer!r} has no probabilities_ "
                "after fit_predict."
            )
        found = Clustering(renumber(made.labels), made.strengths if self.strengths else None)
        labels = np.full(len(dataset), NO_SIGNAL, dtype=np.int64)
        labels[present] = found.labels
        membership = scatter_rows(memberships(found, rows, self.noise), present)
        # The words are those of the records the clusterer put there, whatever joins them.
        terms = terms_of(np.maximum(labels, -1))
        table = cluster_table(membership, source=self.name, terms=terms)
        return Clusters(dataset["id"][:], membership, table, (RawLabels(self.name, labels, self.noise),))

    def with_signal(self, features: Features, dataset: datasets.Dataset) -> tuple[Features, NDArray[np.bool_]]:
        """The (m, F) rows of ``features`` that carry a signal, and which (n,) records they belong to.

        Raises:
            InputError: no record carries a signal, or ``features`` are not numbers, a row a record of the dataset.
        """
        try:
            rows = as_rows(features)
        except (TypeError, ValueError) as error:
            raise InputError(f"adapter {self.name}: features() must give numbers, a row a record ({error}).") from error
        if rows.ndim != 2 or rows.shape[0] != len(dataset):
            raise InputError(
                f"adapter {self.name}: features of shape {rows.shape} for {len(dataset)} records; "
                f"features() must give ({len(dataset)}, F), a row a record."
            )
        present = has_signal(rows)
        if not present.any():
            raise self.no_signal(dataset)
        return (rows if present.all() else rows[present]), present

    def remedy(self) -> str:
        """What to change when there are too few clusters: a sentence for an error message."""
        if self.clusterer == "hdbscan":
            return (
                "hdbscan looks for groups of records that are denser than their surroundings. "
                f"Lower min_cluster_size (now {self.min_cluster_size}), take clusterer=kmeans, or in Python hand over "
                "clusterer=hdbscan.HDBSCAN(cluster_selection_method='leaf'), which keeps small clusters apart."
            )
        if self.clusterer == "kmeans" and self.n_clusters == 1:
            return "Raise n_clusters (now 1)."
        return f"The records look alike: read another column, or change another option: {self._options_said()}."

    def no_signal(self, dataset: datasets.Dataset) -> InputError:
        """The error for a dataset in which no record carries a signal."""
        return InputError(
            f"adapter {self.name}: none of the {len(dataset)} records carries a signal "
            f"({self._options_said()}). Name another column or another adapter."
        )

    def _options_said(self) -> str:
        return ", ".join(f"{name}={value}" for name, value in self.options().items())

    def read(self, dataset: datasets.Dataset, column: str) -> list[Any]:
        """The values of ``column`` as Python objects.

        Raises:
            InputError: the dataset has no such column (names those it has), or it is null throughout.
        """
        self.check_column(dataset, column)
        values = list(dataset.with_format(None)[column][:])  # without [:] datasets reads row by row
        if all(value is None for value in values):
            raise self.all_null(dataset, column)
        return values

    def read_arrow(self, dataset: datasets.Dataset, column: str) -> pa.ChunkedArray:
        """The values of ``column`` as Arrow holds them: for signals of millions of records. Raises as `read`."""
        self.check_column(dataset, column)
        values = dataset.select_columns([column]).with_format("arrow")[:].column(column)
        if values.null_count == len(values):
            raise self.all_null(dataset, column)
        return values

    def check_column(self, dataset: datasets.Dataset, column: str) -> None:
        """Refuse a column that is not there, naming those that are."""
        if column not in dataset.column_names:
            signals = [name for name in dataset.column_names if name not in ("id", "image", "image_features")]
            known = f"Its columns are: {', '.join(signals)}. Name one with --adapter {self.name}:column=NAME."
            nothing = "It has images alone: give them a metadata.jsonl, or take the adapter image_features."
            raise InputError(
                f"adapter {self.name}: the dataset has no column {column!r}. {known if signals else nothing}"
            )

    def all_null(self, dataset: datasets.Dataset, column: str) -> InputError:
        """The error for a column without a value."""
        return InputError(f"adapter {self.name}: the column {column!r} is null in all {len(dataset)} records.")


def has_signal(features: Features) -> NDArray[np.bool_]:
    """(n,) bool: rows with an entry other than zero, and all finite."""
    if sparse.issparse(features):
        sums = np.asarray(abs(features).sum(axis=1), dtype=np.float64).ravel()
        return np.isfinite(sums) & (sums > 0)
    dense = np.asarray(features)
    return np.logical_and(np.isfinite(dense).all(axis=1), dense.any(axis=1))


def scatter_rows(matrix: sparse.csr_array, present: NDArray[np.bool_]) -> sparse.csr_array:
    """The m rows of ``matrix`` (m, K) at the m places where ``present`` (n,) is true, the other rows empty: (n, K)."""
    entries = np.zeros(len(present), dtype=np.int64)
    entries[present] = np.diff(matrix.indptr)
    arrays = (matrix.data, matrix.indices, np.concatenate([[0], np.cumsum(entries)]))
    return sparse.csr_array(arrays, shape=(len(present), matrix.shape[1]))


def renumber(labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """The same partition with labels 0..K-1 in ascending order; negative labels become -1."""
    _, compact = np.unique(np.maximum(labels, -1), return_inverse=True)
    return compact.astype(np.int64) - int((labels < 0).any())
