"""The adapters that cluster little or nothing: labels, image features, none."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest

from wscl_adapters.image_features import ImageFeaturesAdapter
from wscl_adapters.labels import LabelsAdapter
from wscl_adapters.none import NoneAdapter
from wscl_embed.errors import InputError


def labelled(values: list[Any], feature: Any = None) -> datasets.Dataset:
    dataset = datasets.Dataset.from_dict({"id": [str(row) for row in range(len(values))], "label": values})
    return dataset if feature is None else dataset.cast_column("label", feature)


@pytest.mark.parametrize(
    ("values", "labels", "names"),
    [
        (["shoe", "hat", None, "shoe", " "], [1, 0, -1, 1, -1], ["hat", "shoe"]),
        ([10, 9, None], [1, 0, -1], ["9", "10"]),
        ([True, False, None], [1, 0, -1], ["False", "True"]),
        ([0.5, float("nan")], [0, -1], ["0.5"]),
        (["Shoe", "shoe"], [0, 1], ["Shoe", "shoe"]),
    ],
)
def test_one_label_a_record(values: list[Any], labels: list[int], names: list[str]) -> None:
    clusters = LabelsAdapter().assign(labelled(values))
    assert clusters.labels.tolist() == labels
    assert clusters.table["name"].tolist() == names
    assert clusters.table["terms"].tolist() == [[name] for name in names]
    assert clusters.table["source"].unique().tolist() == ["labels"]


def test_the_format_of_the_dataset_makes_no_difference() -> None:
    clusters = LabelsAdapter().assign(labelled([2, 1, 2]).with_format("torch"))
    assert clusters.labels.tolist() == [1, 0, 1]
    assert clusters.table["name"].tolist() == ["1", "2"]


def test_several_labels_are_several_entries() -> None:
    clusters = LabelsAdapter().assign(labelled([["a", "b"], ["b", "b", None], [], None, ["c"]]))
    assert clusters.membership.toarray().tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0], [0, 0, 1]]
    assert clusters.table["size"].tolist() == [1, 2, 1]


def test_class_labels_bring_their_names_and_minus_one_is_no_class() -> None:
    names = datasets.ClassLabel(names=["shoe", "hat"])
    clusters = LabelsAdapter().assign(labelled([0, 1, -1, None], names))
    assert clusters.table["name"].tolist() == ["hat", "shoe"]
    assert clusters.labels.tolist() == [1, 0, -1, -1]
    several = LabelsAdapter().assign(labelled([[0, 1], [1]], datasets.Sequence(names)))
    assert several.membership.toarray().tolist() == [[1, 1], [1, 0]]


def test_labels_that_are_none_are_refused() -> None:
    with pytest.raises(InputError, match=r"in the column '.+' of the record '.+' is no label"):
        LabelsAdapter().assign(labelled([{"a": 1}]))
    with pytest.raises(InputError, match=r"none of the 2 records carries a signal .*column=label"):
        LabelsAdapter().assign(labelled(["", " "]))


def featured(values: Any, feature: Any = None) -> datasets.Dataset:
    columns = {"id": [str(row) for row in range(len(values))], "image_features": values}
    features = (
        None if feature is None else datasets.Features({"id": datasets.Value("string"), "image_features": feature})
    )
    return datasets.Dataset.from_dict(columns, features=features)


def makes_halves() -> bool:
    try:
        return len(pa.array([1.0]).cast(pa.float16())) == 1
    except pa.ArrowNotImplementedError:
        return False


FEATURES = [
    pytest.param(None, id="list"),
    pytest.param(datasets.Sequence(datasets.Value("float32"), length=2), id="fixed"),
    pytest.param(
        datasets.LargeList(datasets.Value("float16")),
        id="large-half",
        marks=pytest.mark.skipif(not makes_halves(), reason="this version of Arrow makes no halves of Python's floats"),
    ),
]


@pytest.mark.parametrize("feature", FEATURES)
def test_vectors_are_normalised_and_null_or_zero_ones_noise(feature: Any) -> None:
    values = [[3.0, 4.0], None, [0.0, 0.0], [-6.0, 8.0], [6.0, 8.0]]
    dataset = featured(values, feature)
    rows = ImageFeaturesAdapter().features(dataset)
    expected = [[0.6, 0.8], [np.nan, np.nan], [0, 0], [-0.6, 0.8], [0.6, 0.8]]
    np.testing.assert_allclose(rows, np.array(expected), rtol=1e-6)
    assert np.asarray(rows).dtype == np.float32
    clusters = ImageFeaturesAdapter(n_clusters=2).assign(dataset.select([4, 3, 2, 1, 0]))
    assert clusters.labels[0] == clusters.labels[4] != clusters.labels[1]
    assert clusters.labels[2:4].tolist() == [-1, -1]


def test_arrays_are_read_without_python_floats() -> None:
    vectors = np.random.default_rng(0).normal(size=(2_000, 640)).astype(np.float32)
    dataset = featured(list(vectors)).with_format("torch")
    read = ImageFeaturesAdapter().vectors(dataset)
    np.testing.assert_array_equal(read, vectors)


def test_features_that_are_none_are_explained() -> None:
    with pytest.raises(
        InputError, match=r"`wscl_embed.cluster` and `wscl_embed.fit` add it. Its columns are: id, label"
    ):
        ImageFeaturesAdapter().assign(labelled(["a"]))
    with pytest.raises(InputError, match=r"vectors of the lengths \[1, 2\]"):
        ImageFeaturesAdapter().assign(featured([[1.0], [1.0, 2.0]]))
    with pytest.raises(InputError, match="holds string, not vectors of numbers"):
        ImageFeaturesAdapter().assign(featured(["a"]))


def test_none_makes_no_clusters() -> None:
    clusters = NoneAdapter().assign(labelled(["a", "b"]))
    assert clusters.membership.shape == (2, 0)
    assert clusters.labels.tolist() == [-1, -1]
    assert NoneAdapter().options() == {}
