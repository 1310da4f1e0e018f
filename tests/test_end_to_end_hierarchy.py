"""Several levels and several adapters of one kind through a whole run: real emoji, real weights, head mode."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.conftest import IMAGE_SIZE
from wscl_embed import fit
from wscl_embed.clusters import Clusters
from wscl_embed.pipeline import FitResult
from wscl_embed.sampling import ClusterBatchSampler

if TYPE_CHECKING:
    import datasets

QUICK: dict[str, Any] = {
    "image_size": IMAGE_SIZE,
    "epochs": 6,
    "cached_views": 1,
    "batch_size": 64,
    "workers": 0,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def result(emoji: datasets.Dataset, tmp_path_factory: pytest.TempPathFactory) -> FitResult:
    """A path of group and subgroup, two clusterings of the images as PCL has them, and their weights."""
    paths = [f"{group}/{subgroup}" for group, subgroup in zip(emoji["label"], emoji["label_fine"], strict=True)]
    adapters = ["hierarchy:level_weights=1+3", "image_features:n_clusters=4", "image_features:n_clusters=16"]
    folder = tmp_path_factory.mktemp("runs") / "levels"
    return fit(emoji.add_column("path", paths), adapters, folder, adapter_weight=[1, 0.25, 0.25], **QUICK)


def test_every_level_and_adapter_is_in_the_run(result: FitResult) -> None:
    clusters = Clusters.load(result.run.clusters)
    assert clusters.table["name"].is_unique
    blocks = clusters.blocks()
    assert list(blocks) == [("hierarchy", 0), ("hierarchy", 1), ("image_features.1", 0), ("image_features.2", 0)]
    assert blocks["image_features.1", 0].n_clusters == 4
    assert blocks["image_features.2", 0].n_clusters == 16
    squares = [np.unique(np.round(block.membership.data**2, 5)).tolist() for block in blocks.values()]
    assert squares == [[0.25], [0.75], [0.25], [0.25]]
    described = json.loads((result.run.folder / "metrics.json").read_text())["clusters"]["blocks"]
    assert [(one["source"], one["level"], one["n_clusters"]) for one in described] == [
        (source, level, block.n_clusters) for (source, level), block in blocks.items()
    ]


def test_training_draws_each_level_nearer(result: FitResult) -> None:
    """The gap between pairs that share a level and pairs that share none, in cosine, before and after."""
    train = [row for row, split in enumerate(result.dataset["split"]) if split == "train"]
    group = np.array(result.dataset["label"])[train]
    subgroup = np.array(result.dataset["label_fine"])[train]
    same_group = (group[:, None] == group) & ~np.eye(len(train), dtype=bool)
    same_subgroup = same_group & (subgroup[:, None] == subgroup)

    def gaps(embeddings: np.ndarray) -> tuple[float, float]:
        unit = embeddings[train] / np.linalg.norm(embeddings[train], axis=1, keepdims=True)
        cosine = unit @ unit.T
        apart = cosine[group[:, None] != group].mean()
        return cosine[same_group & ~same_subgroup].mean() - apart, cosine[same_subgroup].mean() - apart

    before, after = gaps(result.before), gaps(result.after)
    assert after[0] > 1.2 * before[0]
    assert after[1] > 1.2 * before[1]
    assert after[1] > after[0]


def test_batches_have_partners_at_the_finest_level(result: FitResult) -> None:
    membership = result.clusters.membership
    fine = result.clusters.blocks()["hierarchy", 1].labels
    size = np.bincount(fine)[fine]
    drawn = with_partner = 0
    for batch in ClusterBatchSampler(membership, batch_size=48):
        assert len(set(batch)) == len(batch) == 48
        labels = fine[batch]
        can = size[batch] > 1
        drawn += can.sum()
        with_partner += ((labels[:, None] == labels).sum(axis=1) > 1)[can].sum()
    assert with_partner / drawn > 0.6
