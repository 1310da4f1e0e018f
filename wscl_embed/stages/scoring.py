"""Before against after: the images a run is scored on, and the comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.captions import EncodeTexts, distinct_captions
from wscl_embed.config import FitConfig
from wscl_embed.dataset import split_rows
from wscl_embed.stages.inputs import read_labels
from wscl_embed.stages.material import Material

if TYPE_CHECKING:
    import datasets

    from wscl_embed.evaluation.scores import EvaluationSet


def held_out_rows(dataset: datasets.Dataset, config: FitConfig) -> NDArray[np.int64]:
    """The rows of ``dataset`` that are scored; none when there is nothing to score them by."""
    if not config.scored:
        return np.zeros(0, dtype=np.int64)
    return np.asarray(split_rows(dataset, config.eval_split), dtype=np.int64)


def evaluation_set(
    encode_texts: EncodeTexts,
    dataset: datasets.Dataset,
    rows: NDArray[np.int64],
    *,
    label_column: str | None,
    caption_column: str | None,
    bank: NDArray[np.int64] | None = None,
    most: int | None = None,
) -> EvaluationSet:
    """The images ``rows`` of ``dataset`` with their labels and captions, as far as there are columns named for them.

    Args:
        encode_texts: m distinct captions to their (m, D) embeddings; not called without a ``caption_column``.
        bank: the images whose labels the probes learn from.
        most: how many queries at most.
    """
    from wscl_embed.evaluation.scores import NO_ROWS, EvaluationSet, Texts

    labels = None if label_column is None else read_labels(dataset, label_column)
    texts = None
    if caption_column is not None:
        captions, pairs = distinct_captions(dataset.select(rows), caption_column)
        texts = Texts(encode_texts(captions), np.asarray(pairs, dtype=np.int64))
    return EvaluationSet(rows, labels, NO_ROWS if bank is None else bank, texts, most)


def score(
    encode_texts: EncodeTexts,
    material: Material,
    tuned: NDArray[np.floating],
    held_out: NDArray[np.int64],
    config: FitConfig,
) -> dict[str, Any]:
    """The before/after part of ``metrics.json``; nothing without a column to score by.

    Args:
        encode_texts: as in `evaluation_set`.
        tuned: (n, D) outputs of the encoder that is written.
    """
    if not config.scored:
        return {}
    scored = evaluation_set(
        encode_texts,
        material.dataset,
        held_out,
        label_column=config.label_column,
        caption_column=config.caption_column,
        bank=material.train,
    )
    return {
        "split": config.eval_split,
        "label_column": config.label_column,
        "caption_column": config.caption_column,
        **compare_embeddings(scored, material.frozen, tuned),
    }


def compare_embeddings(
    scored: EvaluationSet, before: NDArray[np.floating] | None, after: NDArray[np.floating]
) -> dict[str, Any]:
    """Scores of ``after``, and against ``before`` (both (n, D)) the changes and the verdict."""
    from wscl_embed.evaluation import compare, verdict

    tuned = scored.score(after)
    metrics: dict[str, Any] = {"n_queries": tuned.n_queries, "n_skipped": tuned.n_skipped, "after": tuned.means()}
    if before is None:
        return metrics
    frozen = scored.score(before)
    changes = compare(frozen.per_query, tuned.per_query)
    return {
        **metrics,
        "before": frozen.means(),
        "change": {name: {"mean": c.mean, "low": c.low, "high": c.high} for name, c in changes.items()},
        "verdict": verdict(changes),
    }
