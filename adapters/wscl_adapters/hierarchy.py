"""A hierarchy to clusters at several levels: images attract by how many levels they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from wscl_adapters.labels import class_names
from wscl_adapters.taxonomies import Parts, parts_of, paths_of_labels, without_common_root
from wscl_adapters.trees import density_levels, kmeans_levels, level_sizes
from wscl_embed.adapter import Adapter, option, renumber
from wscl_embed.clusterers import default_n_clusters
from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.limits import HUGE, MAX_LEVELS, MAX_SEED
from wscl_embed.registry import make_adapter

if TYPE_CHECKING:
    import datasets

TREE_LEVELS = 3
OF_OPTIONS = ("method", "level_clusters", "min_cluster_size")  # they apply to features
PATH_OPTIONS = ("column", "separator", "parents")  # they apply without


@dataclass(kw_only=True)
class HierarchyAdapter(Adapter):
    """Clusters at several levels, from a path column, a table of parents, or a tree over another adapter's features.

    One of three:

    - ``column``: a path a record, as a string (``animal/bird/auklet``) or a list.
    - ``column`` and ``parents``: a label a record, and a CSV, JSON lines or Parquet file with the columns ``child`` and
      ``parent``.
    - ``of``: another adapter; a tree is made over its features. Its options go behind a dot:
      ``hierarchy:of=captions,of.column=title``.

    Level 0 is the coarsest. The pair weight of two images is the sum of the weights of the levels at which they share
    their cluster; the weights of all levels add up to 1. A record with a shorter path belongs to the levels it has.
    """

    name = "hierarchy"

    column: str = option("path", "column with the path of each record, or with its label if there are parents")
    separator: str = option("/", "what stands between the parts of a path")
    parents: str | None = option(None, "file with the columns child and parent: column holds labels, not paths")
    of: Adapter | str | None = option(None, "adapter whose features the tree is made over, instead of column")
    method: Literal["kmeans", "hdbscan"] = option("kmeans", "tree over features: hierarchical kmeans, or hdbscan's")
    levels: int | None = option(
        None, "levels, from the coarsest; default: all of the paths, 3 of a tree", at_least=1, at_most=MAX_LEVELS
    )
    level_weights: list[float] | None = option(None, "weight of each level, coarse to fine (a+b+c); default: equal")
    level_clusters: list[int] | None = option(
        None,
        "clusters of each level of a tree, coarse to fine (8+40+200); default: equal factors up to 5 sqrt(records)",
    )
    min_cluster_size: int = option(5, "smallest cluster hdbscan makes", at_least=2)
    seed: int = option(0, "seed of the clusterer and of dimension reduction", at_least=0, at_most=MAX_SEED)

    def __post_init__(self) -> None:
        """Check the options, and make the adapter ``of`` names."""
        if self.of is not None:
            self.of = make_adapter(self.of)
        super().__post_init__()
        fields = self.option_fields()
        unused, why = (OF_OPTIONS, "only with of=ADAPTER") if self.of is None else (PATH_OPTIONS, "only without of")
        changed = [name for name in unused if getattr(self, name) != fields[name].default]
        if changed:
            raise InputError(f"adapter {self.name}: {changed[0]} applies {why}.")
        if self.method not in ("kmeans", "hdbscan"):
            raise InputError(f"adapter {self.name}: method must be kmeans or hdbscan; got {self.method!r}.")
        if not self.separator:
            raise InputError(f"adapter {self.name}: separator must not be empty.")
        if self.level_weights is not None and not all(0 < weight <= HUGE for weight in self.level_weights):
            raise InputError(
                f"adapter {self.name}: level_weights must be above 0 and at most {HUGE:g}; got {self.level_weights}."
            )
        counts = self.level_clusters
        if counts is not None and (not counts or min(counts) < 1 or counts != sorted(counts)):
            raise InputError(f"adapter {self.name}: level_clusters must ascend from 1 or more; got {counts}.")
        if counts is not None and self.levels is not None and len(counts) != self.levels:
            raise InputError(f"adapter {self.name}: levels={self.levels}, but {len(counts)} level_clusters.")
        if isinstance(self.of, Adapter):
            self._check_inner(self.of)

    def _check_inner(self, inner: Adapter) -> None:
        if type(inner).features is Adapter.features:
            raise InputError(
                f"adapter {self.name}: {inner.name} has no features to make a tree over; captions, hashtags, "
                "attributes and image_features have."
            )
        for option_name in ("clusterer", "n_clusters", "min_cluster_size", "noise", "strengths"):
            if getattr(inner, option_name) != Adapter.__dataclass_fields__[option_name].default:
                raise InputError(
                    f"adapter {self.name}: of.{option_name} does not apply: the tree is made by method, "
                    "level_clusters and min_cluster_size."
                )

    @property
    def needs_image_features(self) -> bool:  # type: ignore[override]
        """As the adapter ``of`` needs them."""
        return isinstance(self.of, Adapter) and self.of.needs_image_features

    def assign(self, dataset: datasets.Dataset) -> Clusters:
        """One block of clusters a level, scaled by the square root of the level's weight.

        Raises:
            InputError: no record carries a signal, or another number of weights than levels.
        """
        levels = self._tree_levels(dataset, self.of) if isinstance(self.of, Adapter) else self._path_levels(dataset)
        return Clusters.combine(levels, self._weights(len(levels)))

    def _path_levels(self, dataset: datasets.Dataset) -> list[Clusters]:
        paths = self.paths(dataset)
        if not any(paths):
            raise self.no_signal(dataset)
        shared = without_common_root(paths)
        depth = max(map(len, paths)) - shared
        levels = []
        for level in range(depth if self.levels is None else min(depth, self.levels)):
            length = shared + level + 1
            prefixes = [path[:length] if len(path) >= length else None for path in paths]
            values = sorted({prefix for prefix in prefixes if prefix is not None})
            position = {prefix: column for column, prefix in enumerate(values)}
            labels = [-1 if prefix is None else position[prefix] for prefix in prefixes]
            terms = [list(prefix[shared:]) for prefix in values]
            levels.append(self._level(dataset, level, np.array(labels), list(map(self._name_of, values)), terms))
        return levels

    def _tree_levels(self, dataset: datasets.Dataset, inner: Adapter) -> list[Clusters]:
        features, terms_of = inner.features_and_terms(dataset)
        features, present = inner.with_signal(features, dataset)
        if self.method == "kmeans":
            finest = default_n_clusters(features.shape[0])
            counts = self.level_clusters or level_sizes(finest, self.levels or TREE_LEVELS)
            found = kmeans_levels(features, counts, self.seed)
        else:
            n_levels = self.levels or len(self.level_clusters or range(TREE_LEVELS))
            found = density_levels(features, self.level_clusters, n_levels, self.min_cluster_size, self.seed)
        levels = []
        for level, labels_of_present in enumerate(found):
            labels = np.full(len(dataset), -1, dtype=np.int64)
            labels[present] = labels_of_present
            labels = renumber(labels)
            names = [f"{self.name}-{level}-{cluster}" for cluster in range(int(labels.max(initial=-1)) + 1)]
            levels.append(self._level(dataset, level, labels, names, terms_of(labels)))
        return levels

    def _level(
        self,
        dataset: datasets.Dataset,
        level: int,
        labels: NDArray[np.int64],
        names: Sequence[str],
        terms: Sequence[Sequence[str]],
    ) -> Clusters:
        flat = Clusters.from_labels(dataset["id"][:], labels, name=self.name, terms=terms)
        return Clusters(flat.ids, flat.membership, flat.table.assign(name=list(names), level=level))

    def paths(self, dataset: datasets.Dataset) -> list[Parts]:
        """n paths from the root; empty where a record has none.

        Raises:
            InputError: values that are no paths or labels, or a table of parents that cannot be used.
        """
        names = class_names(dataset.features.get(self.column))
        values = self.read(dataset, self.column)
        if names is not None:
            values = [None if value is None or value < 0 else names[value] for value in values]
        records = list(zip(dataset["id"][:], values, strict=True))
        if self.parents is not None:
            return paths_of_labels([self._label(*record) for record in records], Path(self.parents))
        return [self._path(*record) for record in records]

    def _path(self, record_id: str, value: Any) -> Parts:
        try:
            return parts_of(value, self.separator)
        except ValueError as error:
            raise InputError(
                f"adapter {self.name}: the column {self.column!r} holds {error} in the record {record_id!r}; a path "
                f"such as 'animal{self.separator}bird' or a list of strings is needed."
            ) from error

    def _label(self, record_id: str, value: Any) -> str | None:
        if value is not None and not isinstance(value, (str, int)):
            raise InputError(
                f"adapter {self.name}: the column {self.column!r} holds a {type(value).__name__} ({value!r:.80}) in "
                f"the record {record_id!r}; with parents, a string or an integer is needed."
            )
        return None if value is None else str(value).strip() or None

    def _name_of(self, path: Parts) -> str:
        return self.separator.join(part.replace(self.separator, f"\\{self.separator}") for part in path)

    def _weights(self, n_levels: int) -> list[float]:
        weights = self.level_weights or [1.0] * n_levels
        if len(weights) != n_levels:
            raise InputError(
                f"adapter {self.name}: {len(weights)} level_weights, but {n_levels} levels. Give as many, or choose "
                f"levels={len(weights)}."
            )
        return [weight / sum(weights) for weight in weights]

    def remedy(self) -> str:
        """Which option to change when there are too few clusters."""
        if self.of is None:
            return f"Name another column (now column={self.column})."
        if self.method == "hdbscan":
            return f"Lower min_cluster_size (now {self.min_cluster_size}), or take method=kmeans."
        return "The records look alike: take the features of another adapter, or raise level_clusters."
