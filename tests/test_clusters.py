"""The membership matrix: construction, algebra, and the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from wscl_embed.clusters import Clusters, cluster_table
from wscl_embed.errors import InputError

examples = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def make(matrix: Any, name: str = "made") -> Clusters:
    membership = sparse.csr_array(np.asarray(matrix, dtype=np.float32))
    ids = [f"image-{row}" for row in range(membership.shape[0])]
    return Clusters(ids, membership, cluster_table(membership, source=name))


def pair_weights(clusters: Clusters) -> np.ndarray:
    return np.asarray((clusters.membership @ clusters.membership.T).toarray())


@st.composite
def matrices(draw: st.DrawFn, rows: int | None = None) -> Clusters:
    n = draw(st.integers(0, 6)) if rows is None else rows
    k = draw(st.integers(0, 5))
    entries = draw(st.lists(st.sampled_from([0.0, 0.0, 0.25, 0.5, 1.0]), min_size=n * k, max_size=n * k))
    return make(np.array(entries).reshape(n, k))


def test_negative_labels_are_noise_and_gaps_are_closed() -> None:
    clusters = Clusters.from_labels(["a", "b", "c", "d"], [7, -1, 3, 7], name="toy", terms=[["x"], ["y"]])
    assert clusters.labels.tolist() == [1, -1, 0, 1]
    assert clusters.membership.toarray().tolist() == [[0, 1], [0, 0], [1, 0], [0, 1]]
    assert clusters.table.to_dict("list") == {
        "name": ["toy-0", "toy-1"],
        "source": ["toy", "toy"],
        "level": [0, 0],
        "size": [1, 2],
        "terms": [["x"], ["y"]],
    }


@examples
@given(st.lists(st.integers(-1, 5), max_size=12))
def test_labels_survive_the_round_trip_up_to_renumbering(labels: list[int]) -> None:
    clusters = Clusters.from_labels([str(i) for i in range(len(labels))], labels, name="toy")
    values = sorted({label for label in labels if label >= 0})
    assert clusters.labels.tolist() == [values.index(label) if label >= 0 else -1 for label in labels]
    again = Clusters.from_labels(clusters.ids, clusters.labels, name="toy")
    assert (again.membership != clusters.membership).nnz == 0


def test_strengths_are_the_memberships() -> None:
    clusters = Clusters.from_labels(["a", "b", "c"], [0, -1, 0], [0.5, 0.0, 1.0], name="soft")
    assert clusters.membership.toarray().tolist() == [[0.5], [0.0], [1.0]]


@pytest.mark.parametrize("strengths", [[0.0, 1.0], [2.0, 1.0], [np.nan, 1.0], [1.0], [1.0, 1.0, 1.0]])
def test_strengths_that_do_not_fit_are_refused(strengths: list[float]) -> None:
    with pytest.raises(InputError, match="strengths"):
        Clusters.from_labels(["a", "b"], [0, 0], strengths, name="soft")


def test_label_is_the_strongest_then_the_leftmost() -> None:
    assert make([[0.2, 0.9, 0.9], [0.5, 0.5, 0.0], [0, 0, 0]]).labels.tolist() == [1, 0, -1]


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_memberships_that_do_not_fit_are_refused(value: float) -> None:
    with pytest.raises(InputError, match="finite and not negative"):
        make([[value, 1.0]])


def test_ids_must_match_and_be_unique() -> None:
    with pytest.raises(InputError, match="2 ids, but labels of shape"):
        Clusters.from_labels(["a", "b"], [0], name="toy")
    with pytest.raises(InputError, match="unique"):
        Clusters.from_labels(["a", "a"], [0, 0], name="toy")
    membership = make([[1.0]]).membership
    with pytest.raises(InputError, match="2 ids for a membership matrix of 1 rows"):
        Clusters(["a", "b"], membership, cluster_table(membership, source="toy"))
    with pytest.raises(InputError, match="must have the columns"):
        Clusters(["a"], membership, cluster_table(sparse.csr_array(np.ones((1, 2))), source="toy"))


@pytest.mark.parametrize("ids", [[1, 2], ["a", None], np.arange(2)], ids=["ints", "None", "array"])
def test_ids_that_are_no_strings_are_refused_at_once_and_not_when_saved(ids: Any) -> None:
    with pytest.raises(InputError, match="ids must be strings; got"):
        Clusters.from_labels(ids, [0, 0], name="toy")


def test_ids_may_be_an_array_of_strings(tmp_path: Path) -> None:
    clusters = Clusters.from_labels(np.array(["a", "b"]), [0, 1], name="toy")
    clusters = Clusters(np.array(["a", "b"]), clusters.membership, clusters.table)  # type: ignore[arg-type]
    assert clusters.select(["b"]).labels.tolist() == [1]
    clusters.save(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    "labels",
    [["x", "y"], ["1", "2"], [0.2, 0.7], [0, np.nan], [0, None], np.array([2**63, 1], np.uint64)],
    ids=["names", "digits", "fractions", "NaN", "None", "too large"],
)
def test_labels_that_are_no_whole_numbers_are_refused(labels: Any) -> None:
    with pytest.raises(InputError, match="labels must be whole numbers, negative for noise; got"):
        Clusters.from_labels(["a", "b"], labels, name="toy")


@pytest.mark.parametrize("make", [np.array, pd.Series, torch.tensor, np.float32, np.object_])
def test_whole_numbers_of_any_type_are_labels(make: Any) -> None:
    assert Clusters.from_labels(list("abc"), make([3, 3, -1]), name="toy").labels.tolist() == [0, 0, -1]


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil"])
def test_sizes_are_counted_in_any_layout(layout: str) -> None:
    membership = sparse.csr_array(np.array([[1, 0.5, 0], [0, 1, 1], [0, 0, 1]]))
    membership.data[0] = 0  # stored, and no entry
    assert cluster_table(membership.asformat(layout), source="toy")["size"].tolist() == [0, 2, 2]


def test_terms_are_one_list_a_cluster() -> None:
    with pytest.raises(InputError, match="toy: 1 terms for 2 clusters"):
        Clusters.from_labels(["a", "b"], [0, 1], name="toy", terms=[["x"]])


def test_the_matrix_handed_in_is_left_as_it_is() -> None:
    arrays = (np.ones(4, np.float32), np.array([1, 0, 0, 1]), np.array([0, 2, 4]))
    membership = sparse.csr_array(arrays, shape=(2, 2))
    Clusters(["a", "b"], membership, cluster_table(membership, source="toy"))
    assert membership.indices.tolist() == [1, 0, 0, 1]


@examples
@given(st.data(), st.floats(0.1, 4.0), st.floats(0.1, 4.0))
def test_combined_pair_weights_are_the_weighted_sum(data: st.DataObject, a: float, b: float) -> None:
    rows = data.draw(st.integers(1, 6))
    first, second = data.draw(matrices(rows)), data.draw(matrices(rows))
    combined = Clusters.combine([first, second], weights=[a, b])
    assert combined.n_clusters == first.n_clusters + second.n_clusters
    assert len(combined.table) == combined.n_clusters
    expected = a * pair_weights(first) + b * pair_weights(second)
    np.testing.assert_allclose(pair_weights(combined), expected, rtol=1e-5, atol=1e-6)


def test_combine_follows_the_order_of_the_first_part() -> None:
    first = Clusters.from_labels(["a", "b", "c"], [0, 0, 1], name="one")
    second = Clusters.from_labels(["c", "a", "b"], [0, 1, 0], name="two")
    combined = Clusters.combine([first, second])
    assert combined.ids == ["a", "b", "c"]
    assert combined.membership.toarray().tolist() == [[1, 0, 0, 1], [1, 0, 1, 0], [0, 1, 1, 0]]
    assert combined.table["name"].tolist() == ["one-0", "one-1", "two-0", "two-1"]


def test_combine_takes_parts_without_clusters() -> None:
    empty = make(np.zeros((2, 0)), name="none")
    full = make(np.eye(2))
    for parts in ([empty, full], [full, empty]):
        assert Clusters.combine(parts).table["size"].tolist() == [1, 1]
    assert Clusters.combine([empty, empty]).membership.shape == (2, 0)


@pytest.mark.parametrize("weights", [[1.0], [1.0, 0.0], [1.0, -1.0], [1.0, np.nan], [1.0, np.inf]])
def test_combine_refuses_weights_that_do_not_fit(weights: list[float]) -> None:
    with pytest.raises(InputError, match="2 positive weights"):
        Clusters.combine([make([[1.0]]), make([[1.0]])], weights=weights)


def test_combine_refuses_parts_over_different_images() -> None:
    two, three = make(np.eye(2)), make(np.eye(3))
    for parts in ([two, three], [three, two]):
        with pytest.raises(InputError, match="images"):
            Clusters.combine(parts)
    other = Clusters.from_labels(["x", "y"], [0, 1], name="toy")
    with pytest.raises(InputError, match="not among"):
        Clusters.combine([two, other])
    with pytest.raises(InputError, match="at least one"):
        Clusters.combine([])


def test_combined_names_are_unique() -> None:
    ids = ["a", "b", "c"]
    coarse = Clusters.from_labels(ids, [0, 0, 1], name="image_features")
    fine = Clusters.from_labels(ids, [0, 1, 2], name="image_features")
    tags = Clusters.from_labels(ids, [0, -1, 0], name="tags")
    combined = Clusters.combine([coarse, tags, fine])
    assert combined.table["name"].tolist() == [
        "image_features.1-0", "image_features.1-1", "tags-0",
        "image_features.2-0", "image_features.2-1", "image_features.2-2",
    ]  # fmt: skip
    assert combined.table["source"].tolist() == ["image_features.1"] * 2 + ["tags"] + ["image_features.2"] * 3
    assert coarse.table["name"].tolist() == ["image_features-0", "image_features-1"]  # left as it was


def test_names_two_adapters_share_get_their_source() -> None:
    def named(source: str, names: list[str], level: int = 0) -> Clusters:
        membership = sparse.csr_array(np.eye(2, dtype=np.float32))
        return Clusters(["a", "b"], membership, cluster_table(membership, source=source, level=level, names=names))

    combined = Clusters.combine([named("labels", ["bird", "dog"]), named("hierarchy", ["bird", "cat"])])
    assert combined.table["name"].tolist() == ["labels:bird", "dog", "hierarchy:bird", "cat"]
    levels = Clusters.combine([named("hierarchy", ["a", "b"]), named("hierarchy", ["a/c", "b/d"], level=1)])
    assert levels.table["source"].tolist() == ["hierarchy"] * 4  # the levels of one hierarchy, not two of them
    twice = Clusters.combine([levels, levels])
    assert twice.table["name"].is_unique
    assert twice.table["source"].tolist() == ["hierarchy.1"] * 4 + ["hierarchy.2"] * 4


@examples
@given(st.data())
def test_blocks_put_together_are_the_whole(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 6))
    parts = [data.draw(matrices(rows=n)) for _ in range(data.draw(st.integers(1, 3)))]
    whole = Clusters.combine(parts)
    blocks = list(whole.blocks().values())
    assert len(blocks) == sum(part.n_clusters > 0 for part in parts)
    if blocks:
        again = Clusters.combine(blocks)
        assert (again.membership != whole.membership).nnz == 0
        assert again.table.to_dict("records") == whole.table.to_dict("records")


def test_select_reorders_and_counts_anew() -> None:
    clusters = Clusters.from_labels(["a", "b", "c"], [0, 1, 1], name="toy")
    chosen = clusters.select(["c", "b"])
    assert chosen.ids == ["c", "b"]
    assert chosen.membership.toarray().tolist() == [[0, 1], [0, 1]]
    assert chosen.table["size"].tolist() == [0, 2]
    assert clusters.table["size"].tolist() == [1, 2]
    assert clusters.select([]).membership.shape == (0, 2)
    with pytest.raises(InputError, match="1 ids are not among its 3, such as 'z'"):
        clusters.select(["a", "z"])


@examples
@given(clusters=matrices())
def test_what_is_loaded_equals_what_was_saved(tmp_path: Path, clusters: Clusters) -> None:
    path = tmp_path / "seed=3" / "clusters.parquet"
    clusters.save(path)
    loaded = Clusters.load(path)
    assert loaded.ids == clusters.ids
    assert loaded.membership.shape == clusters.membership.shape
    assert (loaded.membership != clusters.membership).nnz == 0
    assert loaded.table.to_dict("records") == clusters.table.to_dict("records")


def test_the_file_is_plain_parquet(tmp_path: Path) -> None:
    path = tmp_path / "clusters.parquet"
    Clusters.from_labels(["é", "b"], [0, -1], name="toy", terms=[["日の出"]]).save(path)
    assert pq.ParquetFile(path).read().to_pylist() == [
        {"id": "é", "label": 0, "clusters": [0], "weights": [1.0]},
        {"id": "b", "label": -1, "clusters": [], "weights": []},
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["clusters.parquet"]


def test_files_that_are_no_clusters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Clusters.load(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(InputError, match="not a Parquet file"):
        Clusters.load(tmp_path / "text.parquet")
    with pytest.raises(InputError, match="not a Parquet file"):
        Clusters.load(tmp_path)
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(InputError, match="not a clusters file of version 1"):
        Clusters.load(tmp_path / "other.parquet")
