"""Stability, agreement and the whole diagnosis: against loops, by hand, and as files and tables on real emoji."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wscl_embed import Adapter, cluster, option
from wscl_embed.clusters import Clusters
from wscl_embed.diagnostics import agreement, diagnose, information_plane, measure_stability, plot_information_plane
from wscl_embed.errors import InputError, MissingExtraError
from wscl_embed.limits import MAX_SEED
from wscl_embed.registry import make_adapter
from wscl_embed.stages.clustering import describe, named

if TYPE_CHECKING:
    import datasets


def made(labels: list[int], name: str = "toy") -> Clusters:
    return Clusters.from_labels([str(row) for row in range(len(labels))], labels, name=name)


def slow_adjusted_rand(z: list[int], t: list[int]) -> float:
    """Hubert and Arabie (1985), counting the pairs one by one."""
    pairs = list(combinations(range(len(z)), 2))
    same_z = sum(z[i] == z[j] for i, j in pairs)
    same_t = sum(t[i] == t[j] for i, j in pairs)
    both = sum(z[i] == z[j] and t[i] == t[j] for i, j in pairs)
    chance, most = same_z * same_t / len(pairs), (same_z + same_t) / 2
    return 1.0 if most == chance else (both - chance) / (most - chance)


@dataclass(kw_only=True)
class CoinAdapter(Adapter):
    """Clusters by its seed and how many records there are, whatever the records."""

    name = "coin"
    seed: int = option(0, "seed", at_least=0)

    def assign(self, dataset: datasets.Dataset) -> Clusters:
        labels = np.random.default_rng([self.seed, len(dataset)]).integers(-1, 3, len(dataset))
        return Clusters.from_labels(list(dataset["id"]), labels, name=self.name)


def test_seeds_beyond_the_last_begin_again(emoji: datasets.Dataset) -> None:
    last = make_adapter(f"hashtags:min_df=1,n_clusters=20,seed={MAX_SEED}")
    found = measure_stability(last, emoji, repeats=2, max_records=100)
    assert found.seeds is not None
    assert len(found.seeds.values) == 1


def test_stability_is_the_rand_index_of_each_pair_on_what_both_have(emoji: datasets.Dataset) -> None:
    found = measure_stability(CoinAdapter(seed=4), emoji, repeats=3, max_records=50, seed=1)
    assert found.records == 50
    rng = np.random.default_rng(1)
    pool = rng.permutation(len(emoji))[:50]
    samples = [sorted(rng.permutation(pool)[:40].tolist()) for _ in range(3)]

    def clustered(seed: int, rows: list[int]) -> dict[int, int]:
        labels = np.random.default_rng([seed, 40]).integers(-1, 3, 40).tolist()
        return {row: -row - 1 if label < 0 else label for row, label in zip(rows, labels, strict=True)}

    def compared(runs: list[dict[int, int]]) -> list[float]:
        pairs = [(a, b, sorted(a.keys() & b.keys())) for a, b in combinations(runs, 2)]
        return [slow_adjusted_rand([a[row] for row in rows], [b[row] for row in rows]) for a, b, rows in pairs]

    assert found.subsamples.values == pytest.approx(compared([clustered(4, rows) for rows in samples]))
    assert found.seeds is not None
    assert found.seeds.values == pytest.approx(compared([clustered(seed, samples[0]) for seed in (4, 5, 6)]))
    assert abs(found.seeds.mean) < 0.2  # a coin agrees with itself by chance only
    assert found.seeds.low == min(found.seeds.values)


def test_what_has_no_chance_in_it_is_stable(emoji: datasets.Dataset) -> None:
    found = measure_stability(make_adapter("labels"), emoji, repeats=2, max_records=100)
    assert (found.subsamples.values, found.seeds) == ((1.0,), None)
    assert found.lines()[1] == "between seeds: the adapter has none"


def test_k_means_on_emoji_is_somewhat_stable(emoji: datasets.Dataset) -> None:
    found = measure_stability(make_adapter("hashtags:min_df=1,n_clusters=20"), emoji, repeats=2)
    assert found.records == len(emoji) == 239
    assert found.seeds is not None
    assert 0.1 < found.seeds.mean < 1
    assert 0.1 < found.subsamples.mean < 1


@pytest.mark.parametrize(
    ("rows", "repeats", "message"), [(100, 1, "at least 2 repeats"), (9, 3, "at least 10 records; there are 9")]
)
def test_too_little_to_compare(emoji: datasets.Dataset, rows: int, repeats: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure_stability(make_adapter("labels"), emoji.select(range(rows)), repeats=repeats)


labels = st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=2, max_size=30)


@given(labels)
def test_agreement_leaves_out_what_one_has_in_no_cluster(values: list[tuple[int, int]]) -> None:
    from sklearn.metrics import adjusted_mutual_info_score

    a, b = [one for one, _ in values], [other for _, other in values]
    found = agreement({"a": made(a), "b": made(b)})
    both = [pair for pair in values if min(pair) >= 0]
    assert found.shared[0, 1] == found.shared[1, 0] == len(both)
    assert found.values.diagonal().tolist() == [1.0, 1.0]
    if len(both) < 2:
        assert np.isnan(found.values[0, 1])
        assert found.to_dict()["adjusted_mutual_information"][1][0] is None
    else:
        expected = adjusted_mutual_info_score([one for one, _ in both], [other for _, other in both])
        assert found.values[0, 1] == found.values[1, 0] == pytest.approx(expected)


def test_agreement_of_many_images_is_that_of_a_sample() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 5, 4000)
    b = np.where(rng.random(4000) < 0.5, a, rng.integers(0, 5, 4000))
    parts = {"a": made(a.tolist()), "b": made(b.tolist())}
    sample = agreement(parts, max_images=1000)
    assert sample.shared.tolist() == [[1000, 1000], [1000, 1000]]
    assert sample.values[0, 1] == pytest.approx(agreement(parts).values[0, 1], abs=0.05)


def test_a_diagnosis_has_a_part_for_each_adapter_and_level() -> None:
    flat, coarse, fine = made([0, 0, 1, 1]), made([0, 0, 1, 1], "tree"), made([0, 1, 2, 3], "tree")
    fine.table["level"] = 1
    tree = Clusters.combine([coarse, fine])
    found = diagnose({"flat": flat, "tree": tree, "none": made([-1] * 4)}, labels=["a", "a", "b", "b"])
    assert list(found.summaries) == ["flat", "tree level 0", "tree level 1", "none"]
    assert [plane.conditional_entropy for plane in found.planes.values()] == pytest.approx([0, 0, 1, 1])
    assert found.agreement is not None
    assert found.agreement.values[0, 1] == pytest.approx(1.0)
    assert json.loads(json.dumps(found.to_dict()))["clusters"]["flat"]["information"]["mutual_information"] == 1.0
    assert "  I(Z;T) = 1.00 of H(T) = 1.00 bits; H(Z|T) = 0.00 bits" in found.lines()


def test_a_diagnosis_puts_the_images_of_all_parts_in_one_order() -> None:
    one = made([0, 0, 1, 1])
    other = one.select(["3", "1", "0", "2"])
    found = diagnose({"one": one, "other": other}, labels=["a", "a", "b", "b"])
    assert found.agreement is not None
    assert found.agreement.values[0, 1] == pytest.approx(1.0)
    assert found.planes["other"].mutual_information == pytest.approx(1.0)


def test_adapters_of_one_name_are_numbered_as_in_the_combined_clusters(emoji: datasets.Dataset) -> None:
    adapters = named([make_adapter(spec) for spec in ("labels", "none", "labels")])
    assert list(adapters) == ["labels.1", "none", "labels.2"]
    parts = [adapter.assign(emoji) for adapter in adapters.values()]
    assert set(Clusters.combine(parts).table["source"]) == {"labels.1", "labels.2"}


def test_metrics_place_each_adapter_of_a_run_on_the_plane() -> None:
    clusters = Clusters.combine([made([0, 0, 1, 1], "x"), made([0, 1, 0, 1], "y")])
    described = describe(clusters, 2, ["a", "a", "b", "b"])
    found = {block["source"]: block["information"]["mutual_information"] for block in described["blocks"]}
    assert found == pytest.approx({"x": 1.0, "y": 0.0})
    assert "information" not in described
    assert "information" not in describe(clusters, 2)["blocks"][0]
    assert "information" not in describe(made([0, 0, 1, 1]), 2, [None] * 4)
    assert describe(made([-1] * 2), 2, ["a", "b"])["information"]["mutual_information"] == pytest.approx(1.0)


def test_the_plot_shows_every_point_and_no_name_over_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    save = Figure.savefig

    def saved(figure: Figure, *given: Any, **more: Any) -> None:
        drawn.append(figure)
        save(figure, *given, **more)

    monkeypatch.setattr(Figure, "savefig", saved)
    truth = np.repeat(np.arange(8), 40)
    rng = np.random.default_rng(0)
    known: list[Any] = [label if rng.random() < 0.3 else None for label in truth.tolist()]
    planes = {f"adapter-{k}": information_plane(made((np.arange(320) % k).tolist()), known) for k in (7, 8, 9, 11)}
    planes["labels"] = information_plane(made(truth.tolist()), known)
    plot_information_plane(planes, tmp_path / "plane.png")
    with Image.open(tmp_path / "plane.png") as image:
        assert image.size == (1120, 800)
        image.load()
    names = [text for text in drawn[0].axes[0].texts if not text.get_text().startswith("H(T)")]
    assert {text.get_text() for text in names} == {*planes, "SimCLR", "SupCon"}
    boxes = [text.get_window_extent() for text in names]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_a_plot_of_labels_all_alike(tmp_path: Path) -> None:
    plot_information_plane({"one": information_plane(made([0, 0]), ["a", "a"])}, tmp_path / "plane.png")
    assert (tmp_path / "plane.png").stat().st_size > 1000


def test_without_matplotlib_the_extra_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'wscl-embed\[plots\]'"):
        cluster(tmp_path / "no-such", "labels", plot=tmp_path / "plane.png", label_column="label")


def test_cluster_from_python_writes_all_it_is_asked_for(emoji: datasets.Dataset, tmp_path: Path) -> None:
    files = {"output": tmp_path / "c.parquet", "diagnostics": tmp_path / "d.json", "plot": tmp_path / "p.png"}
    weights = {"adapter_weight": [1, 2], "label_column": "label", "stability": 2}
    clusters = cluster(emoji, ["hashtags:min_df=1", "labels"], **files, **weights)
    assert (Clusters.load(files["output"]).membership != clusters.membership).nnz == 0
    found = json.loads(files["diagnostics"].read_text())
    assert found["clusters"]["labels"]["information"]["conditional_entropy"] == pytest.approx(0)
    assert found["clusters"]["labels"]["stability"]["seeds"] is None
    assert 0 < found["clusters"]["hashtags"]["stability"]["subsamples"]["mean"] < 1
    assert found["agreement"]["names"] == ["hashtags", "labels"]
    assert files["plot"].read_bytes().startswith(b"\x89PNG")
