"""Captions to clusters: sentence embeddings, then the clusterer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_adapters.sentence_models import DEFAULT_MODEL, SentenceModel
from wscl_embed.adapter import Adapter, Terms, option
from wscl_embed.cache import RowCache, Rows, default_cache_dir
from wscl_embed.clusterers import Features
from wscl_embed.errors import InputError
from wscl_embed.terms import describing_terms, words

if TYPE_CHECKING:
    import datasets

logger = logging.getLogger("wscl_embed")


@dataclass(kw_only=True)
class CaptionsAdapter(Adapter):
    """Clusters records by the meaning of their captions.

    The column holds a string or a list of strings a record, embedded by a sentence-transformers model; several
    captions are averaged. A record without text is noise. Embeddings are cached on disk by model and text
    (`wscl_embed.cache`), so that a further run embeds only what is new.
    """

    name = "captions"

    column: str = option("captions", "column with the caption, or a list of captions, of each record")
    model: str = option(
        DEFAULT_MODEL, "sentence-transformers model: a name on the Hub, or a folder; this one reads English"
    )
    batch_size: int = option(64, "texts embedded at once", at_least=1)

    def features(self, dataset: datasets.Dataset) -> Features:
        """(n, D) float32 unit rows; zeros where a record has no text."""
        return self.mean_vectors(self.captions(dataset), dataset)

    def terms(self, dataset: datasets.Dataset, labels: NDArray[np.int64]) -> Terms:
        """The most characteristic words of each cluster, without English function words."""
        return describing_words(self.captions(dataset), labels)

    def features_and_terms(self, dataset: datasets.Dataset) -> tuple[Features, Callable[[NDArray[np.int64]], Terms]]:
        """Both from captions read once."""
        captions = self.captions(dataset)
        return self.mean_vectors(captions, dataset), partial(describing_words, captions)

    def mean_vectors(self, captions: Sequence[list[str]], dataset: datasets.Dataset) -> NDArray[np.float32]:
        """(n, D) unit rows: the direction of the mean vector of each record's captions."""
        from sklearn.preprocessing import normalize

        texts = list(dict.fromkeys(text for record in captions for text in record))
        if not texts:
            raise self.no_signal(dataset)
        vectors = self.embed(texts)  # (u, D), one row a distinct text
        position = {text: row for row, text in enumerate(texts)}
        features = np.zeros((len(captions), vectors.shape[1]), dtype=np.float32)
        for row, record in enumerate(captions):
            if record:
                features[row] = vectors[[position[text] for text in record]].mean(axis=0)
        return normalize(features, copy=False)  # type: ignore[no-any-return]

    def captions(self, dataset: datasets.Dataset) -> list[list[str]]:
        """n lists of captions without surrounding white space, the blank ones left out.

        Raises:
            InputError: values that are no text (names the id).
        """
        values = zip(dataset["id"][:], self.read(dataset, self.column), strict=True)
        return [self.record_captions(value, record_id) for record_id, value in values]

    def record_captions(self, value: Any, record_id: str) -> list[str]:
        """The captions of one record."""
        captions = [value] if value is None or isinstance(value, str) else value
        if not isinstance(captions, list) or not all(text is None or isinstance(text, str) for text in captions):
            raise InputError(
                f"adapter {self.name}: the column {self.column!r} holds a {type(value).__name__} ({value!r:.80}) in "
                f"the record {record_id!r}; a string or a list of strings a record is needed."
            )
        return [text.strip() for text in captions if text is not None and text.strip()]

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """(u, D) float32 unit rows of u distinct texts, those met before from the cache."""
        model = SentenceModel(self.model, self.batch_size)
        identity = model.identity()
        if identity is None:
            rows: Rows = model.rows(texts)
        else:
            rows = RowCache(default_cache_dir() / "texts" / identity).rows(texts, model.rows)
        cut = rows["cut_to"]
        if cut.any():
            logger.warning(
                "adapter %s: %d of %d distinct texts are longer than the %d tokens %s reads; their ends are ignored. "
                "To have all of a text read, give it as a list of parts: the captions of a record are averaged.",
                self.name,
                np.count_nonzero(cut),
                len(texts),
                cut.max(),
                self.model,
            )
        return rows["vectors"]


def describing_words(captions: Sequence[Sequence[str]], labels: NDArray[np.int64]) -> Terms:
    """The most characteristic words of each cluster 0..K-1 of (n,) ``labels``, without English function words."""
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS as STOP

    tokens = [[word for word in words(" ".join(record)) if word not in STOP] for record in captions]
    return describing_terms(tokens, labels)
