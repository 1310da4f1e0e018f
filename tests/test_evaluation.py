"""Every metric against a loop and against the libraries people know, the paired bootstrap, and the verdict."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.references import cosine, cross_modal_reference, retrieval_reference
from wscl_embed.errors import InputError
from wscl_embed.evaluation import (
    RETRIEVAL_METRICS,
    VERDICTS,
    Change,
    compare,
    evaluate_retrieval,
    neighbours,
    probes,
    retrieval,
    verdict,
)
from wscl_embed.evaluation.cross_modal import IMAGE_TO_TEXT, TEXT_TO_IMAGE, evaluate_cross_modal
from wscl_embed.evaluation.neighbours import drawn
from wscl_embed.evaluation.probes import knn_accuracy, linear_probe
from wscl_embed.evaluation.scores import EvaluationSet, Texts


def labelled(n: int = 120, n_labels: int = 7, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings in which labels overlap, labels of unequal sizes, one of them alone."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.3, n) - 1, n_labels - 2)
    labels[n // 2] = n_labels - 1
    return (rng.standard_normal((n_labels, 8))[labels] + rng.standard_normal((n, 8))).astype(np.float32), labels


@settings(max_examples=40)
@given(labels=st.lists(st.sampled_from("abcd"), min_size=5, max_size=30), seed=st.integers(0, 999))
def test_retrieval_equals_the_loop_query_by_query(labels: list[str], seed: int) -> None:
    embeddings = np.random.default_rng(seed).standard_normal((len(labels), 6))
    found = evaluate_retrieval(embeddings, labels).per_query
    expected = retrieval_reference(embeddings, list(labels))
    assert found.keys() == expected.keys() == set(RETRIEVAL_METRICS)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, atol=1e-12)


def test_retrieval_equals_pytorch_metric_learning() -> None:
    pytest.importorskip("pytorch_metric_learning", reason="a package of the extra wscl-embed[test]")
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator
    from pytorch_metric_learning.utils.inference import CustomKNN

    embeddings, labels = labelled()
    names = {
        "recall@1": "precision_at_1",
        "r_precision": "r_precision",
        "map@r": "mean_average_precision_at_r",
    }
    calculator = AccuracyCalculator(
        include=tuple(names.values()), k="max_bin_count", knn_func=CustomKNN(CosineSimilarity())
    )
    theirs = calculator.get_accuracy(torch.from_numpy(embeddings), torch.from_numpy(labels))
    ours = evaluate_retrieval(embeddings, labels.tolist())
    assert ours.n_skipped == 1
    for name, other in names.items():
        assert ours.means()[name] == pytest.approx(theirs[other], abs=1e-6), name


def test_retrieval_equals_torchmetrics() -> None:
    pytest.importorskip("torchmetrics", reason="a package of the extra wscl-embed[test]")
    from torchmetrics.functional import retrieval as theirs

    embeddings, labels = labelled()
    ours = evaluate_retrieval(embeddings, labels.tolist()).per_query
    unit = torch.nn.functional.normalize(torch.from_numpy(embeddings))
    queries = [row for row in range(len(labels)) if (labels == labels[row]).sum() > 1]
    assert len(queries) == len(labels) - 1
    for number, query in enumerate(queries):
        others = np.flatnonzero(np.arange(len(labels)) != query)
        similarity = unit[others] @ unit[query]
        relevant = torch.from_numpy(labels[others] == labels[query])
        cut = int(relevant.sum())
        expected = {
            "r_precision": theirs.retrieval_r_precision(similarity, relevant),
            "ndcg": theirs.retrieval_normalized_dcg(similarity, relevant, top_k=cut),
            **{f"recall@{k}": theirs.retrieval_hit_rate(similarity, relevant, top_k=k) for k in (1, 5, 10)},
        }
        for name, value in expected.items():
            assert ours[name][number] == pytest.approx(float(value), abs=1e-5), (name, query)


@pytest.mark.parametrize("budget", [1, 4000, 20_000])
def test_memory_is_bounded_and_chunks_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings, labels = labelled()
    images = EvaluationSet(
        np.arange(80), labels.tolist(), np.arange(80, 120), Texts(embeddings[:80:2] + 1, np.array([[0, 3], [9, 3]]))
    )
    whole = images.score(embeddings)
    tiles = []

    def watched(queries: torch.Tensor, rows: torch.Tensor, k: int, own: Any = None) -> Any:
        tiles.append((len(queries), 4 * len(queries) * len(rows)))
        return nearest(queries, rows, k, own)

    nearest = neighbours.nearest
    monkeypatch.setattr(neighbours, "CHUNK_BYTES", budget)
    for module in (retrieval, probes):
        monkeypatch.setattr(module, "nearest", watched)
    pieces = images.score(embeddings)
    assert all(size <= budget or queries == 1 for queries, size in tiles)
    assert sum(queries for queries, _ in tiles) == 79 + 80  # of retrieval, one image being alone, and of the neighbours
    assert len(tiles) >= 4
    assert pieces.per_query.keys() == whole.per_query.keys()
    for name, values in whole.per_query.items():
        np.testing.assert_allclose(pieces.per_query[name], values, atol=1e-12, err_msg=name)


def test_images_without_a_label_are_neither_query_nor_result() -> None:
    embeddings = np.array([[1.0, 0.0], [1.0, 0.01], [0.9, 0.3], [0.0, 1.0]])
    result = evaluate_retrieval(embeddings, ["a", None, "a", "b"])
    assert result.n_queries == 2
    assert result.n_skipped == 1
    assert result.means()["recall@1"] == 1


@pytest.mark.parametrize("missing", [None, np.nan, pd.NA, " "], ids=["None", "NaN", "NA", "blank"])
def test_a_missing_label_is_no_class(missing: object) -> None:
    embeddings, labels = labelled()
    with_gaps = [missing if row % 3 == 0 else label for row, label in enumerate(labels.tolist())]
    there = np.arange(len(labels)) % 3 != 0
    expected = evaluate_retrieval(embeddings[there], labels[there])
    assert evaluate_retrieval(embeddings, with_gaps).means() == expected.means()


def test_labels_go_by_their_order_and_not_by_their_index() -> None:
    embeddings, labels = labelled()
    order = np.random.default_rng(0).permutation(len(labels))[:80]
    series = pd.Series(labels).iloc[order]
    assert (
        evaluate_retrieval(embeddings[order], series).means()
        == evaluate_retrieval(embeddings[order], labels[order]).means()
    )


def test_the_length_of_a_row_is_nothing() -> None:
    """Also where its square is beyond float32, or float64."""
    embeddings, labels = labelled()
    embeddings = embeddings.astype(np.float64)
    expected = evaluate_retrieval(embeddings, labels).means()
    for scale in (1e-300, 1e-25, 1e25, 1e200):
        assert evaluate_retrieval(embeddings * scale, labels).means() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(bad: float) -> None:
    embeddings, labels = labelled()
    embeddings[5, 3] = bad
    with pytest.raises(InputError, match="row 5 of the embeddings is not finite"):
        evaluate_retrieval(embeddings, labels)


def test_as_many_labels_as_rows_and_some_queries() -> None:
    embeddings, labels = labelled()
    for rows, few in ((embeddings, [None, *labels[:60]]), (embeddings[:60], labels), (embeddings[:, 0], labels)):
        with pytest.raises(InputError, match="one row a label"):
            evaluate_retrieval(rows, few)
    with pytest.raises(InputError, match="max_queries must be at least 1"):
        evaluate_retrieval(embeddings, labels, max_queries=0)


def test_nothing_to_retrieve_is_refused() -> None:
    with pytest.raises(InputError, match="no label occurs twice"):
        evaluate_retrieval(np.eye(3), ["a", "b", "c"])


def test_the_nearest_neighbours_vote_as_a_loop_and_scikit_learn_have_it() -> None:
    from sklearn.neighbors import KNeighborsClassifier

    embeddings, labels = labelled(200)
    bank, queries = np.arange(140), np.arange(140, 200)
    ours = knn_accuracy(embeddings[bank], labels[bank], embeddings[queries], labels[queries])
    slow = []
    for query in queries:
        near = sorted(bank, key=lambda row: -cosine(embeddings[query], embeddings[row]))[:20]
        votes: dict[int, float] = {}
        for row in near:
            weight = np.exp(cosine(embeddings[query], embeddings[row]) / 0.07)
            votes[labels[row]] = votes.get(labels[row], 0) + weight
        slow.append(float(max(votes, key=votes.__getitem__) == labels[query]))
    np.testing.assert_array_equal(ours, slow)
    model = KNeighborsClassifier(20, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07))
    model.fit(embeddings[bank], labels[bank])
    np.testing.assert_array_equal(ours, model.predict(embeddings[queries]) == labels[queries])
    assert 0.3 < ours.mean() < 1


def test_the_linear_probe_learns_what_neighbours_cannot_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """The label is in the sign of one coordinate, drowned in others of no meaning."""
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=3000)
    embeddings = rng.standard_normal((3000, 30)) * 2
    embeddings[:, 0] = (2 * labels - 1) + 0.2 * rng.standard_normal(3000)
    data = (embeddings[:2000], labels[:2000], embeddings[2000:], labels[2000:])
    assert linear_probe(*data).mean() > 0.95 > 0.8 > knn_accuracy(*data).mean()
    assert linear_probe(*data[:3], 1 - data[3]).mean() < 0.05
    monkeypatch.setattr(probes, "PROBE_ROWS", 200)  # a larger bank is sampled
    assert 0.8 < linear_probe(*data).mean() < 1
    one_label = np.zeros(2000, dtype=np.int64)
    assert linear_probe(data[0], one_label, *data[2:]).mean() == pytest.approx((data[3] == 0).mean())


def test_a_label_the_bank_lacks_is_never_right() -> None:
    bank, queries = np.eye(3), np.eye(3)
    for probe in (knn_accuracy, linear_probe):
        right = probe(bank, np.array([0, 1, 0]), queries, np.array([0, 5, 0]))
        assert right.tolist() == [1, 0, 1], probe


@settings(max_examples=30)
@given(
    pairs=st.sets(st.tuples(st.integers(0, 11), st.integers(0, 7)), min_size=1, max_size=20), seed=st.integers(0, 999)
)
def test_cross_modal_equals_the_loop(pairs: set[tuple[int, int]], seed: int) -> None:
    """Images with several texts and texts with several images among them, and ones without any."""
    rng = np.random.default_rng(seed)
    images, texts = rng.standard_normal((12, 5)), rng.standard_normal((8, 5))
    found = evaluate_cross_modal(images, texts, np.array(sorted(pairs), dtype=np.int64))
    expected = cross_modal_reference(images, texts, sorted(pairs))
    assert found.keys() == expected.keys() == {*TEXT_TO_IMAGE, *IMAGE_TO_TEXT}
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_only_the_images_that_are_scored_are_found() -> None:
    """Rows 0 and 1 would be nearer, and one of them carries the label."""
    embeddings = np.array([[1.0, 0.0], [1.0, 0.01], [1.0, 0.1], [0.9, 0.4], [0.1, 1.0]])
    labels = ["a", "b", "a", "a", "b"]
    texts = Texts(np.array([[1.0, 0.0]]), np.array([[1, 0]]))
    scores = EvaluationSet(np.array([2, 3, 4]), labels, np.array([0, 1]), texts).score(embeddings)
    assert (scores.n_queries, scores.n_skipped) == (2, 1)
    assert scores.per_query["recall@1"].tolist() == [1, 1]
    assert scores.per_query["text_to_image_recall@1"].tolist() == [0]
    assert scores.per_query["text_to_image_recall@5"].tolist() == [1]
    assert len(scores.per_query["knn"]) == len(scores.per_query["linear_probe"]) == 3
    assert "knn" not in EvaluationSet(np.array([2, 3, 4]), labels).score(embeddings).per_query
    assert EvaluationSet(np.array([2, 3, 4]), texts=texts).score(embeddings).means().keys() == {
        *TEXT_TO_IMAGE,
        *IMAGE_TO_TEXT,
    }


def changes_of(difference: NDArray[np.float64]) -> Change:
    return compare({"map@r": np.zeros(len(difference))}, {"map@r": difference})["map@r"]


def test_the_interval_holds_the_mean_and_narrows_with_queries() -> None:
    rng = np.random.default_rng(0)
    wide, narrow = (changes_of(rng.standard_normal(n) * 0.3 + 0.1) for n in (50, 5000))
    assert wide.low < wide.mean < wide.high
    assert narrow.high - narrow.low < (wide.high - wide.low) / 5
    # The standard error of the mean is 0.3 / sqrt(5000); the interval is 1.96 of them on each side.
    assert narrow.high - narrow.mean == pytest.approx(1.96 * 0.3 / 5000**0.5, rel=0.1)


def test_the_interval_is_that_of_scipy() -> None:
    from scipy.stats import bootstrap

    difference = np.random.default_rng(1).choice([-1.0, 0.0, 1.0], size=300, p=[0.05, 0.8, 0.15])
    theirs = bootstrap((difference,), np.mean, n_resamples=4000, method="percentile", rng=2).confidence_interval
    ours = changes_of(difference)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.006)


def test_metrics_with_queries_of_their_own_are_compared_apart() -> None:
    rng = np.random.default_rng(0)
    before = {"recall@1": rng.random(40), "map@r": rng.random(40), "text_to_image_recall@10": rng.random(70)}
    after = {name: values + 0.5 for name, values in before.items()}
    changes = compare(before, after)
    assert list(changes) == list(before)
    for change in changes.values():
        assert (change.mean, change.low, change.high) == pytest.approx((0.5, 0.5, 0.5))


def test_resampling_in_blocks_is_resampling(monkeypatch: pytest.MonkeyPatch) -> None:
    from wscl_embed.evaluation import bootstrap

    difference = np.random.default_rng(0).standard_normal(200)
    whole = changes_of(difference)
    monkeypatch.setattr(bootstrap, "BLOCK", 1000)
    assert changes_of(difference) == whole


def test_equal_embeddings_do_not_differ() -> None:
    values = {name: np.random.default_rng(0).random(100) for name in ("recall@1", "map@r")}
    changes = compare(values, values)
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


@pytest.mark.parametrize(("change", "said"), [(UP, "better"), (SAME, "no difference"), (DOWN, "worse")])
def test_verdict_without_labels(change: Change, said: str) -> None:
    assert verdict({"text_to_image_recall@1": DOWN, "text_to_image_recall@10": change}) == said
    assert said in VERDICTS


@pytest.mark.parametrize(
    "after",
    [{}, {"recall@1": np.ones(3)}, {"recall@1": np.float64(1)}, {"recall@1": np.array([1.0, np.nan])}],
    ids=["lacks", "others", "means", "NaN"],
)
def test_what_is_not_the_same_queries_is_not_compared(after: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="each of the same queries"):
        compare({"recall@1": np.ones(2)}, after)
    with pytest.raises(InputError, match="it is decided by recall@1 and map@r"):
        verdict(compare({"recall@1": np.ones(2)}, {"recall@1": np.ones(2)}))


def test_drawn_queries_score_as_they_do_among_all_of_them() -> None:
    generator = np.random.default_rng(3)
    rows, texts = generator.standard_normal((90, 8)), generator.standard_normal((40, 8))
    labels = [str(number) for number in generator.integers(0, 12, 90)]
    pairs = np.stack([np.arange(40), np.arange(40)], axis=1)
    bank = np.arange(30)
    scored = np.arange(30, 90)
    few, all_of_them = (
        EvaluationSet(scored, labels, bank, Texts(texts, pairs), most).score(rows) for most in (10, None)
    )
    assert few.n_queries == 10
    assert all_of_them.n_queries > 50
    assert {len(values) for values in few.per_query.values()} == {10}
    alone = evaluate_retrieval(rows[30:], labels[30:]).per_query
    asked = drawn(np.arange(len(alone["map@r"])), 10)
    np.testing.assert_array_equal(few.per_query["map@r"], alone["map@r"][asked])
    texts_asked = few.per_query["text_to_image_recall@10"]
    np.testing.assert_array_equal(
        texts_asked, all_of_them.per_query["text_to_image_recall@10"][drawn(np.arange(40), 10)]
    )
