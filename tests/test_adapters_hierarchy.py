"""Hierarchies: levels from paths, tables of parents and trees over features, and what two images then weigh."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wscl_adapters.hashtags import HashtagsAdapter
from wscl_adapters.hierarchy import HierarchyAdapter
from wscl_adapters.taxonomies import read_parents
from wscl_adapters.trees import CondensedTree, condensed_tree, density_levels, kmeans_levels
from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.registry import adapter_spec, make_adapter

PATHS = ["animal/bird/auklet", "animal/bird/owl", "animal/dog", None, "plant/tree/oak", "animal / bird/auklet", " / "]


def pathed(values: list[Any], column: str = "path") -> datasets.Dataset:
    return datasets.Dataset.from_dict({"id": [str(row) for row in range(len(values))], column: values})


def pair_weights(clusters: Clusters) -> np.ndarray:
    return np.asarray((clusters.membership @ clusters.membership.T).toarray())


def level_labels(clusters: Clusters) -> list[list[int]]:
    return [block.labels.tolist() for block in clusters.blocks().values()]


def is_refinement(finer: list[int], coarser: list[int]) -> bool:
    """Whether each cluster of the finer level lies in one of the coarser; noise is in none."""
    parents: dict[int, set[int]] = {}
    for fine, coarse in zip(finer, coarser, strict=True):
        if fine >= 0:
            parents.setdefault(fine, set()).add(coarse)
    return all(len(above) == 1 and -1 not in above for above in parents.values())


def test_paths_by_hand() -> None:
    clusters = HierarchyAdapter(level_weights=[1, 2, 3]).assign(pathed(PATHS))
    assert clusters.table.drop(columns="terms").to_dict("list") == {
        "name": [
            "animal", "plant", "animal/bird", "animal/dog", "plant/tree",
            "animal/bird/auklet", "animal/bird/owl", "plant/tree/oak",
        ],
        "source": ["hierarchy"] * 8,
        "level": [0, 0, 1, 1, 1, 2, 2, 2],
        "size": [4, 1, 3, 1, 1, 2, 1, 1],
    }  # fmt: skip
    assert clusters.table["terms"][6] == ["animal", "bird", "owl"]
    expected = np.zeros((7, 7))
    expected[np.ix_([0, 1, 2, 5], [0, 1, 2, 5])] = 1 / 6
    expected[np.ix_([0, 1, 5], [0, 1, 5])] = 3 / 6
    expected[2, 2] = 3 / 6  # its path ends there
    expected[np.ix_([0, 5], [0, 5])] = expected[1, 1] = expected[4, 4] = 1
    np.testing.assert_allclose(pair_weights(clusters), expected, atol=1e-6)


parts = st.sampled_from(["a", "b", "c"])


@given(
    paths=st.lists(st.one_of(st.none(), st.lists(parts, min_size=0, max_size=4)), min_size=1, max_size=9),
    weights=st.lists(st.floats(0.1, 9), min_size=4, max_size=4),
)
def test_a_pair_weighs_the_levels_it_shares(paths: list[list[str] | None], weights: list[float]) -> None:
    known = [path for path in paths if path]
    dataset = datasets.Dataset.from_dict(
        {"id": [str(row) for row in range(len(paths))], "path": paths},
        features=datasets.Features({"id": datasets.Value("string"), "path": datasets.List(datasets.Value("string"))}),
    )
    if not known:
        with pytest.raises(InputError, match=r"null in all|carries a signal"):
            HierarchyAdapter().assign(dataset)
        return
    root = 0
    while len({path[root] for path in known if len(path) > root}) == 1 and all(len(path) > root for path in known):
        if max(map(len, known)) == root + 1:
            break
        root += 1
    depth = max(map(len, known)) - root
    adapter = HierarchyAdapter(level_weights=weights[:depth])
    expected = np.zeros((len(paths), len(paths)))
    for i, first in enumerate(paths):
        for j, second in enumerate(paths):
            for level in range(depth):
                end = root + level + 1
                if first and second and len(first) >= end and len(second) >= end and first[:end] == second[:end]:
                    expected[i, j] += weights[level] / sum(weights[:depth])
    clusters = adapter.assign(dataset)
    np.testing.assert_allclose(pair_weights(clusters), expected, atol=1e-5)
    assert clusters.table["name"].is_unique


def test_strings_and_lists_are_the_same_paths() -> None:
    as_lists = [None if path is None else [part.strip() for part in path.split("/")] for path in PATHS]
    first = HierarchyAdapter().assign(pathed(PATHS))
    for dataset, options in [
        (pathed(as_lists), {}),
        (pathed([path and path.replace("/", " > ") for path in PATHS], "kind"), {"column": "kind", "separator": ">"}),
    ]:
        second = HierarchyAdapter(**options).assign(dataset)
        assert (first.membership != second.membership).nnz == 0
    assert HierarchyAdapter().assign(pathed([["a/b"], ["a", "b"]])).table["name"].tolist() == ["a", "a\\/b", "a/b"]


def test_a_common_root_is_no_level() -> None:
    clusters = HierarchyAdapter().assign(pathed(["entity/thing/cat", "entity/thing/dog/poodle", "entity/thing", None]))
    assert clusters.table["name"].tolist() == ["entity/thing/cat", "entity/thing/dog", "entity/thing/dog/poodle"]
    assert clusters.table["level"].tolist() == [0, 0, 1]
    assert clusters.labels.tolist() == [0, 1, -1, -1]


def test_levels_keeps_the_coarsest() -> None:
    clusters = HierarchyAdapter(levels=2).assign(pathed(PATHS))
    assert clusters.table["level"].tolist() == [0, 0, 1, 1, 1]
    with pytest.raises(InputError, match=r"2 level_weights, but 3 levels.*levels=2"):
        HierarchyAdapter(level_weights=[0.5, 0.5]).assign(pathed(PATHS))


TAXONOMY = [
    ("auklet", "bird"),
    ("owl", "bird"),
    ("bird", "animal"),
    ("poodle", "dog"),
    ("poodle", "pet"),
    ("dog", "animal"),
    ("animal", ""),
    ("oak", "tree"),
]
LABELS = ["auklet", "owl", "poodle", None, "oak", "bird", " owl "]
LABEL_PATHS = ["animal/bird/auklet", "animal/bird/owl", "animal/dog/poodle", None, "tree/oak", "animal/bird"]


def write_table(folder: Path, kind: str, rows: list[tuple[Any, Any]]) -> Path:
    path = folder / f"parents.{kind}"
    frame = pd.DataFrame(rows, columns=["child", "parent"])
    if kind == "csv":
        frame.to_csv(path, index=False)
    elif kind == "parquet":
        frame.to_parquet(path)
    else:
        path.write_text(
            "".join(json.dumps({"child": child, "parent": parent or None}) + "\n" for child, parent in rows)
        )
    return path


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_table_of_parents_gives_the_paths(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    table = write_table(tmp_path, kind, TAXONOMY)
    with caplog.at_level(logging.WARNING, logger="wscl_embed"):
        adapter = make_adapter(f"hierarchy:column=label,parents={table}")
        clusters = adapter.assign(pathed(LABELS, "label"))
    expected = HierarchyAdapter().assign(pathed([*LABEL_PATHS, "animal/bird/owl"]))
    assert clusters.table.to_dict("records") == expected.table.to_dict("records")
    assert (clusters.membership != expected.membership).nnz == 0
    assert [record.getMessage() for record in caplog.records] == [
        f"{table}: 1 classes have several parents, such as 'poodle'; the first in the file counts."
    ]


def test_the_classes_of_a_class_label_have_parents_too(tmp_path: Path) -> None:
    table = write_table(tmp_path, "csv", [("cat", "animal"), ("dog", "animal"), ("oak", "plant")])
    feature = datasets.ClassLabel(names=["cat", "dog", "oak"])
    dataset = pathed([0, 1, 2, -1], "label").cast_column("label", feature)
    clusters = HierarchyAdapter(column="label", parents=str(table)).assign(dataset)
    assert level_labels(clusters) == [[0, 0, 1, -1], [0, 1, 2, -1]]


def test_deep_tables_need_no_deep_stack(tmp_path: Path) -> None:
    rows = [(str(number), str(number + 1)) for number in range(5000)]
    assert len(read_parents(write_table(tmp_path, "csv", rows))["0"]) == 5001


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "b"), ("b", "c"), ("c", "a")], r"parents\.csv:2: a cycle of parents: a -> b -> c -> a\."),
        ([("a", "a")], r"parents\.csv:2: a cycle of parents: a -> a\."),
        ([("x", "a"), (None, "b")], r"parents\.csv:3: no child"),
        (
            [("owl", "bird")],
            r"parents\.csv: 3 of the labels are not in it, such as 'auklet', 'oak', 'poodle'\. Add",
        ),
    ],
)
def test_what_is_wrong_with_a_table_is_said_with_its_place(
    tmp_path: Path, rows: list[tuple[Any, Any]], message: str
) -> None:
    table = write_table(tmp_path, "csv", rows)
    with pytest.raises(InputError, match=message):
        HierarchyAdapter(column="label", parents=str(table)).assign(pathed(LABELS, "label"))


def test_tables_that_are_none(tmp_path: Path) -> None:
    def refused(table: Path, message: str) -> None:
        with pytest.raises(InputError, match=message):
            read_parents(table)

    refused(tmp_path / "no.csv", r"no\.csv: there is no such file")
    refused(tmp_path / "table.txt", r"table\.txt: a table of parents is one of \.jsonl, \.csv, \.parquet")
    (tmp_path / "other.csv").write_text("name,parent\na,b\n")
    refused(tmp_path / "other.csv", r"other\.csv: no column 'child'; .*Its columns are: name, parent")
    (tmp_path / "broken.jsonl").write_text('{"child": "a", "parent": "b"}\n{"child"')
    refused(tmp_path / "broken.jsonl", r"broken\.jsonl:2: not valid JSON")


def made_tree(seed: int = 0) -> np.ndarray:
    """270 points: 3 far groups of 3 near ones of 30."""
    rng = np.random.default_rng(seed)
    coarse = np.eye(3).repeat(3, axis=0) * 100
    fine = np.tile(np.eye(3), (3, 1)) * 10
    return np.asarray((coarse + fine).repeat(30, axis=0) + rng.normal(size=(270, 3)))


COARSE = np.arange(9).repeat(30) // 3
FINE = np.arange(9).repeat(30)


def same_partition(labels: np.ndarray, expected: np.ndarray) -> bool:
    return len(set(zip(labels.tolist(), expected.tolist(), strict=True))) == len(set(labels)) == len(set(expected))


def test_hierarchical_kmeans_finds_a_made_tree() -> None:
    coarse, fine = kmeans_levels(made_tree(), [3, 9], seed=0)
    assert same_partition(coarse, COARSE)
    assert is_refinement(fine.tolist(), coarse.tolist())
    assert len(set(fine)) == 9


def test_the_condensed_tree_finds_a_made_tree() -> None:
    outlier = [[140.0, 30.0, 30.0]]  # nearer to the first group than the groups to each other, far from its clusters
    features = np.concatenate([made_tree(), outlier])
    coarse, fine = density_levels(features, [2, 9], 2, min_cluster_size=10, seed=0)
    assert same_partition(coarse, np.append(COARSE, 0))
    assert same_partition(fine, np.append(FINE, -1))
    assert fine[-1] == -1  # it left its group before that split
    assert is_refinement(fine.tolist(), coarse.tolist())


def test_the_condensed_tree_by_hand() -> None:
    """8 rows: root 8 -> 9 (rows 0-3, and 4, which leaves) and 10 (5-7); 9 -> 11 (0, 1) and 12 (2, 3)."""
    kinds = [("parent", "i8"), ("child", "i8"), ("child_size", "i8")]
    edges = [(8, 9, 5), (8, 10, 3), (9, 11, 2), (9, 12, 2), (9, 4, 1)]
    edges += [(11, 0, 1), (11, 1, 1), (12, 2, 1), (12, 3, 1), (10, 5, 1), (10, 6, 1), (10, 7, 1)]
    tree = CondensedTree(np.array(edges, dtype=kinds), 8)
    assert tree.n_leaves == 3
    assert tree.labels(largest=5).tolist() == [9, 9, 9, 9, 9, 10, 10, 10]
    assert tree.labels(largest=4).tolist() == [11, 11, 12, 12, -1, 10, 10, 10]


def test_the_leaves_are_those_of_hdbscan() -> None:
    from hdbscan import HDBSCAN

    features = made_tree(1)
    model = HDBSCAN(min_cluster_size=8, cluster_selection_method="leaf", core_dist_n_jobs=1).fit(features)
    labels = CondensedTree(condensed_tree(features, 8, 0), len(features)).labels(largest=0)
    assert ((labels < 0) == (model.labels_ < 0)).all()
    assert same_partition(labels, model.labels_)


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_a_tree_over_the_features_of_another_adapter(emoji: datasets.Dataset, method: str) -> None:
    options = {"method": method, "min_cluster_size": 3} if method == "hdbscan" else {"method": method}
    adapter = HierarchyAdapter(of=HashtagsAdapter(), **options)  # type: ignore[arg-type]
    clusters = adapter.assign(emoji)
    levels = level_labels(clusters)
    assert len(levels) == 3
    assert is_refinement(levels[2], levels[1])
    assert is_refinement(levels[1], levels[0])
    sizes = [block.n_clusters for block in clusters.blocks().values()]
    assert 2 <= sizes[0] < sizes[1] < sizes[2]
    assert clusters.table["terms"].map(len).min() > 0
    without = ~np.asarray(HashtagsAdapter().features(emoji)).any(axis=1)
    assert without.any()
    assert (clusters.labels[without] == -1).all()
    assert pair_weights(clusters).max() == pytest.approx(1)


def test_the_clusters_of_each_level_can_be_chosen(emoji: datasets.Dataset) -> None:
    clusters = make_adapter("hierarchy:of=hashtags,of.min_df=1,level_clusters=4+20").assign(emoji)
    sizes = [block.n_clusters for block in clusters.blocks().values()]
    assert sizes[0] == 4
    assert 15 <= sizes[1] <= 25  # in proportion, and rounded


@pytest.mark.parametrize("method", ["kmeans", "hdbscan"])
def test_a_handful_of_records(method: str) -> None:
    dataset = datasets.Dataset.from_dict({"id": ["a", "b"], "tags": [["sun"], ["snow"]]})
    spec = f"hierarchy:of=hashtags,of.min_df=1,method={method}"
    clusters = make_adapter(spec).assign(dataset)
    assert clusters.n_clusters == (6 if method == "kmeans" else 0)


def test_inner_options_survive_as_text_and_as_objects() -> None:
    spec = "hierarchy:of=captions,of.column=title,of.batch_size=8,method=hdbscan,levels=2"
    adapter = make_adapter(spec)
    assert isinstance(adapter, HierarchyAdapter)
    assert adapter_spec(adapter) == spec
    assert HierarchyAdapter(of="captions:column=title,batch_size=8", method="hdbscan", levels=2) == adapter
    assert make_adapter("hierarchy:of=image_features").needs_image_features
    assert not adapter.needs_image_features


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("of=labels", "labels has no features to make a tree over; captions,"),
        ("of.column=x", r"of\.column=x, but not the adapter it is for; give of=NAME"),
        ("of=captions,of.colum=x", "captions has no option 'colum'. Did you mean column"),
        ("of=caption", "unknown adapter 'caption'. Did you mean captions"),
        ("of=captions,column=x", "column applies only without of"),
        ("of=captions,of.n_clusters=3", r"of\.n_clusters does not apply"),
        ("method=hdbscan", "method applies only with of=ADAPTER"),
        ("of=captions,method=ward", "method='ward': Input should be 'kmeans' or 'hdbscan'"),
        ("column.x=3", "no option 'column.x'"),
        ("of=captions,level_clusters=3+2", r"must ascend from 1 or more; got \[3, 2\]"),
        ("of=captions,levels=2,level_clusters=2+3+4", "levels=2, but 3 level_clusters"),
        ("level_weights=1+0", "must be above 0"),
        ("separator=", "separator must not be empty"),
        ("n_clusters=5", "no option 'n_clusters'"),
    ],
)
def test_mistakes_are_explained(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_adapter(f"hierarchy:{spec}")


@pytest.mark.parametrize("value", [3, {"en": "a/b"}, [["a"], ["b"]]])
def test_what_is_no_path_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match=r"'path' holds a .* in the record '.+'; a path such as 'animal/bird'"):
        HierarchyAdapter().assign(pathed([value]))


def test_a_label_that_is_a_list_is_refused(tmp_path: Path) -> None:
    table = write_table(tmp_path, "csv", TAXONOMY)
    with pytest.raises(InputError, match="holds a list"):
        HierarchyAdapter(column="label", parents=str(table)).assign(pathed([["owl"]], "label"))


def test_nothing_but_blanks_names_the_column() -> None:
    with pytest.raises(InputError, match=r"none of the 2 records carries a signal .*column=path"):
        HierarchyAdapter().assign(pathed(["", "/"]))
