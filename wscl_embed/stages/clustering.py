"""Adapters to one `Clusters`, and what is said of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig
from wscl_embed.errors import InputError
from wscl_embed.noise_summary import summarise_noise
from wscl_embed.progress import console
from wscl_embed.summary import check_clusters, summarise, summary_lines

if TYPE_CHECKING:
    import datasets


def assign(
    adapters: Sequence[Adapter], dataset: datasets.Dataset, weights: Sequence[float], batch_size: int
) -> Clusters:
    """The clusters of all adapters side by side; says what each made, and refuses what cannot be trained on."""
    if weights and len(weights) != len(adapters):
        raise InputError(f"{len(adapters)} --adapter, but {len(weights)} --adapter-weight; give one each, or none.")
    parts = []
    for adapter in adapters:
        clusters = adapter.assign(dataset)
        check_clusters(clusters, adapter)
        console().print(f"[bold]adapter {adapter.name}[/bold]")
        for line in summary_lines(clusters, batch_size):
            console().print(f"  {line}", markup=False, soft_wrap=True)
        parts.append(clusters)
    return Clusters.combine(parts, weights or None)


def describe(clusters: Clusters, batch_size: int) -> dict[str, Any]:
    """What ``metrics.json`` says of the clusters: of all, of the noise of each clusterer, and of each source and level
    where there are several."""
    blocks = clusters.blocks()
    described = _figures(clusters, batch_size)
    described["noise"] = [noise.as_dict() for noise in summarise_noise(clusters)]
    if len(blocks) > 1:
        described["blocks"] = [
            {"source": source, "level": level, **_figures(block, batch_size)}
            for (source, level), block in blocks.items()
        ]
    return described


def _figures(clusters: Clusters, batch_size: int) -> dict[str, Any]:
    summary = summarise(clusters, batch_size)
    return {
        "n_clusters": summary.n_clusters,
        "noise_share": summary.noise_share,
        "singletons": summary.singletons,
        "sizes": summary.size_quantiles,
        "expected_positives": summary.expected_positives,
    }


def batch_size_of(config: FitConfig) -> int:
    return config.resolved().batch_size or 1
