"""`Adapter` as people subclass it: what `features` may give, and what is said of a class that is not finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse
from sklearn.cluster import AgglomerativeClustering

from wscl_embed.adapter import Adapter, option
from wscl_embed.errors import InputError
from wscl_embed.pipeline import cluster, fit
from wscl_embed.testing import check_adapter

ROWS = np.array([[0.0, 1.0], [0.0, 1.1], [9.0, 1.0], [9.0, 1.1], [9.0, 1.0], [np.nan, 1.0]])


@dataclass(kw_only=True)
class Given(Adapter):
    """Clusters the rows it is given, for as many records."""

    name = "given"
    rows: Any = field(default=None, metadata={"help": "what features gives"})

    def features(self, dataset: datasets.Dataset) -> Any:
        return self.rows


def records(n: int = 6) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"id": [str(i) for i in range(n)]})


@pytest.mark.parametrize("clusterer", ["kmeans", "exact", AgglomerativeClustering(2)], ids=["kmeans", "exact", "own"])
@pytest.mark.parametrize(
    "convert",
    [
        np.ndarray.tolist,
        lambda rows: pd.DataFrame(rows, columns=["x", "y"]),
        lambda rows: pd.DataFrame(rows).astype(object),
        torch.tensor,
    ],
    ids=["lists", "data frame", "objects", "tensor"],
)
def test_rows_of_numbers_come_in_many_shapes(convert: Any, clusterer: Any) -> None:
    k = 2 if clusterer == "kmeans" else None
    expected = Given(rows=ROWS, clusterer=clusterer, n_clusters=k).assign(records()).labels
    assert expected.tolist()[2] == expected.tolist()[4] != expected.tolist()[0]
    assert expected.tolist()[5] == -1
    found = Given(rows=convert(ROWS), clusterer=clusterer, n_clusters=k).assign(records()).labels
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize("layout", ["csr", "csc", "coo", "lil"])
def test_any_sparse_layout_is_read(layout: str) -> None:
    dense = np.nan_to_num(ROWS)
    expected = Given(rows=dense, n_clusters=2).assign(records()).labels
    found = Given(rows=sparse.csr_matrix(dense).asformat(layout), n_clusters=2).assign(records()).labels
    assert found.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (None, "must give numbers|features of shape"),
        ([["a", "b"]] * 6, r"must give numbers, a row a record \(could not convert string"),
        (ROWS[:, 0], r"shape \(6,\) for 6 records; features\(\) must give \(6, F\)"),
        (ROWS[:5], r"shape \(5, 2\) for 6 records"),
    ],
)
def test_what_is_no_rows_of_numbers_is_refused(rows: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"adapter given: features.*{said}|{said}"):
        Given(rows=rows).assign(records())


def test_an_unfinished_class_says_what_it_lacks() -> None:
    class NoDecorator(Given):
        column: str = option("title", "column with the title")

    @dataclass(kw_only=True)
    class NoName(Adapter):
        pass

    with pytest.raises(ValueError, match="must not be a list: take a tuple"):
        option([], "columns to read")
    with pytest.raises(InputError, match=r"NoDecorator: its options \(column\) are no fields yet; put @dataclass"):
        NoDecorator()
    with pytest.raises(InputError, match="NoName: give the class a name"):
        NoName()


def test_options_that_cannot_be_met_are_refused() -> None:
    with pytest.raises(InputError, match="n_clusters must be at least 1; got '50'"):
        Given(n_clusters="50")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no probabilities_ after fit_predict"):
        Given(rows=ROWS, clusterer=AgglomerativeClustering(2), strengths=True).assign(records())


def test_a_class_is_no_adapter(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="an object such as MyAdapter"):
        cluster(records(), Given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="an object such as MyAdapter"):
        fit(records(), [Given], tmp_path / "run")  # type: ignore[list-item]
    with pytest.raises(InputError, match="takes an adapter"):
        check_adapter(Given, records())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no column 'titel'"):
        check_adapter(Given(rows=ROWS), records(), column="titel")
