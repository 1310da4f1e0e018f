"""What every clusterer must do: the named ones, scikit-learn's, and any object with fit_predict."""

from __future__ import annotations

import re
import sys
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse
from sklearn.cluster import DBSCAN, AgglomerativeClustering, BisectingKMeans, KMeans
from sklearn.metrics import adjusted_rand_score

import wscl_embed.clusterers.density
import wscl_embed.clusterers.kmeans
from wscl_embed.clusterers import cluster_rows, collapse_rows, default_n_clusters, make_clustering
from wscl_embed.errors import InputError


class SignOfFirst:
    """The least a clusterer can be."""

    def fit_predict(self, X: Any) -> NDArray[np.int64]:
        return (np.asarray(X)[:, 0] > 0).astype(np.int64) + (np.asarray(X)[:, 1] > 5)


CLUSTERERS: dict[str, Any] = {
    "kmeans": "kmeans",
    "hdbscan": "hdbscan",
    "exact": "exact",
    "agglomerative": AgglomerativeClustering(3),
    "bisecting": BisectingKMeans(3, random_state=0),
    "dbscan": DBSCAN(eps=1.0, min_samples=3),
    "object": SignOfFirst(),
    # The ways of many rows, brought down to few.
    "kmeans by faiss": "kmeans",
    "kmeans by mini-batches": "kmeans",
    "hdbscan on a sample": "hdbscan",
}


@pytest.fixture(params=sorted(CLUSTERERS))
def clusterer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    take(request.param, monkeypatch)
    return CLUSTERERS[request.param]


@pytest.fixture(params=["kmeans", "kmeans by faiss", "kmeans by mini-batches"])
def kmeans(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of k-means."""
    take(request.param, monkeypatch)
    return "kmeans"


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have few rows take the way of many."""
    if way == "kmeans by faiss":
        pytest.importorskip("faiss", reason="needs the extra wscl-embed[faiss]")
    if way == "kmeans by mini-batches":
        monkeypatch.setitem(sys.modules, "faiss", None)  # as if it were not installed
    if way.startswith("kmeans by"):
        monkeypatch.setattr(wscl_embed.clusterers.kmeans, "LARGE_ROWS", 3)
    if way == "hdbscan on a sample":
        monkeypatch.setattr(wscl_embed.clusterers.density, "EXACT_ROWS", 60)


def blobs(copies: int = 4, per_blob: int = 10) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Three far blobs, every row ``copies`` times, in mixed order: (n, 2) features and (n,) truth."""
    rng = np.random.default_rng(0)
    centres = np.array([[-9.0, 0.0], [9.0, 0.0], [9.0, 9.0]])
    truth = np.tile(np.repeat(np.arange(3), per_blob), copies)
    rows = np.tile(centres.repeat(per_blob, axis=0) + rng.normal(scale=0.2, size=(3 * per_blob, 2)), (copies, 1))
    order = rng.permutation(len(rows))
    return rows[order], truth[order]


def test_three_blobs_are_found(clusterer: Any) -> None:
    if clusterer == "exact":
        pytest.skip("exact groups identical rows only")
    features, truth = blobs()
    labels = cluster_rows(features, clusterer, n_clusters=3, min_cluster_size=10)
    assert labels.shape == truth.shape
    assert labels.dtype == np.int64
    assert adjusted_rand_score(truth, labels) == 1


def test_the_same_seed_gives_the_same_labels(clusterer: Any) -> None:
    features = np.random.default_rng(1).normal(size=(200, 3))
    first, second = (cluster_rows(features, clusterer, n_clusters=7, seed=3) for _ in range(2))
    assert first.tolist() == second.tolist()


def test_identical_rows_share_a_label(clusterer: Any) -> None:
    features, _ = blobs()
    labels = cluster_rows(features, clusterer, n_clusters=3)
    _, inverse, _ = collapse_rows(features)
    assert len(set(zip(inverse.tolist(), labels.tolist(), strict=True))) == 30


def test_sparse_rows_give_the_partition_of_dense_ones(clusterer: Any) -> None:
    if isinstance(clusterer, (AgglomerativeClustering, SignOfFirst)):
        pytest.skip(f"{type(clusterer).__name__} takes no sparse features, by its own contract")
    features, _ = blobs()
    dense = cluster_rows(features, clusterer, n_clusters=3)
    assert adjusted_rand_score(dense, cluster_rows(sparse.csr_array(features), clusterer, n_clusters=3)) == 1


def test_one_row_is_enough_for_the_named_ones(clusterer: Any) -> None:
    if not isinstance(clusterer, str):
        pytest.skip("what one row means is up to the object")
    assert cluster_rows(np.ones((1, 2)), clusterer).tolist() == ([-1] if clusterer == "hdbscan" else [0])


@pytest.mark.parametrize("dims", [2, 40])
def test_hdbscan_reduces_wide_features(dims: int) -> None:
    features, truth = blobs()
    wide = np.hstack([features, np.random.default_rng(0).normal(scale=0.01, size=(len(features), dims))])
    labels = cluster_rows(wide, "hdbscan", min_cluster_size=20)
    assert adjusted_rand_score(truth, labels) == 1
    assert adjusted_rand_score(truth, cluster_rows(sparse.csr_array(wide), "hdbscan", min_cluster_size=20)) == 1


def test_hdbscan_of_alike_or_few_rows_is_noise() -> None:
    assert (cluster_rows(np.ones((30, 2)), "hdbscan") == -1).all()
    assert (cluster_rows(np.eye(4), "hdbscan", min_cluster_size=5) == -1).all()


def test_kmeans_makes_no_more_clusters_than_there_are_distinct_rows() -> None:
    features = np.repeat(np.eye(3), 5, axis=0)
    assert len(set(cluster_rows(features, "kmeans", n_clusters=10).tolist())) == 3


def test_identical_rows_become_one_with_a_weight_where_weights_are_taken() -> None:
    class Weighted:
        def fit_predict(self, X: Any, sample_weight: Any = None) -> NDArray[np.int64]:
            self.seen = np.asarray(X).ravel().tolist(), sample_weight.tolist()
            return np.arange(len(X))

    clusterer = Weighted()
    assert cluster_rows(np.array([[5.0], [1.0], [5.0], [5.0]]), clusterer).tolist() == [0, 1, 0, 0]
    assert clusterer.seen == ([5.0, 1.0], [3.0, 1.0])


def test_more_clusters_than_distinct_rows_are_refused_in_these_words() -> None:
    with pytest.raises(InputError, match=r"KMeans.* does not take the 2 distinct rows of 6 \(n_samples=2 "):
        cluster_rows(np.repeat(np.eye(2), 3, axis=0), KMeans(4))


@pytest.mark.parametrize("clusterer", ["kmeans", "hdbscan", "exact"])
def test_long_indices_of_sparse_rows_are_taken(clusterer: str) -> None:
    features, _ = blobs()
    matrix = sparse.csr_array(np.hstack([features, np.zeros((len(features), 30))]))
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    assert len(set(cluster_rows(matrix, clusterer, n_clusters=3).tolist())) >= 3


def test_kmeans_says_nothing_of_rows_that_differ_by_rounding() -> None:
    features = np.ones((50, 2)) + np.arange(50)[:, None] * 1e-17 + np.array([[0, 1e-16]])
    assert cluster_rows(features, "kmeans", n_clusters=20).shape == (50,)  # and a warning would be an error here


def test_the_order_of_rows_does_not_matter(clusterer: Any) -> None:
    features, _ = blobs()
    order = np.random.default_rng(5).permutation(len(features))
    straight = cluster_rows(features, clusterer, n_clusters=3, min_cluster_size=10)
    shuffled = cluster_rows(features[order], clusterer, n_clusters=3, min_cluster_size=10)
    assert adjusted_rand_score(straight[order], shuffled) == 1


def test_single_and_double_precision_give_one_partition(clusterer: Any) -> None:
    features, _ = blobs()
    features = features.astype(np.float32)
    single = cluster_rows(features, clusterer, n_clusters=3, min_cluster_size=10)
    double = cluster_rows(features.astype(np.float64), clusterer, n_clusters=3, min_cluster_size=10)
    assert adjusted_rand_score(single, double) == 1


def test_rows_count_as_often_as_they_occur(kmeans: str) -> None:
    # A hundred rows around each of 0, 3 and 5: 3 and 5 share a cluster. When each occurs fifty times, 0 and 3 do.
    distinct = np.repeat([0.0, 3.0, 5.0], 100)[:, None] + np.random.default_rng(0).normal(scale=0.01, size=(300, 1))
    zero, three, five = cluster_rows(distinct, kmeans, n_clusters=2)[[0, 100, 200]]
    assert zero != three == five
    heavy = np.concatenate([distinct[:100], np.repeat(distinct[100:], 50, axis=0)])
    zero, three, five = cluster_rows(heavy, kmeans, n_clusters=2)[[0, 100, -1]]
    assert zero == three != five


def test_far_from_zero_is_as_good(kmeans: str) -> None:
    features, truth = blobs()
    assert adjusted_rand_score(truth, cluster_rows(features + 1e5, kmeans, n_clusters=3)) == 1


def test_faiss_ends_where_scikit_learn_does(monkeypatch: pytest.MonkeyPatch) -> None:
    features = np.random.default_rng(0).normal(size=(2_000, 8))
    exact = inertia(features, cluster_rows(features, "kmeans", n_clusters=40))
    take("kmeans by faiss", monkeypatch)
    assert inertia(features, cluster_rows(features, "kmeans", n_clusters=40)) < 1.02 * exact


def inertia(features: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """The sum of squared distances to the mean of the own cluster."""
    means = {label: features[labels == label].mean(axis=0) for label in set(labels.tolist())}
    return sum(float(((row - means[label]) ** 2).sum()) for row, label in zip(features, labels.tolist(), strict=True))


@pytest.mark.parametrize("way", ["kmeans by faiss", "kmeans by mini-batches"])
def test_kmeans_of_many_rows_stays_within_the_memory_it_says(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, monkeypatch)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, 256)).repeat(625, axis=0)
    features = (centres + rng.normal(scale=0.1, size=centres.shape)).astype(np.float32)  # 26 MB
    cluster_rows(features[:100], "kmeans", n_clusters=2)  # imports
    tracemalloc.start()
    try:
        cluster_rows(features, "kmeans", n_clusters=40)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    bytes_of = getattr(wscl_embed.clusterers.kmeans, f"{'faiss' if 'faiss' in way else 'mini_batch'}_bytes")
    untraced = 2**25 if way == "kmeans by faiss" else 0  # what faiss holds outside Python
    assert 0.5 * bytes_of(features, 40) < peak + untraced < 1.1 * bytes_of(features, 40)
    assert peak < 1.75 * features.nbytes


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("kmeans by faiss", "120 x 2 (30 distinct rows), 3 clusters, by faiss: about 34 MB beyond the features"),
        ("kmeans by mini-batches", "by scikit-learn's mini-batches (pip install 'wscl-embed[faiss]' for faiss): about"),
        (
            "hdbscan on a sample",
            "hdbscan on 120 x 2: trained on 60 records drawn at random, with min_cluster_size 5 (clusters below",
        ),
    ],
)
def test_the_ways_of_many_rows_say_so(
    way: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take(way, monkeypatch)
    cluster_rows(blobs()[0], CLUSTERERS[way], n_clusters=3, min_cluster_size=10)
    assert said in capsys.readouterr().err


def test_wide_sparse_rows_are_never_made_dense_for_faiss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take("kmeans by faiss", monkeypatch)
    monkeypatch.setattr(wscl_embed.clusterers.kmeans, "SPARSE_AS_DENSE", 1_000)
    features, truth = blobs()
    wide = sparse.hstack([sparse.csr_array(features), sparse.csr_array((len(features), 50))], format="csr")
    assert adjusted_rand_score(truth, cluster_rows(sparse.csr_array(wide), "kmeans", n_clusters=3)) == 1
    assert "mini-batches: about" in capsys.readouterr().err


def test_hdbscan_on_a_sample_stays_within_the_memory_it_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(wscl_embed.clusterers.density, "EXACT_ROWS", 2_000)
    monkeypatch.setattr(wscl_embed.clusterers.density, "PREDICTED_AT_ONCE", 1_000)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(20, 256))[rng.integers(0, 20, 6_000)] + rng.normal(scale=0.1, size=(6_000, 256))
    tracemalloc.start()
    try:
        cluster_rows(features, "hdbscan")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    (said,) = re.findall(r"about (\d+) MB", capsys.readouterr().err)
    assert 0.5 * float(said) < peak / 1e6 < 1.1 * float(said)
    assert peak < features.nbytes  # 12 MB


def test_what_a_sample_does_not_show_is_assigned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    take("hdbscan on a sample", monkeypatch)
    rng = np.random.default_rng(0)
    truth = np.arange(400) % 2
    features = np.where(truth, 9, -9)[:, None] + rng.normal(size=(400, 3))
    features[:5] = [[500, 500 * row, 0] for row in range(1, 6)]  # far from all and from each other
    made = make_clustering(features, "hdbscan", min_cluster_size=40)
    assert (made.labels[:5] == -1).all()
    assert adjusted_rand_score(truth[made.labels >= 0], made.labels[made.labels >= 0]) == 1
    assert (made.labels >= 0).mean() > 0.8
    assert made.strengths is not None
    assert made.strengths.shape == (400,)
    others = int((made.labels >= 0).sum())
    assert "of the 340 others got a cluster" in capsys.readouterr().err
    assert others > 60


def test_a_sample_of_noise_makes_all_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    take("hdbscan on a sample", monkeypatch)
    assert (cluster_rows(np.ones((200, 2)), "hdbscan") == -1).all()


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0]), min_size=3, max_size=3), min_size=1, max_size=12))
def test_collapsed_rows_rebuild_the_features(rows: list[list[float]]) -> None:
    features = np.array(rows)
    for given_as in (features, sparse.csr_array(features)):
        distinct, inverse, counts = collapse_rows(given_as)
        dense = distinct.toarray() if sparse.issparse(distinct) else np.asarray(distinct)
        assert (dense[inverse] == features).all()
        assert len({tuple(row) for row in dense.tolist()}) == len(dense)
        assert counts.tolist() == np.bincount(inverse).tolist()


def test_stored_zeros_make_no_difference_and_the_matrix_is_left_alone() -> None:
    matrix = sparse.csr_array((np.array([1.0, 0.0, 1.0]), np.array([1, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    assert cluster_rows(matrix, "exact").tolist() == [0, 0]
    assert matrix.nnz == 3


def test_default_number_of_clusters() -> None:
    assert [default_n_clusters(n) for n in (1, 100, 1_000, 200_000)] == [2, 20, 158, 2236]


def test_an_unknown_clusterer_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean kmeans"):
        cluster_rows(np.eye(2), "k-means")


@pytest.mark.parametrize("clusterer", [object(), AgglomerativeClustering, None])
def test_what_is_no_clusterer_is_refused(clusterer: Any) -> None:
    with pytest.raises(InputError, match="nor an object with fit_predict"):
        cluster_rows(np.eye(2), clusterer)


def test_labels_of_another_length_are_refused() -> None:
    class Short:
        def fit_predict(self, X: Any) -> NDArray[np.int64]:
            return np.zeros(1, dtype=np.int64)

    with pytest.raises(InputError, match=r"labels of shape \(1,\) for 2 rows"):
        cluster_rows(np.eye(2), Short())


class Doubtful:
    """Two clusters, in which it believes as much as it is told to."""

    def __init__(self, probabilities: list[float]) -> None:
        self.probabilities = probabilities

    def fit_predict(self, X: Any) -> NDArray[np.int64]:
        self.probabilities_ = np.array(self.probabilities)
        return np.array([1, 0, -1])


@pytest.mark.parametrize("labels", [["a", "b"], [0.5, 1.5], [np.nan, 0]], ids=["names", "fractions", "NaN"])
def test_labels_that_are_no_whole_numbers_are_refused(labels: list[Any]) -> None:
    class Other:
        def fit_predict(self, X: Any) -> list[Any]:
            return labels

    with pytest.raises(InputError, match=r"labels of clusterer .* must be whole numbers"):
        cluster_rows(np.eye(2), Other())


def test_probabilities_of_any_object_are_strengths() -> None:
    made = make_clustering(np.eye(3), Doubtful([1.0, 0.25, 0.0]))
    assert made.labels.tolist() == [1, 0, -1]
    assert made.strengths is not None
    assert made.strengths[:2].tolist() == [1.0, 0.25]
    # A row in a cluster stays in it, however little the clusterer believes in that.
    weak = make_clustering(np.eye(3), Doubtful([1.0, 0.0, 0.0])).strengths
    assert weak is not None
    assert 0 < weak[1] < 1e-3


@pytest.mark.parametrize(
    ("probabilities", "said"), [([1.0], r"probabilities_ of shape \(1,\)"), ([1.0, 2.0, 0.0], r"outside \[0, 1\]")]
)
def test_probabilities_that_are_none_are_refused(probabilities: list[float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_clustering(np.eye(3), Doubtful(probabilities))


def test_strengths_come_from_the_clusterers_that_have_them() -> None:
    features, _ = blobs()
    made = make_clustering(features, "hdbscan", min_cluster_size=20)
    assert made.strengths is not None
    assert made.strengths.dtype == np.float32
    assert 0 < made.strengths.min() < made.strengths.max() == 1
    assert make_clustering(features, "kmeans").strengths is None
