"""Adapters to one `Clusters`, and what is said of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig
from wscl_embed.errors import InputError
from wscl_embed.progress import say

if TYPE_CHECKING:
    import datasets

    from wscl_embed.diagnostics import Stability


def assign_signals(adapters: Mapping[str, Adapter], dataset: datasets.Dataset, batch_size: int) -> dict[str, Clusters]:
    """The clusters of the adapters that look at no image, by name: a wrong column is said before images are encoded."""
    return {
        name: _assign(name, adapter, dataset, batch_size)
        for name, adapter in adapters.items()
        if not adapter.needs_image_features
    }


def assign_others(
    adapters: Mapping[str, Adapter], done: Mapping[str, Clusters], dataset: datasets.Dataset, batch_size: int
) -> dict[str, Clusters]:
    """The clusters of every adapter by name, over the rows of ``dataset``: those ``done``, and now the others."""
    ids = dataset["id"][:]
    return {
        name: done[name].select(ids) if name in done else _assign(name, adapter, dataset, batch_size)
        for name, adapter in adapters.items()
    }


def _assign(name: str, adapter: Adapter, dataset: datasets.Dataset, batch_size: int) -> Clusters:
    """The clusters of one adapter; says what they are, and refuses what cannot be trained on."""
    from wscl_embed.diagnostics.summary import check_clusters, summary_lines

    clusters = adapter.assign(dataset)
    check_clusters(clusters, adapter)
    say(f"adapter {name}", "bold")
    for line in summary_lines(clusters, batch_size):
        say(f"  {line}")
    return clusters


def combine(parts: Mapping[str, Clusters], weights: Sequence[float]) -> Clusters:
    """The clusters of all adapters side by side."""
    return Clusters.combine(list(parts.values()), list(weights) or None)


def check_weights(adapters: Sequence[Adapter], weights: Sequence[float]) -> None:
    """One weight an adapter, or none at all."""
    if weights and len(weights) != len(adapters):
        raise InputError(f"{len(adapters)} --adapter, but {len(weights)} --adapter-weight; give one each, or none.")


def named(adapters: Sequence[Adapter]) -> dict[str, Adapter]:
    """The adapters by name; several of one name are numbered, as `Clusters.combine` does."""
    often = Counter(adapter.name for adapter in adapters)
    seen: Counter[str] = Counter()
    found = {}
    for adapter in adapters:
        seen[adapter.name] += 1
        found[adapter.name if often[adapter.name] == 1 else f"{adapter.name}.{seen[adapter.name]}"] = adapter
    return found


def measure_parts(adapters: Mapping[str, Adapter], dataset: datasets.Dataset, repeats: int) -> dict[str, Stability]:
    """The stability of each adapter that makes clusters; where it cannot be measured, why."""
    from wscl_embed.diagnostics import measure_stability

    found = {}
    for name, adapter in adapters.items():
        if not adapter.expects_clusters:
            continue
        try:
            found[name] = measure_stability(adapter, dataset, repeats=repeats)
        except InputError as error:
            say(f"stability of {name} not measured: {error}")
    return found


def describe(clusters: Clusters, batch_size: int, labels: Sequence[object] | None = None) -> dict[str, Any]:
    """What ``metrics.json`` says of the clusters: of all, and of each source and level where there are several.

    The labels place them on the information plane, and go nowhere else.
    """
    from wscl_embed.diagnostics.summary import summarise

    described = summarise(clusters, batch_size).to_dict()
    blocks = clusters.blocks()
    planes = _planes(clusters, labels)
    if len(blocks) < 2:
        return {**described, **planes[0]}
    # Between blocks no membership is the strongest: the plane is that of each by itself.
    described["blocks"] = [
        {"source": source, "level": level, **summarise(block, batch_size).to_dict(), **plane}
        for ((source, level), block), plane in zip(blocks.items(), planes, strict=True)
    ]
    return described


def _planes(clusters: Clusters, labels: Sequence[object] | None) -> list[dict[str, Any]]:
    """``information`` of each block, over the images to train on; nothing where none of them has a label."""
    from wscl_embed.diagnostics import information_plane

    kept = np.flatnonzero(~clusters.dropped).tolist()
    trained = clusters.select([clusters.ids[row] for row in kept])
    blocks = list(trained.blocks().values()) or [trained]
    known = [] if labels is None else [labels[row] for row in kept]
    if all(label is None for label in known):
        return [{} for _ in blocks]
    return [{"information": information_plane(block, known).to_dict()} for block in blocks]


def batch_size_of(config: FitConfig) -> int:
    """Images a batch, given or by default."""
    return config.resolved().batch_size or 1
