"""`ClusterBatchSampler`: what is in a batch, and how often."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from wscl_embed.clusters import Clusters
from wscl_embed.sampling import ClusterBatchSampler


def hard(labels: list[int]) -> sparse.csr_array:
    return Clusters.from_labels([str(i) for i in range(len(labels))], labels, name="t").membership


LABELS = [0] * 60 + [1] * 20 + [2] * 10 + [3] * 5 + [4] + [-1] * 24


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-1, 5), min_size=1, max_size=40),
    batch_size=st.integers(1, 50),
    per_cluster=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_batches_are_full_and_hold_no_image_twice(
    labels: list[int], batch_size: int, per_cluster: int, seed: int
) -> None:
    sampler = ClusterBatchSampler(hard(labels), batch_size, per_cluster, seed=seed)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    n_noise = labels.count(-1)
    for batch in batches:
        assert len(set(batch)) == len(batch)
        assert set(batch) <= set(range(len(labels)))
        # Short of the batch size at most by noise that was not drawn, once every clustered image is in.
        assert min(batch_size, len(labels)) - n_noise <= len(batch) <= batch_size


def test_an_image_meets_its_cluster() -> None:
    sampler = ClusterBatchSampler(hard(LABELS), batch_size=24, images_per_cluster=4)
    for batch in sampler:
        counts = Counter(LABELS[row] for row in batch if LABELS[row] >= 0)
        assert all(
            count >= min(4, LABELS.count(label)) or sum(counts.values()) == 24 for label, count in counts.items()
        )


def test_noise_keeps_its_share() -> None:
    sampler = ClusterBatchSampler(hard(LABELS), batch_size=24)
    drawn = []
    for epoch in range(40):
        sampler.set_epoch(epoch)
        drawn += [LABELS[row] for batch in sampler for row in batch]
    assert drawn.count(-1) / len(drawn) == pytest.approx(24 / 120, abs=0.02)


def test_sizes_are_tempered() -> None:
    """The first cluster of a batch is drawn in proportion to the root of its size."""
    labels = [0] * 160 + [1] * 10
    sampler = ClusterBatchSampler(hard(labels), batch_size=4, images_per_cluster=4)
    first = []
    for epoch in range(30):
        sampler.set_epoch(epoch)
        first += [labels[batch[0]] for batch in sampler]
    assert first.count(0) / first.count(1) == pytest.approx((160 / 10) ** 0.5, rel=0.25)


def test_a_block_that_weighs_little_is_drawn_little() -> None:
    """Two clusterings of one size, whose pairs weigh 1 and 1/9."""
    ids = [str(row) for row in range(160)]
    first = Clusters.from_labels(ids, np.arange(160) % 8, name="a")
    second = Clusters.from_labels(ids, np.arange(160) // 20, name="b")
    sampler = ClusterBatchSampler(Clusters.combine([first, second], [1, 1 / 9]).membership, 4, images_per_cluster=4)
    drawn = Counter[str]()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        for batch in sampler:
            rows = np.array(batch)
            drawn["a"] += len(set(rows % 8)) == 1
            drawn["b"] += len(set(rows // 20)) == 1
    assert drawn["a"] / drawn["b"] == pytest.approx(9, rel=0.3)


def test_without_clusters_an_epoch_is_a_permutation() -> None:
    batches = list(ClusterBatchSampler(sparse.csr_array((100, 0)), batch_size=10))
    assert sorted(row for batch in batches for row in batch) == list(range(100))


def test_an_image_of_several_clusters_is_drawn_once() -> None:
    membership = sparse.csr_array(np.ones((6, 3)))
    for batch in ClusterBatchSampler(membership, batch_size=6, images_per_cluster=4):
        assert sorted(batch) == list(range(6))


def test_seed_and_epoch_alone_decide() -> None:
    def draws(seed: int, epoch: int) -> list[list[int]]:
        sampler = ClusterBatchSampler(hard(LABELS), 16, seed=seed)
        list(sampler)  # what was drawn before must not matter
        sampler.set_epoch(epoch)
        return list(sampler)

    assert draws(1, 3) == draws(1, 3)
    assert draws(1, 3) != draws(1, 4)
    assert draws(1, 3) != draws(2, 3)


@pytest.mark.parametrize("labels", [[0, 0, 0, 1, 1, 1, -1, -1, -1, -1], [-1] * 10], ids=["clusters", "none"])
def test_rows_that_are_left_out_are_in_no_batch(labels: list[int]) -> None:
    left_out = np.array([False] * 6 + [True, False, True, False])
    sampler = ClusterBatchSampler(hard(labels), 4, left_out=left_out)
    assert len(sampler) == 2
    drawn: Counter[int] = Counter()
    for epoch in range(20):
        sampler.set_epoch(epoch)
        for batch in sampler:
            assert len(batch) == 4
            drawn.update(batch)
    assert set(drawn) == set(np.flatnonzero(~left_out))


def test_any_sparse_layout_gives_the_same_batches() -> None:
    membership = hard(LABELS)
    zeros = membership.copy()
    zeros.data[:60] = 0  # stored, but no members
    for one, other in [
        (membership, membership.tocsc()),
        (membership, membership.tocoo()),
        (hard([-1] * 60 + LABELS[60:]), zeros),
    ]:
        assert list(ClusterBatchSampler(one, 16)) == list(ClusterBatchSampler(other, 16))
    assert zeros.nnz == membership.nnz  # the caller's matrix is left alone


@pytest.mark.parametrize(
    ("n", "options", "said"),
    [
        (4, {"batch_size": 0}, "at least 1 image"),
        (4, {"batch_size": 2, "images_per_cluster": 0}, "at least 1 image"),
        (0, {"batch_size": 2}, "nothing to draw from 0"),
        (4, {"batch_size": 2, "left_out": np.ones(4, dtype=bool)}, "nothing to draw"),
        (4, {"batch_size": 2, "left_out": np.zeros(3, dtype=bool)}, "not one an image"),
    ],
)
def test_what_gives_no_batches_is_refused(n: int, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ClusterBatchSampler(hard([0] * n), **options)
