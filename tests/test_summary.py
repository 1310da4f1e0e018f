"""The figures of a clustering, each against a count by hand or a slow loop."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import wscl_embed.diagnostics.summary
from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters, cluster_table
from wscl_embed.diagnostics.summary import check_clusters, positive_pairs, summarise, summary_lines
from wscl_embed.errors import InputError
from wscl_embed.registry import make_adapter


def from_matrix(matrix: Any) -> Clusters:
    membership = sparse.csr_array(np.asarray(matrix, dtype=np.float32))
    ids = [str(row) for row in range(membership.shape[0])]
    return Clusters(ids, membership, cluster_table(membership, source="made"))


def slow_expected_positives(matrix: np.ndarray, batch: int) -> float:
    """The mean over all batches and their images of the other images that share a column."""
    n = len(matrix)
    met = [
        sum(bool((matrix[i] * matrix[j]).any()) for j in chosen if j != i)
        for chosen in combinations(range(n), batch)
        for i in chosen
    ]
    return float(np.mean(met))


LABELS = [0, 0, 0, 1, 1, 2, -1, -1]


def test_the_counts_of_hard_clusters() -> None:
    clusters = Clusters.from_labels(list("abcdefgh"), LABELS, name="toy", terms=[["sun", "sea"], ["snow"], []])
    summary = summarise(clusters, batch_size=4, largest=2)
    assert summary.n_images == 8
    assert summary.n_clusters == 3
    assert summary.noise_share == 0.25
    assert summary.singletons == 1
    assert summary.sizes.tolist() == [3, 2, 1]
    assert summary.size_quantiles == {"min": 1, "median": 2, "p90": pytest.approx(2.8), "max": 3}
    assert summary.n_positive_pairs == 3 * 2 + 2 * 1
    assert summary.expected_positives == pytest.approx(slow_expected_positives(clusters.membership.toarray(), 4))
    assert [(c.name, c.size, c.terms) for c in summary.largest] == [
        ("toy-0", 3, ["sun", "sea"]),
        ("toy-1", 2, ["snow"]),
    ]


def test_the_lines_say_it() -> None:
    clusters = Clusters.from_labels(list("abcdefgh"), LABELS, name="toy", terms=[["sun", "sea"], ["snow"], []])
    assert summarise(clusters, batch_size=8).lines() == [
        "3 clusters over 8 images; 2 images (25.0%) in none, 1 clusters of one image",
        "cluster sizes: min 1, median 2, p90 2.8, max 3; H(Z) = 2.16 bits",
        "in a batch of 8 drawn uniformly an image meets 1.00 others of its clusters on average",
        "  toy-0: 3 images: sun, sea",
        "  toy-1: 2 images: snow",
        "  toy-2: 1 image",
    ]


def test_each_level_of_a_hierarchy_has_its_own_lines() -> None:
    dataset = datasets.Dataset.from_dict({"id": list("abcd"), "path": ["x/1", "x/2", "y", None]})
    clusters = make_adapter("hierarchy").assign(dataset)
    first, second = (summarise(block, 4).lines() for block in clusters.blocks().values())
    lines = [f"level 0: {first[0]}", *(f"  {line}" for line in first[1:])]
    assert summary_lines(clusters, 4) == [*lines, f"level 1: {second[0]}", *(f"  {line}" for line in second[1:])]
    assert first[0] == "2 clusters over 4 images; 1 images (25.0%) in none, 1 clusters of one image"
    assert second[0] == "2 clusters over 4 images; 2 images (50.0%) in none, 2 clusters of one image"
    flat = Clusters.from_labels(list("abcdefgh"), LABELS, name="toy")
    assert summary_lines(flat, 4) == summarise(flat, 4).lines()
    assert len(summary_lines(from_matrix(np.zeros((2, 0))), 2)) == 3


def test_several_entries_a_row_count_a_pair_once() -> None:
    matrix = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]])
    summary = summarise(from_matrix(matrix), batch_size=3)
    assert summary.n_positive_pairs == 8  # 0-1, 0-2, 1-2, 2-3, both ways
    assert summary.expected_positives == pytest.approx(slow_expected_positives(matrix, 3))


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 9), st.integers(0, 4), st.data())
def test_positive_pairs_are_those_of_the_dense_product(n: int, k: int, data: st.DataObject) -> None:
    entries = data.draw(st.lists(st.sampled_from([0.0, 0.0, 0.5, 1.0]), min_size=n * k, max_size=n * k))
    matrix = np.array(entries).reshape(n, k)
    shared = (matrix @ matrix.T) > 0
    np.fill_diagonal(shared, False)
    assert positive_pairs(from_matrix(matrix).membership) == shared.sum()


def test_chunks_give_the_same_count(monkeypatch: pytest.MonkeyPatch) -> None:
    membership = from_matrix(np.random.default_rng(0).random((40, 6)) < 0.3).membership
    whole = positive_pairs(membership)
    monkeypatch.setattr(wscl_embed.diagnostics.summary, "CHUNK_ENTRIES", 100)
    assert positive_pairs(membership) == whole


@pytest.mark.parametrize("matrix", [np.zeros((0, 0)), np.zeros((1, 1)), np.zeros((4, 0)), np.ones((1, 1))])
def test_nothing_to_count_is_zero(matrix: np.ndarray) -> None:
    summary = summarise(from_matrix(matrix), batch_size=256)
    assert summary.expected_positives == 0
    assert len(summary.lines()) >= 3


def test_clusters_emptied_by_a_selection_do_not_count() -> None:
    clusters = Clusters.from_labels(["a", "b", "c"], [0, 1, 1], name="toy").select(["b", "c"])
    assert summarise(clusters, batch_size=2).n_clusters == 1
    with pytest.raises(InputError, match="only 1 cluster"):
        check_clusters(clusters, make_adapter("labels"))


@pytest.mark.parametrize(
    ("spec", "labels", "message"),
    [
        ("hashtags:clusterer=hdbscan", [-1, -1], "hashtags: all 2 images are noise.*Lower min_cluster_size .now 5"),
        ("hashtags:n_clusters=1", [0, 0], "only 1 cluster was found among 2 images.*Raise n_clusters .now 1"),
        ("hashtags", [0, 0], "The records look alike: read another column.*column=tags"),
        ("attributes:top_k=1", [0, -1], "only 1 cluster.*Raise top_k .now 1"),
        ("attributes:method=cluster,clusterer=hdbscan", [-1, -1], "Lower min_cluster_size"),
        ("labels:column=kind", [0, 0], "Name another column .now column=kind"),
        ("image_features:clusterer=exact", [0, 0], "Take clusterer=kmeans"),
        ("hierarchy:column=kind", [0, 0], "Name another column .now column=kind"),
        ("hierarchy:of=hashtags,method=hdbscan", [-1, -1], "Lower min_cluster_size .now 5., or take method=kmeans"),
        ("hierarchy:of=hashtags", [0, 0], "take the features of another adapter, or raise level_clusters"),
    ],
)
def test_too_few_clusters_say_what_to_change(spec: str, labels: list[int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_clusters(Clusters.from_labels(["a", "b"], labels, name="toy"), make_adapter(spec))


def test_two_clusters_or_none_on_purpose_pass() -> None:
    check_clusters(Clusters.from_labels(["a", "b"], [0, 1], name="toy"), make_adapter("hashtags"))
    none: Adapter = make_adapter("none")
    check_clusters(from_matrix(np.zeros((2, 0))), none)


def test_where_counting_all_pairs_would_take_long_they_are_estimated(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    membership = sparse.csr_array((rng.random((3000, 40)) < 0.05).astype(np.float32))
    exact = positive_pairs(membership)
    monkeypatch.setattr(wscl_embed.diagnostics.summary, "MOST_MEETINGS", 2e5)
    assert positive_pairs(membership) == pytest.approx(exact, rel=0.1)
    assert positive_pairs(membership) != exact
