"""What an embedding is scored on, and all its scores at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from wscl_embed.evaluation.cross_modal import evaluate_cross_modal
from wscl_embed.evaluation.neighbours import drawn
from wscl_embed.evaluation.probes import knn_accuracy, linear_probe
from wscl_embed.evaluation.retrieval import encode_labels, evaluate_retrieval

NO_ROWS = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Scores:
    """Metric name -> one value a query.

    ============= ========================================================================================
    ``per_query`` metric name -> (q,) float64; metrics may have queries of their own
    ``n_queries`` the images that queried the others by label
    ``n_skipped`` images whose label no other has: nothing to find, so they are no queries of retrieval
    ============= ========================================================================================
    """

    per_query: dict[str, NDArray[np.float64]]
    n_queries: int = 0
    n_skipped: int = 0

    def means(self) -> dict[str, float]:
        """Metric name -> mean over its queries."""
        return {name: float(values.mean()) for name, values in self.per_query.items()}


@dataclass(frozen=True)
class Texts:
    """Captions as an encoder's text tower embeds them.

    ========== ===========================================================================
    ``values`` (m, D) embeddings of the distinct texts
    ``pairs``  (p, 2) int64, the number of an image among those scored, and the row of a text of it
    ========== ===========================================================================
    """

    values: NDArray[np.floating]
    pairs: NDArray[np.int64]


@dataclass(frozen=True)
class EvaluationSet:
    """What embeddings of the same n images are scored on.

    ========== ===============================================================================================
    ``rows``   (q,) int64, the images that are scored
    ``labels`` n labels, None where there is none; None: no scores by label
    ``bank``   (b,) int64, the images whose labels the probes learn from; empty: no probes. Labels are read here,
               for scoring, and nowhere else
    ``texts``  captions of the images in ``rows``; None: no scores by text
    ``most``   of the images (and of the captions) at most so many query, drawn at random; None: all
    ========== ===============================================================================================
    """

    rows: NDArray[np.int64]
    labels: Sequence[object] | None = None
    bank: NDArray[np.int64] = field(default_factory=lambda: NO_ROWS)
    texts: Texts | None = None
    most: int | None = None

    def score(self, embeddings: NDArray[np.floating]) -> Scores:
        """All scores of (n, D) embeddings.

        >>> images = EvaluationSet(np.arange(3), labels=["a", "a", "b"])
        >>> images.score(np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])).means()["recall@1"]
        1.0
        """
        found: dict[str, NDArray[np.float64]] = {}
        n_queries = n_skipped = 0
        if self.labels is not None:
            labels = [self.labels[row] for row in self.rows]
            by_label = evaluate_retrieval(self._scored(embeddings), labels, max_queries=self.most)
            n_queries, n_skipped = by_label.n_queries, by_label.n_skipped
            found = {**by_label.per_query, **self._probe(embeddings, self.labels)}
        if self.texts is not None:
            texts = self.texts
            found |= evaluate_cross_modal(self._scored(embeddings), texts.values, texts.pairs, max_queries=self.most)
        return Scores(found, n_queries, n_skipped)

    def _scored(self, embeddings: NDArray[np.floating]) -> NDArray[np.floating]:
        """Those of ``rows``, without a copy where that is all of them."""
        all_of_them = np.array_equal(self.rows, np.arange(len(embeddings)))
        return embeddings if all_of_them else embeddings[self.rows]

    def _probe(self, embeddings: NDArray[np.floating], labels: Sequence[object]) -> dict[str, NDArray[np.float64]]:
        both = np.concatenate([self.bank, drawn(self.rows, self.most)])
        present, codes = encode_labels([labels[row] for row in both])
        in_bank = present < len(self.bank)
        if not in_bank.any() or in_bank.all():
            return {}
        bank, queries = both[present[in_bank]], both[present[~in_bank]]
        arguments = (embeddings[bank], codes[in_bank], embeddings[queries], codes[~in_bank])
        return {"knn": knn_accuracy(*arguments), "linear_probe": linear_probe(*arguments)}
