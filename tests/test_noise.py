"""Noise policies, each against a slow loop, and what is kept and said of the noise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import sparse

import wscl_embed.clusterers.noise
from wscl_embed.adapter import Adapter, option
from wscl_embed.clusterers import Clustering
from wscl_embed.clusterers.noise import NEARBY, POLICIES, inverse_shares, memberships
from wscl_embed.clusters import Clusters, cluster_table
from wscl_embed.diagnostics.summary import check_clusters, summarise
from wscl_embed.errors import InputError
from wscl_embed.noise_summary import summarise_noise
from wscl_embed.raw_labels import NO_SIGNAL, RawLabels
from wscl_embed.registry import make_adapter


def slow_memberships(labels: NDArray[np.int64], features: NDArray[np.float64], policy: str) -> NDArray[np.float64]:
    """The policies as `memberships` documents them, one record at a time."""
    k = int(labels.max(initial=-1)) + 1
    middle = [features[labels == label].mean(axis=0) for label in range(k)]
    matrix = np.zeros((len(labels), k))
    for row, label in enumerate(labels):
        if label >= 0:
            matrix[row, label] = 1
        elif policy in ("nearest", "soft") and k:
            distances = [float(((features[row] - centre) ** 2).sum()) for centre in middle]
            order = sorted(range(k), key=lambda column: distances[column])[: 1 if policy == "nearest" else NEARBY]
            at_zero = [column for column in order if distances[column] == 0]
            for column in order:
                share = 1 / distances[column] if distances[column] else 0.0
                matrix[row, column] = share / sum(1 / distances[c] for c in order) if not at_zero else 0.0
            for column in at_zero:
                matrix[row, column] = 1 / len(at_zero)
    return matrix


@st.composite
def clusterings(draw: st.DrawFn) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """n labels 0..K-1 or -1, and (n, 2) features on whole numbers, whose centroids tie and coincide."""
    n, k = draw(st.integers(1, 14)), draw(st.integers(0, 7))
    labels = np.array(draw(st.lists(st.integers(-1, k - 1), min_size=n, max_size=n)))
    _, compact = np.unique(np.append(labels, -1), return_inverse=True)
    points = draw(st.lists(st.integers(-4, 4), min_size=2 * n, max_size=2 * n))
    return compact[:-1] - 1, np.array(points, dtype=np.float64).reshape(n, 2)


@given(clusterings(), st.sampled_from(POLICIES))
def test_the_policies_are_those_of_the_slow_loop(
    case: tuple[NDArray[np.int64], NDArray[np.float64]], policy: str
) -> None:
    labels, features = case
    expected = slow_memberships(labels, features, policy)
    for rows in (features, sparse.csr_array(features)):
        found = memberships(Clustering(labels), rows, policy).toarray()
        if policy != "nearest":
            np.testing.assert_allclose(found.sum(axis=1), expected.sum(axis=1), atol=1e-6)
        # Where two centroids are equally near, rounding decides which comes first.
        settled = np.array([unique_order(labels, features, row, policy) for row in range(len(labels))])
        np.testing.assert_allclose(found[settled], expected[settled], atol=1e-5)


def unique_order(labels: NDArray[np.int64], features: NDArray[np.float64], row: int, policy: str) -> bool:
    """Whether the centroids the policy takes are certain, however the distances are rounded."""
    k = int(labels.max(initial=-1)) + 1
    count = 1 if policy == "nearest" else NEARBY
    if labels[row] >= 0 or policy in ("instance", "drop") or k <= (count if policy == "soft" else 1):
        return True
    distances = sorted(float(((features[row] - features[labels == c].mean(axis=0)) ** 2).sum()) for c in range(k))
    return distances[count] - distances[count - 1] > 1e-6


@given(clusterings(), st.randoms(use_true_random=False))
def test_the_order_of_records_does_not_matter(case: tuple[NDArray[np.int64], NDArray[np.float64]], random: Any) -> None:
    labels, features = case
    features = features + 1e-3 * np.arange(len(labels))[:, None] ** 2  # no two distances alike
    order = np.array(random.sample(range(len(labels)), len(labels)))
    for policy in POLICIES:
        straight = memberships(Clustering(labels), features, policy).toarray()
        shuffled = memberships(Clustering(labels[order]), features[order], policy).toarray()
        np.testing.assert_allclose(shuffled, straight[order], atol=1e-5)


@given(st.lists(st.lists(st.sampled_from([0.0, 1e-200, 1e-9, 1.0, 3.0, 1e200]), min_size=3, max_size=3), min_size=1))
def test_shares_sum_to_one_and_fall_with_the_distance(squared: list[list[float]]) -> None:
    distances = np.array(squared)
    shares = inverse_shares(distances)
    assert ((shares >= 0) & (shares <= 1)).all()
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    for row, values in zip(shares, distances, strict=True):
        assert (np.diff(row[np.argsort(values)]) <= 1e-12).all()
    np.testing.assert_allclose(inverse_shares(distances[:, ::-1])[:, ::-1], shares)


def test_chunks_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(60, 3)), rng.integers(-1, 8, 60)
    whole = memberships(Clustering(labels), features, "soft").toarray()
    assert (np.diff(sparse.csr_array(whole).indptr)[labels < 0] == NEARBY).all()
    monkeypatch.setattr(wscl_embed.clusterers.noise, "CHUNK_ENTRIES", 20)
    assert (memberships(Clustering(labels), features, "soft").toarray() == whole).all()


def test_strengths_stay_where_a_cluster_was_found() -> None:
    found = Clustering(np.array([0, 0, -1]), np.array([1.0, 0.5, 0.9], dtype=np.float32))
    features = np.array([[0.0], [1.0], [5.0]])
    assert memberships(found, features).toarray().tolist() == [[1.0], [0.5], [0.0]]
    assert memberships(found, features, "nearest").toarray().tolist() == [[1.0], [0.5], [1.0]]


def test_an_unknown_policy_names_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown noise policy 'softly'\. Did you mean soft"):
        make_adapter("hashtags:n_clusters=2").__class__(noise="softly")
    with pytest.raises(InputError, match="noise='x'"):
        make_adapter("hashtags:noise=x")
    with pytest.raises(InputError, match="has no option 'noise'"):
        make_adapter("labels:noise=drop")


class Bands:
    """Two bands of lengths, and what lies between them is noise."""

    def fit_predict(self, X: Any) -> NDArray[np.int64]:
        lengths = np.asarray(X)[:, 0]
        self.probabilities_ = np.where((lengths >= 4) & (lengths <= 6), 0.0, 1 - lengths / 20)
        return np.where(lengths < 4, 0, np.where(lengths > 6, 1, -1))


@dataclass(kw_only=True)
class Lengths(Adapter):
    """Clusters titles by their length."""

    name = "lengths"
    column: str = option("title", "column with the title")

    def features(self, dataset: datasets.Dataset) -> Any:
        return np.array([[np.nan if title is None else len(title)] for title in self.read(dataset, self.column)])

    def terms(self, dataset: datasets.Dataset, labels: NDArray[np.int64]) -> list[list[str]]:
        return [[str(int((labels == label).sum()))] for label in range(int(labels.max()) + 1)]


TITLES = ["a", "aa", "aaaa", "aaaaaa", "a" * 9, "a" * 10, None]
RAW = [0, 0, -1, -1, 1, 1, NO_SIGNAL]


def lengths(**options: Any) -> Clusters:
    dataset = datasets.Dataset.from_dict({"id": list("abcdefg"), "title": TITLES})
    return Lengths(clusterer=Bands(), **options).assign(dataset)


@pytest.mark.parametrize(
    ("policy", "rows", "dropped"),
    [
        ("instance", [[0, 0], [0, 0]], ""),
        ("drop", [[0, 0], [0, 0]], "cdg"),
        ("nearest", [[1, 0], [0, 1]], ""),
        # Distances to the centroids 1.5 and 9.5: 2.5 and 5.5, 4.5 and 3.5.
        ("soft", [[0.828767, 0.171233], [0.376923, 0.623077]], ""),
    ],
)
def test_a_policy_is_an_option_of_the_adapter(policy: str, rows: list[list[float]], dropped: str) -> None:
    clusters = lengths(noise=policy)
    matrix = clusters.membership.toarray()
    assert matrix[[0, 1, 4, 5]].tolist() == [[1, 0], [1, 0], [0, 1], [0, 1]]
    np.testing.assert_allclose(matrix[2:4], rows, atol=1e-6)
    assert not matrix[6].any()  # without a signal there is nothing to be near to
    assert clusters.raw_labels[:, 0].tolist() == RAW
    assert "".join(np.array(clusters.ids)[clusters.dropped]) == dropped
    assert clusters.table["terms"].tolist() == [["2"], ["2"]]  # the words are those of the clusterer's own clusters


def test_strengths_are_used_when_asked_for() -> None:
    assert lengths().membership.toarray()[:2, 0].tolist() == [1, 1]
    with pytest.raises(InputError, match="the clusterer kmeans knows no strengths"):
        make_adapter("captions:strengths=true")
    np.testing.assert_allclose(lengths(strengths=True).membership.toarray()[:2, 0], [0.95, 0.9], rtol=1e-6)


@pytest.mark.parametrize(
    ("policy", "line"),
    [
        ("instance", "2 of 7 records (28.6%) and 1 without a signal; in no cluster: an image's only positive is its"),
        ("drop", "2 of 7 records (28.6%) and 1 without a signal; 3 are left out of training"),
        ("nearest", "and 1 without a signal; 2 joined the nearest cluster, 1 in no cluster: an image's only positive"),
        ("soft", "and 1 without a signal; 2 share 2.0 nearby clusters each, 1 in no cluster: an image's only positive"),
    ],
)
def test_what_became_of_the_noise_is_said(policy: str, line: str) -> None:
    lines = summarise(lengths(noise=policy), batch_size=4).lines()
    assert lines[1].startswith(f"noise (policy {policy}): ")
    assert line in lines[1]


def test_no_noise_is_said_too() -> None:
    dataset = datasets.Dataset.from_dict({"id": list("abcd"), "title": ["a", "a", "aaa", "aaa"]})
    lines = summarise(Lengths(n_clusters=2).assign(dataset), batch_size=4).lines()
    assert lines[1] == "noise (policy instance): none, every record is in a cluster"


def test_partners_are_counted_among_the_images_trained_on() -> None:
    kept, alone = (summarise(lengths(noise=policy), batch_size=3) for policy in ("drop", "instance"))
    assert (kept.n_dropped, kept.n_noise, kept.n_images) == (3, 3, 7)
    assert kept.expected_positives == pytest.approx(4 / 4 * 2 / 3)  # four images, of which each has one partner
    assert alone.expected_positives == pytest.approx(4 / 7 * 2 / 6)


def test_the_file_keeps_the_raw_labels(tmp_path: Path) -> None:
    path = tmp_path / "clusters.parquet"
    clusters = Clusters.combine([lengths(noise="drop"), lengths(noise="soft")])
    clusters.save(path)
    loaded = Clusters.load(path)
    assert [(raw.source, raw.policy) for raw in loaded.raw] == [("lengths.1", "drop"), ("lengths.2", "soft")]
    assert loaded.raw_labels.dtype == np.int64
    assert loaded.raw_labels.tolist() == clusters.raw_labels.tolist()
    assert loaded.dropped.tolist() == clusters.dropped.tolist()
    assert [summary.line for summary in summarise_noise(loaded)] == [one.line for one in summarise_noise(clusters)]
    row = pq.ParquetFile(path).read(["raw_labels", "dropped"]).to_pylist()[-1]
    assert row == {"raw_labels": [NO_SIGNAL, NO_SIGNAL], "dropped": True}


def test_files_from_before_the_policies_still_load(tmp_path: Path) -> None:
    path = tmp_path / "clusters.parquet"
    table = lengths(noise="drop").to_arrow()
    header = json.loads(table.schema.metadata[b"wscl_embed"])
    del header["noise"]
    old = table.drop_columns(["raw_labels", "dropped"]).replace_schema_metadata({"wscl_embed": json.dumps(header)})
    pq.write_table(old, path)
    loaded = Clusters.load(path)
    assert loaded.raw == ()
    assert loaded.raw_labels.shape == (7, 0)
    assert not loaded.dropped.any()


def test_combined_raw_labels_are_columns_of_the_whole_matrix() -> None:
    both = Clusters.combine([lengths(), lengths(noise="nearest")])
    assert both.raw_labels[:, 0].tolist() == RAW
    assert both.raw_labels[:, 1].tolist() == [label + 2 if label >= 0 else label for label in RAW]
    chosen = both.select(["e", "c"])
    assert chosen.raw_labels.tolist() == [[1, 3], [-1, -1]]


@pytest.mark.parametrize(
    ("policies", "dropped"),
    [
        (("drop", "instance"), [2, 3, 6]),
        (("drop", "nearest"), [6]),
        (("instance", "soft"), []),
    ],
)
def test_an_image_is_dropped_when_one_adapter_says_so_and_none_has_a_cluster_for_it(
    policies: tuple[str, str], dropped: list[int]
) -> None:
    both = Clusters.combine([lengths(noise=policy) for policy in policies])
    assert np.flatnonzero(both.dropped).tolist() == dropped


def test_a_cluster_of_another_adapter_keeps_an_image() -> None:
    tags = Clusters.from_labels(list("abcdefg"), [0, 0, 0, 1, 1, 1, -1], name="tags")
    both = Clusters.combine([lengths(noise="drop"), tags])
    assert np.flatnonzero(both.dropped).tolist() == [6]


def test_raw_labels_must_fit_the_matrix() -> None:
    membership = sparse.csr_array(np.eye(2))
    table = cluster_table(membership, source="toy")
    for labels in ([0, 2], [0]):
        with pytest.raises(InputError, match="raw labels of toy must be 2 numbers below 2"):
            Clusters(["a", "b"], membership, table, (RawLabels("toy", np.array(labels)),))


@pytest.mark.parametrize(
    ("sizes", "refused"), [([96, 4], True), ([95, 5], False), ([200, 4, 3], True), ([10, 10], False)]
)
def test_a_cluster_that_swallows_the_rest_is_refused(sizes: list[int], refused: bool) -> None:
    labels = np.repeat([*range(len(sizes)), -1], [*sizes, 50])
    ids = [str(row) for row in range(len(labels))]
    made = Clusters.from_labels(ids, labels, name="captions")
    clusters = Clusters(ids, made.membership, made.table, (RawLabels("captions", labels),))
    adapter = make_adapter("captions:clusterer=hdbscan")
    if not refused:
        check_clusters(clusters, adapter)
        return
    said = rf"one cluster has {sizes[0]} of the {sum(sizes)} images .* Lower min_cluster_size .now 5.*leaf"
    with pytest.raises(InputError, match=said):
        check_clusters(clusters, adapter)
    check_clusters(made, make_adapter("labels"))  # labels are what they are
