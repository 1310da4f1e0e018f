"""The information plane: identities, loops over the definition, and whether the intervals hold what they promise."""

from __future__ import annotations

from math import log2

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from wscl_embed.clusters import Clusters, cluster_table
from wscl_embed.diagnostics.few_labels import complete_labels
from wscl_embed.diagnostics.information import (
    blocks,
    entropy,
    information_plane,
    mutual_information,
    partition,
)
from wscl_embed.errors import InputError
from wscl_embed.label_codes import label_codes
from wscl_embed.raw_labels import RawLabels

Codes = np.ndarray

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40)


def made(labels: list[int]) -> Clusters:
    return Clusters.from_labels([str(row) for row in range(len(labels))], labels, name="toy")


def slow_mutual_information(z: list[int], t: list[int]) -> float:
    """Sum over all pairs of values of p(z, t) log p(z, t) / (p(z) p(t)), as the definition has it."""
    n, total = len(z), 0.0
    for a in set(z):
        for b in set(t):
            both = sum(x == a and y == b for x, y in zip(z, t, strict=True)) / n
            if both:
                total += both * log2(both / (z.count(a) / n * (t.count(b) / n)))
    return total


def slow_conditional_entropy(z: list[int], t: list[int]) -> float:
    """H(Z|T): the entropy of the clusters among the images of each label, weighted by how many those are."""
    total = 0.0
    for label in set(t):
        inside = [a for a, b in zip(z, t, strict=True) if b == label]
        for a in set(inside):
            share = inside.count(a) / len(inside)
            total -= len(inside) / len(t) * share * log2(share)
    return total


@given(pairs)
def test_the_plane_is_that_of_the_definition(values: list[tuple[int, int]]) -> None:
    z, t = [a for a, _ in values], [b for _, b in values]
    plane = information_plane(made(z), t)
    assert plane.mutual_information == pytest.approx(slow_mutual_information(z, t), abs=1e-9)
    assert plane.conditional_entropy == pytest.approx(slow_conditional_entropy(z, t), abs=1e-9)
    assert not plane.is_estimate
    assert plane.mutual_information_interval.low == plane.mutual_information_interval.high


@given(pairs)
def test_information_is_at_most_either_entropy_and_the_parts_add_up(values: list[tuple[int, int]]) -> None:
    z, t = [a for a, _ in values], [b for _, b in values]
    plane = information_plane(made(z), t)
    assert 0 <= plane.mutual_information <= min(plane.cluster_entropy, plane.label_entropy) + 1e-9
    assert plane.mutual_information + plane.conditional_entropy == pytest.approx(plane.cluster_entropy)
    assert plane.cluster_entropy <= log2(len(z)) + 1e-9


@given(pairs, st.permutations(range(5)), st.permutations("vwxyz"))
def test_names_do_not_matter(values: list[tuple[int, int]], order: list[int], names: list[str]) -> None:
    z, t = [a for a, _ in values], [b for _, b in values]
    renamed = information_plane(made([order[a] for a in z]), [names[b] for b in t])
    assert renamed.to_dict() == pytest.approx(information_plane(made(z), t).to_dict())


@given(pairs)
def test_merging_clusters_loses_information_and_clutter(values: list[tuple[int, int]]) -> None:
    z, t = [a for a, _ in values], [b for _, b in values]
    fine, coarse = information_plane(made(z), t), information_plane(made([a // 2 for a in z]), t)
    assert coarse.mutual_information <= fine.mutual_information + 1e-9
    assert coarse.conditional_entropy <= fine.conditional_entropy + 1e-9


def test_the_corners_of_the_plane() -> None:
    labels = ["a", "a", "b", "c"]
    none = information_plane(made([-1, -1, -1, -1]), labels)
    assert (none.mutual_information, none.cluster_entropy) == pytest.approx((1.5, 2.0))
    supervised = information_plane(made([0, 0, 1, 2]), labels)
    assert (supervised.mutual_information, supervised.conditional_entropy) == pytest.approx((1.5, 0.0))
    one = information_plane(made([0, 0, 0, 0]), labels)
    assert (one.mutual_information, one.conditional_entropy) == (0.0, 0.0)


def test_each_image_in_no_cluster_is_one_of_its_own() -> None:
    assert partition(made([1, -1, 0, -1])).tolist() == [1, 2, 0, 3]
    plane = information_plane(made([0, 0, -1, -1]), ["a", "b", "a", "b"])
    assert plane.cluster_entropy == pytest.approx(1.5)
    assert plane.mutual_information == pytest.approx(slow_mutual_information([0, 0, 1, 2], [0, 1, 0, 1]))


def test_images_dropped_from_training_do_not_count() -> None:
    clusters = Clusters.from_labels(list("abcd"), [0, 0, 1, -1], name="toy")
    raw = RawLabels("toy", np.array([0, 0, 1, -1]), "drop")
    dropping = Clusters(clusters.ids, clusters.membership, clusters.table, (raw,))
    plane = information_plane(dropping, ["x", "x", "y", "y"])
    assert (plane.n_images, plane.label_entropy) == (3, pytest.approx(entropy(np.array([0, 0, 1]))))
    assert information_plane(clusters, ["x", "x", "y", "y"]).n_images == 4


def test_several_memberships_count_for_the_strongest_within_adapter_and_level() -> None:
    matrix = sparse.csr_array(np.array([[0.2, 0.9, 0], [0.8, 0.1, 0.5]], dtype=np.float32))
    table = cluster_table(matrix, source="tree")
    table["level"] = [0, 0, 1]
    clusters = Clusters(["a", "b"], matrix, table)
    found = blocks(clusters)
    assert list(found) == ["tree level 0", "tree level 1"]
    assert partition(found["tree level 0"]).tolist() == [1, 0]
    assert partition(found["tree level 1"]).tolist() == [1, 0]  # image a is in none
    assert found["tree level 1"].table["name"].tolist() == ["tree-2"]


def test_what_is_no_label() -> None:
    assert label_codes([None, float("nan"), pd.NA, "  ", "b", 1, "1", True]).tolist() == [-1, -1, -1, -1, 2, 0, 0, 1]


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["a"], "1 labels for 2 images"), ([None, None], "none of the 2 images has a label")],
)
def test_labels_that_say_nothing(labels: list[object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        information_plane(made([0, 1]), labels)


def population(seed: int, n: int = 2000, k: int = 100, classes: int = 12) -> tuple[Codes, Codes]:
    """Clusters of uneven sizes; two thirds of them hold mostly one label, the others anything. A tenth is noise."""
    rng = np.random.default_rng(seed)
    overall = rng.dirichlet(np.full(classes, 2.0))
    z = rng.choice(k, n, p=rng.dirichlet(np.full(k, 1.0)))
    inside = np.array([rng.dirichlet(overall * (0.3 if cluster % 3 else 8)) for cluster in range(k)])
    t = (inside[z].cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=classes - 1)
    z[: n // 10] = k + np.arange(n // 10)
    return z, t


def hide(t: Codes, keep: int, seed: int) -> Codes:
    hidden = np.full(len(t), -1)
    rows = np.random.default_rng(seed).choice(len(t), keep, replace=False)
    hidden[rows] = t[rows]
    return hidden


def test_three_hundred_labels_give_an_interval_that_holds_the_truth() -> None:
    """Nominally 11.4 of 12. Fewer than 9 would happen to a 95 % interval once in 400 times."""
    held, errors, counted = 0, [], []
    for seed in range(12):
        z, t = population(seed)
        truth, known = mutual_information(z, t), hide(t, 300, seed)
        draws = complete_labels(z, known, seed=seed)[:, 0]
        low, high = np.quantile(draws, [0.025, 0.975])
        held += int(low <= truth <= high)
        errors.append(draws.mean() - truth)
        labelled = known >= 0
        counted.append(mutual_information(z[labelled], t[labelled]) - truth)
    assert held >= 9
    assert abs(np.mean(errors)) < 0.1
    assert np.mean(counted) > 0.15  # what counting the labelled images alone would say


def test_more_labels_narrow_the_interval_down_to_the_count() -> None:
    z, t = population(0)
    widths = [np.ptp(np.quantile(complete_labels(z, hide(t, keep, 0))[:, 0], [0.025, 0.975])) for keep in (200, 2000)]
    assert widths[1] < widths[0] / 3
    nearly = complete_labels(z, hide(t, len(t) - 1, 0))[:, 0]
    assert nearly.mean() == pytest.approx(mutual_information(z, t), abs=0.002)


@settings(max_examples=6)
@given(pairs, st.data())
def test_estimates_keep_the_bounds(values: list[tuple[int, int]], data: st.DataObject) -> None:
    """However few the images and labels: bounds hold, the parts add up, and one seed gives one answer."""
    z = [a - 1 for a, _ in values]
    labels: list[object] = [b if data.draw(st.booleans()) else None for _, b in values]
    labels[0] = values[0][1]
    plane = information_plane(made(z), labels)
    assert -1e-9 <= plane.mutual_information <= min(plane.cluster_entropy, plane.label_entropy) + 1e-9
    interval = plane.conditional_entropy_interval
    assert interval.low - 1e-9 <= plane.conditional_entropy <= interval.high + 1e-9
    assert plane.to_dict() == information_plane(made(z), labels).to_dict()
    assert plane.is_estimate == ("mutual_information_interval" in plane.to_dict())
