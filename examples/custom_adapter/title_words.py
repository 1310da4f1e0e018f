"""Titles to clusters by the words they share, in any language and without a model to download."""

from __future__ import annotations

from dataclasses import dataclass

from wscl_embed import Adapter, option


@dataclass(kw_only=True)
class TitleWordsAdapter(Adapter):
    """Clusters records by pieces of the words in their titles, so that plurals and compounds meet.

    `features` is all an adapter must give. It inherits the options of the clusterer (``clusterer``, ``n_clusters``,
    ``min_cluster_size``, ``seed``); a row of zeros, here a record without a title, becomes noise.
    """

    name = "title_words"  # the name in pyproject.toml, and after --adapter

    column: str = option("title", "column with the title, or a list of titles, of each record")
    min_df: int = option(2, "pieces of words in fewer records are dropped", at_least=1)

    def features(self, dataset):
        """(n, F) CSR: TF-IDF of the 3 to 5 letter pieces of the words, unit rows."""
        from sklearn.feature_extraction.text import TfidfVectorizer  # imported when used: listing adapters stays quick

        # `read` refuses a column that is missing, naming those there are, and one that is null throughout.
        titles = [as_text(value) for value in self.read(dataset, self.column)]
        return TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), min_df=self.min_df).fit_transform(titles)


def as_text(value):
    """One string from a title, a list of titles, or null."""
    return " ".join(value) if isinstance(value, list) else value or ""
