"""Clusters made anew while the encoder is tuned: whether that can be, and by what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig
from wscl_embed.diagnostics.summary import check_clusters
from wscl_embed.errors import InputError
from wscl_embed.stages.clustering import named
from wscl_embed.stages.material import Material, with_features

if TYPE_CHECKING:
    from wscl_embed.reclustering import Reclustering


def check_reclustering(adapters: Sequence[Adapter], config: FitConfig) -> None:
    """Whether there is something to make anew, and a time for it.

    Raises:
        InputError: no adapter reads image features, or training ends before the first round.
    """
    every, warmup, epochs = config.recluster_every, config.recluster_warmup, config.resolved().epochs or 1
    if every is None:
        return
    if not any(adapter.needs_image_features for adapter in adapters):
        names = ", ".join(adapter.name for adapter in adapters)
        raise InputError(
            f"--recluster-every {every}: {names} reads no image features, so its clusters do not change with the "
            "encoder. Add --adapter image_features, or leave --recluster-every out."
        )
    if (warmup or every) >= epochs:
        option = f"--recluster-warmup {warmup}" if warmup else f"--recluster-every {every}"
        raise InputError(f"{option}: training ends after {epochs} epochs, before the first round. Lower it.")


def make_reclustering(material: Material, adapters: Sequence[Adapter], config: FitConfig) -> Reclustering | None:
    """What makes the clusters of the adapters that read images anew; None where it is not asked for.

    Args:
        material: `Material.with_dropped`: each round decides anew whom ``noise=drop`` leaves out.
    """
    from wscl_embed.reclustering import Reclustering

    if config.recluster_every is None:
        return None
    weights = config.adapter_weight or [1.0] * len(adapters)
    all_of_them = zip(named(adapters).items(), weights, strict=True)
    reading = [(adapter, source, weight) for (source, adapter), weight in all_of_them if adapter.needs_image_features]
    train = material.dataset.select(material.train)

    def assign(features: NDArray[np.floating], number: int) -> Clusters:
        seen = with_features(train, features)
        parts = []
        for adapter, source, _ in reading:
            clusters = seeded(adapter, config.seed, number).assign(seen)
            check_clusters(clusters, adapter)
            parts.append(called(clusters, source))
        return Clusters.combine(parts, [weight for *_, weight in reading])

    sources = [source for _, source, _ in reading]
    every, warmup = config.recluster_every, config.recluster_warmup
    return Reclustering(material.clusters, sources, assign, every=every, warmup=warmup)


def called(clusters: Clusters, source: str) -> Clusters:
    """The same clusters with another source, also in the names that begin with the old one."""
    names = [
        source + name.removeprefix(old) if name.startswith(f"{old}-") else name
        for name, old in zip(clusters.table["name"], clusters.table["source"], strict=True)
    ]
    return replace(clusters, table=clusters.table.assign(name=names, source=source))


def seeded(adapter: Adapter, seed: int, number: int) -> Adapter:
    """The same adapter with a seed of the round's own, where it has one."""
    options = adapter.options()
    if "seed" not in options:
        return adapter
    drawn = np.random.SeedSequence([seed, options["seed"], number]).generate_state(1)[0]
    return type(adapter)(**{**options, "seed": int(drawn)})
