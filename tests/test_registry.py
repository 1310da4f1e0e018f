"""Adapters by name: entry points, and the option strings of the command line."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from types import ModuleType
from typing import Any

import datasets
import numpy as np
import pytest
from sklearn.cluster import KMeans

import wscl_embed.registry
from wscl_embed.adapter import Adapter, option
from wscl_embed.clusters import Clusters
from wscl_embed.errors import InputError
from wscl_embed.registry import installed_adapters, make_adapter


@dataclass(kw_only=True)
class TitleLength(Adapter):
    """A third party's adapter."""

    name = "title_length"
    column: str = option("title", "column with the title")
    lower: bool = option(False, "a switch")

    def features(self, dataset: datasets.Dataset) -> Any:
        return np.array([[len(title)] for title in self.read(dataset, self.column)], dtype=float)


@pytest.fixture
def third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("third_party_adapters")
    module.TitleLength = TitleLength  # type: ignore[attr-defined]
    module.NoAdapter = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    group = wscl_embed.registry.GROUP
    points = [
        EntryPoint("title_length", "third_party_adapters:TitleLength", group),
        EntryPoint("no_adapter", "third_party_adapters:NoAdapter", group),
        EntryPoint("broken", "third_party_adapters_that_are_not_there:X", group),
    ]
    monkeypatch.setattr(wscl_embed.registry, "entry_points", lambda group: points)


def test_ours_come_through_the_entry_points() -> None:
    ours = {"attributes", "captions", "hashtags", "hierarchy", "image_features", "labels", "none"}
    adapters = installed_adapters()
    assert ours <= adapters.keys()
    assert list(adapters) == sorted(adapters)
    assert all(adapters[name].distribution.startswith("wscl-embed ") for name in ours)


@pytest.mark.usefixtures("third_party")
def test_a_third_party_adapter_inherits_clustering_noise_and_options() -> None:
    adapter = make_adapter("title_length:lower=true,n_clusters=2,min_cluster_size=3")
    assert isinstance(adapter, TitleLength)
    assert adapter.options() == {
        "clusterer": "kmeans",
        "n_clusters": 2,
        "min_cluster_size": 3,
        "seed": 0,
        "noise": "instance",
        "strengths": False,
        "column": "title",
        "lower": True,
    }
    titles = ["a", "bb", "", "a very long title"]
    clusters = adapter.assign(datasets.Dataset.from_dict({"id": list("wxyz"), "title": titles}))
    assert clusters.labels[0] == clusters.labels[1] != clusters.labels[3]
    assert clusters.labels[2] == -1  # a row of zeros
    assert clusters.table["source"].tolist() == ["title_length"] * 2


@pytest.mark.usefixtures("third_party")
def test_entry_points_that_cannot_be_used_are_named_when_asked_for() -> None:
    assert list(installed_adapters()) == ["broken", "no_adapter", "title_length"]
    with pytest.raises(InputError, match=r"adapter broken of unknown cannot be imported \(ModuleNotFoundError"):
        make_adapter("broken")
    with pytest.raises(InputError, match="no subclass of Adapter"):
        make_adapter("no_adapter")


def test_features_of_another_length_are_refused() -> None:
    class Short(TitleLength):
        def features(self, dataset: datasets.Dataset) -> Any:
            return np.ones((1, 2))

    with pytest.raises(InputError, match=r"features of shape \(1, 2\) for 2 records"):
        Short().assign(datasets.Dataset.from_dict({"id": ["a", "b"], "title": ["x", "y"]}))


def test_an_adapter_must_implement_something() -> None:
    class Nothing(Adapter):
        name = "nothing"

    with pytest.raises(NotImplementedError, match=r"Nothing must implement features\(\) or override assign"):
        Nothing().assign(datasets.Dataset.from_dict({"id": ["a"]}))


def test_values_are_converted_to_the_types_of_the_options() -> None:
    adapter: Any = make_adapter("hashtags:n_clusters=50,min_informativeness=0.25,column=my=tags")
    assert (adapter.n_clusters, adapter.min_informativeness, adapter.column) == (50, 0.25, "my=tags")
    assert make_adapter("hashtags:n_clusters=None").n_clusters is None
    listed: Any = make_adapter("attributes:columns=colour+size")
    assert listed.columns == ["colour", "size"]
    assert make_adapter("none:").options() == {}


def test_an_adapter_object_is_returned_as_it_is() -> None:
    adapter = TitleLength(clusterer=KMeans(2))
    assert make_adapter(adapter) is adapter


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("hashtag", "unknown adapter 'hashtag'. Did you mean hashtags"),
        ("hashtags:min_tf=2", "no option 'min_tf'. Did you mean min_df"),
        ("hashtags:min_df", "'min_df' is not of the form option=value"),
        ("hashtags:min_df=2,min_df=3", "'min_df' is given twice"),
        ("hashtags:min_df=two", "min_df='two': Input should be a valid integer"),
        ("hashtags:min_df=0", "min_df must be at least 1; got 0"),
        ("hashtags:min_informativeness=5", "min_informativeness must be at least 0 and at most 1; got 5"),
        ("hashtags:n_clusters=0", "n_clusters must be at least 1; got 0"),
        ("hashtags:min_cluster_size=1", "min_cluster_size must be at least 2"),
        ("captions:clusterer=hdbscn", "unknown clusterer 'hdbscn'. Did you mean hdbscan"),
        ("attributes:method=excat", "method='excat': Input should be 'exact' or 'cluster'"),
        ("labels:n_clusters=3", "adapter labels has no option 'n_clusters'"),
        ("none:seed=3", "adapter none has no option 'seed'"),
    ],
)
def test_what_does_not_fit_is_explained(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_adapter(spec)


def test_options_of_the_clusterer_are_refused_where_none_is_used() -> None:
    labels = installed_adapters()["labels"].load()
    with pytest.raises(InputError, match="adapter labels clusters no features, so it has no option 'n_clusters'"):
        labels(n_clusters=3)


def test_an_option_declared_anew_is_the_adapters_own() -> None:
    @dataclass(kw_only=True)
    class Drawn(Adapter):
        """Overrides assign, and has a seed of its own."""

        name = "drawn"
        seed: int = option(3, "seed of the draw", at_least=0)

        def assign(self, dataset: datasets.Dataset) -> Clusters:
            labels = np.random.default_rng(self.seed).integers(0, 2, len(dataset))
            return Clusters.from_labels(list(dataset["id"]), labels, name=self.name)

    assert Drawn(seed=5).options() == {"seed": 5}
    assert len(Drawn().assign(datasets.Dataset.from_dict({"id": ["a", "b"]}))) == 2
