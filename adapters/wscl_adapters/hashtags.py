"""Hashtags to clusters: TF-IDF, latent semantic analysis, then the clusterer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.adapter import Adapter, option
from wscl_embed.clusterers import Features, collapse_rows
from wscl_embed.errors import InputError
from wscl_embed.terms import describing_terms, normalise_term

if TYPE_CHECKING:
    import datasets

# A "#" that starts a keycap emoji is no hashtag.
SEPARATORS = re.compile(r"[\s,;|，、；،؛]+|[#＃](?!\ufe0f?\u20e3)")
UNSEEN = 1e-6  # a unit row whose reduction is shorter lies outside the kept dimensions


@dataclass(kw_only=True)
class HashtagsAdapter(Adapter):
    """Clusters records by their hashtags.

    The column holds a list of tags or one string (``#Sun #Beach, summer``) a record. Tags are normalised
    (`wscl_embed.terms.normalise_term`) and merged within the record; the rarest and the most frequent are dropped; a
    record is then the TF-IDF vector of its tags, reduced by truncated SVD to unit vectors. A record left without tags
    is noise.
    """

    name = "hashtags"

    column: str = option("tags", "column with the tags: a list of them, or one string")
    min_df: int = option(2, "tags in fewer records are dropped", at_least=1)
    max_df: float = option(0.5, "tags in more than this share of the tagged records are dropped", at_least=0, at_most=1)
    # On emoji keywords (1,377 records, k-means 200; NMI with the 9 groups / 98 subgroups, mean of 5 seeds): all
    # dimensions .509/.763, 32 .542/.776, 64 .536/.783, 128 .524/.782. 64 makes half the singletons of 32.
    n_components: int = option(64, "dimensions of the truncated SVD", at_least=1)

    def features(self, dataset: datasets.Dataset) -> Features:
        """(n, F) float64 unit rows, F <= n_components; zeros where no tag is left."""
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize

        tags = self.tags(dataset)
        tfidf = TfidfVectorizer(analyzer=list, dtype=np.float64).fit_transform(tags)  # (n, V), rows of length 1 or 0
        rows, inverse, counts = collapse_rows(sparse.csr_array(tfidf))  # (u, V)
        if rows.shape[1] <= self.n_components:
            return sparse.csr_array(rows).toarray()[inverse]
        # A row that occurs c times weighs sqrt(c), which makes this the decomposition of all n rows.
        weighted = sparse.csr_array(rows * np.sqrt(counts)[:, None])
        svd = TruncatedSVD(min(self.n_components, len(counts)), random_state=self.seed).fit(weighted)
        reduced = svd.transform(rows)  # (u, F)
        # What is left of such a row is rounding error: no direction to stretch to unit length.
        reduced[np.linalg.norm(reduced, axis=1) < UNSEEN] = 0
        return normalize(reduced)[inverse]  # type: ignore[no-any-return]

    def terms(self, dataset: datasets.Dataset, labels: NDArray[np.int64]) -> Sequence[Sequence[str]]:
        """The most characteristic tags of each cluster."""
        return describing_terms(self.tags(dataset), labels)

    def tags(self, dataset: datasets.Dataset) -> list[list[str]]:
        """n lists of normalised, distinct tags within the frequency limits.

        Raises:
            InputError: values that are no tags, no tag at all, or none within the limits.
        """
        records = [self.record_tags(value) for value in self.read(dataset, self.column)]
        frequency = Counter(tag for tags in records for tag in tags)
        if not frequency:
            raise self.no_signal(dataset)
        ceiling = self.max_df * sum(map(bool, records))
        kept = {tag for tag, count in frequency.items() if self.min_df <= count <= ceiling}
        if not kept:
            rare = sum(count < self.min_df for count in frequency.values())
            frequent = sum(count > ceiling for count in frequency.values())
            raise InputError(
                f"adapter {self.name}: all {len(frequency)} distinct tags in the column {self.column!r} are dropped: "
                f"{rare} are in fewer than min_df={self.min_df} records (lower min_df), {frequent} in more than "
                f"max_df={self.max_df} of the {sum(map(bool, records))} tagged records (raise max_df)."
            )
        return [[tag for tag in tags if tag in kept] for tags in records]

    def record_tags(self, value: Any) -> list[str]:
        """The distinct normalised tags of one record, in order of appearance.

        >>> HashtagsAdapter().record_tags("#Sun #Beach, summer#sun")
        ['sun', 'beach', 'summer']
        """
        if value is None:
            return []
        if isinstance(value, str):
            value = SEPARATORS.split(value)
        elif not isinstance(value, list):
            raise InputError(
                f"adapter {self.name}: the column {self.column!r} holds a {type(value).__name__} ({value!r}); "
                "a list of tags or one string a record is needed."
            )
        tags = (normalise_term(str(tag)) for tag in value if tag is not None)
        return list(dict.fromkeys(filter(None, tags)))
