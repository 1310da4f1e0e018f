"""Recall@k and mAP@R against loops, the paired bootstrap, and the verdict."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.references import retrieval_reference
from wscl_embed.errors import InputError
from wscl_embed.retrieval import METRICS, Change, Retrieval, compare, evaluate_retrieval, verdict


@settings(max_examples=60, deadline=None)
@given(labels=st.lists(st.sampled_from("abcd"), min_size=5, max_size=30), seed=st.integers(0, 999))
def test_equals_the_reference(labels: list[str], seed: int) -> None:
    embeddings = np.random.default_rng(seed).standard_normal((len(labels), 6))
    result = evaluate_retrieval(embeddings, labels, chunk=4)
    assert result.means() == pytest.approx(retrieval_reference(embeddings, list(labels)))


def test_images_without_a_label_are_neither_query_nor_result() -> None:
    embeddings = np.array([[1.0, 0.0], [1.0, 0.01], [0.9, 0.3], [0.0, 1.0]])
    result = evaluate_retrieval(embeddings, ["a", None, "a", "b"])
    assert result.n_queries == 2
    assert result.n_skipped == 1
    assert result.means()["recall@1"] == 1


def test_nothing_to_retrieve_is_refused() -> None:
    with pytest.raises(InputError, match="no label occurs twice"):
        evaluate_retrieval(np.eye(3), ["a", "b", "c"])


def retrieval(values: np.ndarray) -> Retrieval:
    return Retrieval(dict.fromkeys(METRICS, values), 0)


def test_the_interval_holds_the_mean_and_narrows_with_queries() -> None:
    rng = np.random.default_rng(0)
    few, many = (rng.standard_normal(n) * 0.3 + 0.1 for n in (50, 5000))
    wide, narrow = (compare(retrieval(np.zeros(len(d))), retrieval(d))["map@r"] for d in (few, many))
    assert wide.low < wide.mean < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 5
    # The standard error of the mean is 0.3 / sqrt(5000); the interval is 1.96 of them on each side.
    assert narrow.high - narrow.mean == pytest.approx(1.96 * 0.3 / 5000**0.5, rel=0.1)


def test_equal_embeddings_do_not_differ() -> None:
    values = np.random.default_rng(0).random(100)
    changes = compare(retrieval(values), retrieval(values))
    assert changes["recall@1"] == Change(0.0, 0.0, 0.0)
    assert verdict(changes) == "no difference"


UP, DOWN, SAME = Change(0.02, 0.01, 0.03), Change(-0.02, -0.03, -0.01), Change(0.0, -0.01, 0.01)


@pytest.mark.parametrize(
    ("recall", "precision", "said"),
    [
        (UP, UP, "better"),
        (UP, SAME, "better"),
        (SAME, SAME, "no difference"),
        (UP, DOWN, "mixed"),
        (DOWN, UP, "mixed"),
        (SAME, DOWN, "worse"),
        (DOWN, DOWN, "worse"),
    ],
)
def test_verdict(recall: Change, precision: Change, said: str) -> None:
    assert verdict({"recall@1": recall, "map@r": precision}) == said
