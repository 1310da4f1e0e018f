"""Hashtags to clusters: TF-IDF, latent semantic analysis and the clusterer, or a cluster a tag."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_adapters.tag_company import count_company
from wscl_adapters.tag_overlap import overlap_membership
from wscl_adapters.tag_table import TagTable, read_tags
from wscl_adapters.tag_vocabulary import add_words, merge_variants
from wscl_embed.adapter import Adapter, Terms, option
from wscl_embed.clusterers import Features
from wscl_embed.clusters import Clusters, cluster_table
from wscl_embed.errors import InputError
from wscl_embed.raw_labels import NO_SIGNAL, RawLabels
from wscl_embed.terms import describing_columns

if TYPE_CHECKING:
    import datasets

UNSEEN = 1e-6  # a unit row whose reduction is shorter lies outside the kept dimensions
CLUSTER_OPTIONS = {"n_components", *(item.name for item in fields(Adapter))} - {"noise"}


@dataclass(kw_only=True)
class HashtagsAdapter(Adapter):
    """Clusters records by their hashtags.

    The column holds a list of tags or one string (``#Sun #Beach, summer``) a record. Tags are normalised
    (`wscl_embed.terms.normalise_term`) and merged within the record, spellings of one tag are merged, rare compounds
    get the words in them beside them, and the rarest tags and those that say nothing are dropped. With
    ``mode=cluster`` a record is then the TF-IDF vector of its tags, reduced by truncated SVD to unit vectors, for the
    clusterer; with ``mode=overlap`` each tag is a cluster of its own. A record left without tags is noise.
    """

    name = "hashtags"

    column: str = option("tags", "column with the tags: a list of them, or one string")
    mode: Literal["cluster", "overlap"] = option(
        "cluster", "cluster: each record in one cluster of alike ones; overlap: each tag a cluster of its own"
    )
    min_df: int = option(2, "tags in fewer records are dropped", at_least=1)
    min_informativeness: float = option(
        0.5, "tags that say less than this about those beside them are dropped (0 to 1)", at_least=0, at_most=1
    )
    # On emoji keywords (1,377 records, k-means 200; NMI with the 9 groups / 98 subgroups, mean of 5 seeds): all
    # dimensions .509/.763, 32 .542/.776, 64 .536/.783, 128 .524/.782. 64 makes half the singletons of 32.
    n_components: int = option(64, "dimensions of the truncated SVD", at_least=1)

    def __post_init__(self) -> None:
        """Check the options; those of the other mode are refused rather than ignored."""
        super().__post_init__()
        if self.mode not in ("cluster", "overlap"):
            raise InputError(f"adapter {self.name}: mode must be cluster or overlap; got {self.mode!r}.")
        changed = [x.name for x in fields(self) if x.name in CLUSTER_OPTIONS and getattr(self, x.name) != x.default]
        if self.mode == "overlap" and changed:
            raise InputError(f"adapter {self.name}: {changed[0]} applies only with mode=cluster.")

    def assign(self, dataset: datasets.Dataset) -> Clusters:
        """The clusters of the mode."""
        if self.mode == "cluster":
            return super().assign(dataset)
        table, informativeness = self.kept_tags(dataset)
        membership = overlap_membership(table, informativeness)
        used = np.unique(membership.indices)
        if not used.size:
            raise self.no_signal(dataset)
        membership, names = sparse.csr_array(membership[:, used]), [table.tags[column] for column in used.tolist()]
        told = cluster_table(membership, source=self.name, names=names, terms=[[name] for name in names])
        clusters = Clusters(dataset["id"][:], membership, told)
        labels = np.where(clusters.labels < 0, NO_SIGNAL, clusters.labels)
        return replace(clusters, raw=(RawLabels(self.name, labels, self.noise),))

    def features(self, dataset: datasets.Dataset) -> Features:
        """(n, F) float32 unit rows, F <= n_components; zeros where no tag is left."""
        return self.reduced(*self.kept_tags(dataset))

    def terms(self, dataset: datasets.Dataset, labels: NDArray[np.int64]) -> Terms:
        """The most characteristic tags of each cluster."""
        return characteristic_tags(self.kept_tags(dataset)[0], labels)

    def features_and_terms(self, dataset: datasets.Dataset) -> tuple[Features, Callable[[NDArray[np.int64]], Terms]]:
        """Both from a table of tags made once."""
        table, informativeness = self.kept_tags(dataset)
        return self.reduced(table, informativeness), partial(characteristic_tags, table)

    def reduced(self, table: TagTable, informativeness: NDArray[np.float64]) -> NDArray[np.float32]:
        """(n, F) unit rows, F <= n_components, of the records of ``table``; tags weigh as ``informativeness`` (V,)."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.preprocessing import normalize

        n = len(table.inverse)
        rarity = np.log((1 + n) / (1 + table.frequency)) + 1
        rows = normalize(sparse.csr_array(table.rows * (rarity * informativeness)[None, :]))  # (u, V)
        if rows.shape[1] <= self.n_components:
            return rows.astype(np.float32).toarray()[table.inverse]  # type: ignore[no-any-return]
        # A row that occurs c times weighs sqrt(c), which makes this the decomposition of all n rows.
        weighted = sparse.csr_array(rows * np.sqrt(table.counts)[:, None])
        svd = TruncatedSVD(min(self.n_components, len(table.counts)), random_state=self.seed).fit(weighted)
        reduced = svd.transform(rows)  # (u, F)
        # What is left of such a row is rounding error: no direction to stretch to unit length.
        reduced[np.linalg.norm(reduced, axis=1) < UNSEEN] = 0
        return normalize(reduced).astype(np.float32)[table.inverse]  # type: ignore[no-any-return]

    def kept_tags(self, dataset: datasets.Dataset) -> tuple[TagTable, NDArray[np.float64]]:
        """The tags that are kept, and how informative each is (V,).

        Raises:
            InputError: values that are no tags, no tag at all, or none left.
        """
        table, informativeness = self.tags(dataset)
        frequent, telling = table.frequency >= self.min_df, informativeness >= self.min_informativeness
        kept = frequent & telling
        if not kept.any():
            raise InputError(
                f"adapter {self.name}: all {len(kept)} distinct tags in the column {self.column!r} are dropped: "
                f"{(~frequent).sum()} are in fewer than min_df={self.min_df} records (lower min_df), "
                f"{(frequent & ~telling).sum()} say less than min_informativeness={self.min_informativeness} about the "
                "tags beside them (lower min_informativeness)."
            )
        return table.select(kept), informativeness[kept]

    def tags(self, dataset: datasets.Dataset) -> tuple[TagTable, NDArray[np.float64]]:
        """All tags after spellings are merged and words added, and how informative each is (V,).

        Raises:
            InputError: values that are no tags, or no tag at all.
        """
        column = self.read_arrow(dataset, self.column)
        try:
            table = read_tags(column)
        except InputError as error:
            raise InputError(f"adapter {self.name}: the column {self.column!r} {error}") from error
        if not table.tags:
            raise self.no_signal(dataset)
        table = add_words(merge_variants(table))
        return table, count_company(table).informativeness()


def characteristic_tags(table: TagTable, labels: NDArray[np.int64]) -> Terms:
    """The most characteristic tags of each cluster 0..K-1 of (n,) ``labels``."""
    return describing_columns(table.of_records(), table.tags, labels)
