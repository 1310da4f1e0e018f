"""`check_adapter` passes the example plugin, and catches each broken promise."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from wscl_embed.adapter import Adapter, option
from wscl_embed.clusters import Clusters
from wscl_embed.testing import check_adapter

CALLS = itertools.count()


@dataclass(kw_only=True)
class Length(Adapter):
    """Clusters titles by their length."""

    name = "length"
    column: str = option("title", "column with the title")

    def features(self, dataset: datasets.Dataset) -> Any:
        return np.array([[np.nan if title is None else len(title)] for title in self.read(dataset, self.column)])


@dataclass(kw_only=True)
class WithoutHelp(Length):
    unit: str = field(default="characters")


class Shuffles(Length):
    def assign(self, dataset: datasets.Dataset) -> Clusters:
        return super().assign(dataset.select(range(len(dataset))[::-1]))


class OneCluster(Length):
    def features(self, dataset: datasets.Dataset) -> Any:
        return np.ones((len(dataset), 1))


class Forgetful(Length):
    def features(self, dataset: datasets.Dataset) -> Any:
        return super().features(dataset) + (next(CALLS) % 2) * 100 * (np.arange(len(dataset)) % 2)[:, None]


class NullIsZeroLength(Length):
    def features(self, dataset: datasets.Dataset) -> Any:
        return np.array([[1 + len(title or "")] for title in dataset[self.column]])


class ReadsTheTable(Length):
    def features(self, dataset: datasets.Dataset) -> Any:
        titles = dataset.data.column(self.column).to_pylist()[: len(dataset)]
        return np.array([[np.nan if title is None else len(title)] for title in titles])


class ForgetsTheNoise(Length):
    def assign(self, dataset: datasets.Dataset) -> Clusters:
        return replace(super().assign(dataset), raw=())


class NearestTakesAll(Length):
    def assign(self, dataset: datasets.Dataset) -> Clusters:
        clusters = super().assign(dataset)
        if self.noise != "nearest":
            return clusters
        labels = np.maximum(clusters.labels, 0)
        joined = Clusters.from_labels(clusters.ids, labels, name=self.name)
        return replace(joined, raw=clusters.raw)


class OtherTerms(Length):
    def features_and_terms(self, dataset: datasets.Dataset) -> Any:
        return self.features(dataset), lambda labels: [["long"]] * (labels.max() + 1)


class OtherFeatures(Length):
    def features_and_terms(self, dataset: datasets.Dataset) -> Any:
        features, terms_of = super().features_and_terms(dataset)
        return 2 * features, terms_of


class OtherSource(Length):
    def assign(self, dataset: datasets.Dataset) -> Clusters:
        clusters = super().assign(dataset)
        return replace(clusters, table=clusters.table.assign(source="other"))


class KeyErrorAdapter(Length):
    def read(self, dataset: datasets.Dataset, column: str) -> list[Any]:
        return list(dataset[column])


def titles() -> datasets.Dataset:
    values = [word * count for word in ("a", "b") for count in (1, 1, 1, 9, 9, 9)]
    return datasets.Dataset.from_dict({"id": [f"t{i}" for i in range(12)], "title": values, "colour": ["red"] * 12})


def test_a_sound_adapter_passes() -> None:
    check_adapter(Length(n_clusters=2), titles())


def test_the_example_plugin_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(__file__).parent.parent / "examples" / "custom_adapter" / "title_words.py"
    spec = importlib.util.spec_from_file_location("title_words", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "title_words", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    adapter = module.TitleWordsAdapter
    words = ["red shoe", "red shoes", "blue hat", "blue hats"] * 4
    dataset = datasets.Dataset.from_dict({"id": [str(i) for i in range(16)], adapter().column: words})
    check_adapter(adapter(n_clusters=2), dataset)


@pytest.mark.parametrize(
    ("adapter", "said"),
    [
        (WithoutHelp, "option 'unit' has no help line"),
        (Shuffles, "the ids are not those of the dataset"),
        (OneCluster, "1 clusters of 12 records"),
        (OtherSource, "source is not the adapter's name"),
        (OtherTerms, "features_and_terms.. differs"),
        (OtherFeatures, "features_and_terms.. differs"),
        (Forgetful, "two calls gave different clusters"),
        (ReadsTheTable, "select.* is not read as such"),
        (NullIsZeroLength, "a null 'title' is in a cluster"),
        (KeyErrorAdapter, "not InputError"),
        (ForgetsTheNoise, "noise=instance is lost"),
        (NearestTakesAll, "noise=nearest does not leave a record with a null 'title' alone"),
    ],
)
def test_a_broken_promise_is_named(adapter: type[Adapter], said: str) -> None:
    with pytest.raises(AssertionError, match=f"adapter length: .*{said}"):
        check_adapter(adapter(n_clusters=2), titles())
