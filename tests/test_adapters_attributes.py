"""Attributes: the exact partition against a slow loop from its definition, and the encoding for a clusterer."""

from __future__ import annotations

import logging
import math
import statistics
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import sparse

import wscl_adapters.attribute_columns
from wscl_adapters.attribute_columns import encode, indicators
from wscl_adapters.attributes import AttributesAdapter
from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.registry import make_adapter

# gender, waterproof, price, materials; None: null. Row 9 is null throughout.
ROWS: list[tuple[Any, ...]] = [
    ("Women", True, 10.0, ["wool"]),
    ("Women", True, 12.0, ["wool", "silk"]),
    ("Men", False, 80.0, ["wool"]),
    ("Men", False, 95.0, ["cotton"]),
    ("Women", False, 11.0, ["silk", "wool"]),
    (None, True, 70.0, ["cotton"]),
    ("Men", None, None, []),
    ("Unisex", False, 40.0, None),
    (" ", True, float("nan"), ["cotton"]),
    (None, None, None, None),
    ("Men", False, 90.0, ["cotton"]),
]
NAMES = ["gender", "waterproof", "price", "materials"]


def as_mappings(rows: list[tuple[Any, ...]] = ROWS) -> datasets.Dataset:
    records: list[Any] = [dict(zip(NAMES, row, strict=True)) for row in rows]
    return datasets.Dataset.from_dict({"id": [str(row) for row in range(len(rows))], "attributes": records})


def as_columns() -> datasets.Dataset:
    columns = {name: [row[i] for row in ROWS] for i, name in enumerate(NAMES)}
    return datasets.Dataset.from_dict({"id": [str(row) for row in range(len(ROWS))], **columns})


def slow_known(value: Any) -> bool:
    return value is not None and value != [] and value == value and (not isinstance(value, str) or bool(value.strip()))


def slow_partition(rows: list[tuple[Any, ...]], top_k: int) -> list[Any]:
    """One key a record, None for noise, straight from the definition."""

    known = slow_known
    records = [row for row in rows if any(known(value) for value in row)]
    tests: list[tuple[int, Any]] = []  # (attribute, what is asked of its value), attributes and values in order of name
    for attribute in sorted(range(4), key=lambda a: NAMES[a]):
        values = [row[attribute] for row in records if known(row[attribute])]
        if NAMES[attribute] == "waterproof":
            tests.append((attribute, lambda value: value is True))
        elif NAMES[attribute] == "price":
            middle = statistics.median(values)
            strict = max(values) > middle  # nothing lies over the median where half the values are the greatest
            tests.append((attribute, lambda value, m=middle, s=strict: value > m if s else value >= m))
        elif NAMES[attribute] == "materials":
            for material in sorted({item for value in values for item in value}):
                tests.append((attribute, lambda value, material=material: material in value))
        else:
            for category in sorted(set(values)):
                tests.append((attribute, lambda value, category=category: value == category))

    def answers(test: tuple[int, Any], over: list[tuple[Any, ...]]) -> list[bool]:
        return [known(row[test[0]]) and test[1](row[test[0]]) for row in over]

    def entropy(test: tuple[int, Any]) -> float:
        share = sum(answers(test, records)) / len(records)
        return sum(-p * math.log2(p) for p in (share, 1 - share) if p > 0)

    kept = sorted(tests, key=lambda test: -round(entropy(test), 9))[:top_k]
    keys: list[Any] = list(zip(*(answers(test, rows) for test in kept), strict=True))
    return [
        key if any(known(row[attribute]) for attribute, _ in kept) else None
        for key, row in zip(keys, rows, strict=True)
    ]


def same_partition(clusters: Clusters, keys: list[Any]) -> bool:
    labels = clusters.labels.tolist()
    pairs = set(zip(labels, keys, strict=True))
    noise = [label == -1 for label in labels] == [key is None for key in keys]
    return noise and len(pairs) == len(set(labels)) == len(set(keys))


@pytest.mark.parametrize("top_k", range(1, 12))
def test_exact_is_the_slow_loop(top_k: int) -> None:
    keys = slow_partition(ROWS, top_k)
    assert same_partition(AttributesAdapter(top_k=top_k).assign(as_mappings()), keys)
    assert same_partition(AttributesAdapter(columns=NAMES, top_k=top_k).assign(as_columns()), keys)


values_of = [
    st.sampled_from([None, "Men", "Women", "Unisex", " "]),
    st.sampled_from([None, True, False]),
    st.sampled_from([None, 10.0, 12.5, 40.0, 95.0, float("nan")]),
    st.sampled_from([None, [], ["wool"], ["silk"], ["wool", "silk"], ["cotton", "wool"]]),
]


@settings(max_examples=50)
@given(rows=st.lists(st.tuples(*values_of), min_size=1, max_size=14), top_k=st.integers(1, 9))
def test_exact_is_the_slow_loop_on_any_table(rows: list[tuple[Any, ...]], top_k: int) -> None:
    assume(all(any(slow_known(row[attribute]) for row in rows) for attribute in range(4)))
    assert same_partition(AttributesAdapter(top_k=top_k).assign(as_mappings(rows)), slow_partition(rows, top_k))


def test_entropies_by_hand() -> None:
    """8 records. A 4/8: 1 bit; B 3/8: .954; C 2/8: .811; D 1/8: .544. top_k=2 keeps A and B: four joint values."""
    has = {"A": [0, 1, 2, 3], "B": [0, 1, 4], "C": [0, 2], "D": [7]}
    columns = {name: [row in rows for row in range(8)] for name, rows in has.items()}
    dataset = datasets.Dataset.from_dict({"id": list("abcdefgh"), **columns})

    def clusters(top_k: int) -> list[int]:
        return AttributesAdapter(columns=["D", "C", "B", "A"], top_k=top_k).assign(dataset).labels.tolist()

    assert clusters(1) == [0, 0, 0, 0, 1, 1, 1, 1]
    assert clusters(2) == [0, 0, 1, 1, 2, 3, 3, 3]
    assert clusters(3) == [0, 1, 2, 3, 4, 5, 5, 5]
    assert clusters(4) == [0, 1, 2, 3, 4, 5, 5, 6]


def test_exact_by_hand() -> None:
    # Of 10 records with an attribute: waterproof 4, Men 4, cotton 4, price>55 4, wool 4, Women 3, silk 2, Unisex 1;
    # the first two by name are Men and cotton.
    clusters = AttributesAdapter(top_k=2).assign(as_mappings())
    assert clusters.labels.tolist() == [0, 0, 1, 2, 0, 3, 1, 0, 3, -1, 2]
    assert clusters.table["terms"].tolist() == [
        ["not gender=Men", "not materials=cotton"],
        ["gender=Men"],
        ["gender=Men", "materials=cotton"],
        ["materials=cotton"],
    ]


def test_a_record_of_which_only_other_attributes_are_known_is_noise() -> None:
    rows = [("Men", True, 1.0, None), ("Women", True, 2.0, None), (None, True, 3.0, None), ("Men", True, 4.0, None)]
    kept = AttributesAdapter(top_k=2).assign(as_mappings(rows))
    # price>2.5 has the highest entropy, with gender=Women and gender=Men (1 and 2 of 4) around it
    assert same_partition(kept, slow_partition(rows, 2))
    assert AttributesAdapter(columns=["gender"], top_k=1).assign(
        datasets.Dataset.from_dict({"id": list("abcd"), "gender": [row[0] for row in rows]})
    ).labels.tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["b", None, "a", "b"], {"x=a": [2], "x=b": [0, 3]}),
        ([True, False, None], {"x=True": [0]}),
        ([1, 2, 3, 4], {"x>2.5": [2, 3]}),
        ([0, 1, 1, None], {"x>=1": [1, 2]}),
        ([5, 5], {"x>=5": [0, 1]}),
        ([-1.5, 2, None, 0], {"x>0": [1]}),
        ([["a", "b", "a"], ["b", None], None], {"x=a": [0], "x=b": [0, 1]}),
        ([[1, 2], [2]], {"x=1": [0], "x=2": [0, 1]}),
    ],
)
def test_indicators(values: list[Any], expected: dict[str, list[int]]) -> None:
    assert {indicator.holds: indicator.rows.tolist() for indicator in indicators("x", values)} == expected


def test_booleans_and_numbers_are_described_either_way() -> None:
    dataset = datasets.Dataset.from_dict({"id": list("abcd"), "new": [True, True, False, False], "price": [1, 9, 1, 9]})
    clusters = AttributesAdapter(columns=["new", "price"]).assign(dataset)
    assert sorted(map(sorted, clusters.table["terms"])) == [
        ["new=False", "price<=5"],
        ["new=False", "price>5"],
        ["new=True", "price<=5"],
        ["new=True", "price>5"],
    ]


def test_encoding_by_hand() -> None:
    table = {
        "price": [0.0, 4.0, None],
        "colour": ["red", None, None],
        "with": [["a", "b"], ["a"], None],
        "new": [True, False, None],
    }
    half = 0.5**0.5
    expected = [
        [1, -1, 1, half, half, 0, 1],
        [1, 1, 0, 1, 0, 1, 0],
        [np.nan, 0, 0, 0, 0, 0, 0],
    ]
    np.testing.assert_allclose(encode(table, 3), expected, rtol=1e-6)


def test_wide_encodings_stay_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    table = AttributesAdapter().table(as_mappings())
    dense = encode(table, len(ROWS))
    monkeypatch.setattr(wscl_adapters.attribute_columns, "DENSE_COLUMNS", 3)
    wide = encode(table, len(ROWS))
    assert sparse.issparse(wide)
    np.testing.assert_array_equal(wide.toarray(), dense)
    clusters = AttributesAdapter(method="cluster", n_clusters=3).assign(as_mappings())
    assert clusters.labels[9] == -1
    assert (np.delete(clusters.labels, 9) >= 0).all()


def test_cluster_groups_by_several_attributes() -> None:
    rows = [("Men", True, 10.0 + i, ["wool"]) for i in range(5)] + [
        ("Women", False, 90.0 + i, ["silk"]) for i in range(5)
    ]
    clusters = AttributesAdapter(method="cluster", n_clusters=2).assign(as_mappings(rows))
    assert len(set(clusters.labels[:5])) == len(set(clusters.labels[5:])) == 1
    assert clusters.n_clusters == 2
    terms = set(clusters.table["terms"][int(clusters.labels[0])])
    assert terms == {"gender=Men", "materials=wool", "waterproof=True"}


def test_what_is_not_finite_is_null() -> None:
    dataset = datasets.Dataset.from_dict({"id": list("abcd"), "price": [1.0, float("inf"), 9.0, float("-inf")]})
    for options in ({}, {"method": "cluster", "n_clusters": 2}):
        assert AttributesAdapter(columns=["price"], **options).assign(dataset).labels.tolist() in (
            [0, -1, 1, -1],
            [1, -1, 0, -1],
        )


def test_one_number_at_its_median_is_no_noise() -> None:
    dataset = datasets.Dataset.from_dict({"id": list("abc"), "price": [1.0, 5.0, 9.0]})
    adapter = AttributesAdapter(columns=["price"], method="cluster", n_clusters=3)
    assert sorted(adapter.assign(dataset).labels.tolist()) == [0, 1, 2]


def test_mistakes_are_explained() -> None:
    with pytest.raises(InputError, match=r"'gender' holds no mappings.*columns=gender\+OTHER"):
        AttributesAdapter(column="gender").assign(as_columns())
    with pytest.raises(InputError, match=r"no column 'size'.*gender, waterproof, price, materials"):
        AttributesAdapter(columns=["gender", "size"]).assign(as_columns())
    with pytest.raises(InputError, match="none of the 2 records carries a signal"):
        AttributesAdapter().assign(as_mappings([("", None, None, []), (None, None, None, None)]))
    with pytest.raises(InputError, match="method must be exact or cluster; got 'excat'"):
        AttributesAdapter(method="excat")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="n_clusters applies only with method=cluster"):
        AttributesAdapter(n_clusters=3)
    with pytest.raises(InputError, match="top_k applies only with method=exact"):
        AttributesAdapter(method="cluster", top_k=3)


def test_terms_say_what_all_records_of_a_cluster_have() -> None:
    """Also of clusters that someone else made, and nothing of what is null."""
    dataset = datasets.Dataset.from_dict({"id": list("abcd"), "new": [True, True, None, None], "price": [1, 9, 1, 1]})
    adapter = AttributesAdapter(columns=["new", "price"])
    assert adapter.terms(dataset, np.array([0, 0, 1, 1])) == [["new=True"], ["price<=1"]]
    assert adapter.assign(dataset).table["terms"].tolist() == [
        ["new=True", "price<=1"],
        ["new=True", "price>1"],
        ["price<=1"],
    ]


def priced(prices: list[Any]) -> datasets.Dataset:
    ids = [str(row) for row in range(len(prices))]
    return datasets.Dataset.from_dict({"id": ids, "price": prices, "kind": ["a", "b"] * (len(prices) // 2)})


def test_numbers_that_are_text_are_taken_as_numbers_when_named(caplog: pytest.LogCaptureFixture) -> None:
    texts = [f"{number}.5" for number in range(60)]
    as_numbers = AttributesAdapter(columns=["price"], top_k=1).assign(priced([float(text) for text in texts]))
    with caplog.at_level(logging.WARNING, logger="wscl_embed"):
        adapter = make_adapter("attributes:columns=price,numbers=price,top_k=1")
        as_texts = adapter.assign(priced([*texts[:-1], f" {texts[-1]} "]))
        assert not caplog.records
        AttributesAdapter(columns=["price", "kind"], categories=["price"], top_k=1).assign(priced(texts))
        assert not caplog.records
        AttributesAdapter(columns=["price", "kind"], top_k=1).assign(priced(texts))
    assert "'price' holds 60 different numbers written as text" in caplog.text
    assert "numbers=price" in caplog.text
    assert as_texts.labels.tolist() == as_numbers.labels.tolist() == [0] * 30 + [1] * 30
    with pytest.raises(InputError, match="price='cheap' is no number, though numbers=price"):
        adapter.assign(priced(["1", "2", "3", "cheap"]))
    with pytest.raises(InputError, match=r"no attribute 'prize' has a value\. Did you mean price"):
        AttributesAdapter(columns=["price", "kind"], numbers=["prize"]).assign(priced(["1", "2"]))


def test_codes_that_are_numbers_are_categories_when_named() -> None:
    dataset = datasets.Dataset.from_dict({"id": list("abcd"), "code": [1, 2, 3, 1]})
    assert AttributesAdapter(columns=["code"]).assign(dataset).labels.tolist() == [0, 1, 1, 0]
    assert AttributesAdapter(columns=["code"], categories=["code"]).assign(dataset).labels.tolist() == [0, 1, 2, 0]
