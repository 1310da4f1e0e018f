"""`diagnose`: all that can be said of the clusters of one or several adapters before training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wscl_embed.clusters import Clusters
from wscl_embed.diagnostics.agreement import Agreement, agreement
from wscl_embed.diagnostics.information import InformationPlane, blocks, information_plane
from wscl_embed.diagnostics.stability import Stability
from wscl_embed.diagnostics.summary import ClusterSummary, summarise


@dataclass(frozen=True, eq=False)
class Diagnostics:
    """What `diagnose` found, by the name of the adapter, or of its level where it has several.

    ============== ==================================================================
    ``summaries``  name -> `ClusterSummary`
    ``planes``     name -> `InformationPlane`; empty without labels
    ``stability``  name -> `Stability`, where it was measured; of several levels the first has it
    ``agreement``  `Agreement` between all of them; None for a single one
    ============== ==================================================================
    """

    summaries: dict[str, ClusterSummary]
    planes: dict[str, InformationPlane]
    stability: dict[str, Stability]
    agreement: Agreement | None

    def lines(self) -> list[str]:
        """All of it as text, one fact a line."""
        lines = []
        for name, summary in self.summaries.items():
            lines += [name, *(f"  {line}" for line in summary.lines())]
            if name in self.planes:
                lines += [f"  {line}" for line in self.planes[name].lines()]
            if name in self.stability:
                lines += [f"  {line}" for line in self.stability[name].lines()]
        return lines + (self.agreement.lines() if self.agreement else [])

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "clusters": {
                name: {
                    **summary.to_dict(),
                    **({"information": self.planes[name].to_dict()} if name in self.planes else {}),
                    **({"stability": self.stability[name].to_dict()} if name in self.stability else {}),
                }
                for name, summary in self.summaries.items()
            },
            "agreement": self.agreement.to_dict() if self.agreement else None,
        }


def diagnose(
    parts: Mapping[str, Clusters],
    *,
    labels: Sequence[object] | None = None,
    batch_size: int = 512,
    stability: Mapping[str, Stability] | None = None,
) -> Diagnostics:
    """Count, and compare, the clusterings ``parts`` of the same N images.

    Args:
        parts: name -> `Clusters`, as each adapter made them.
        labels: N labels in the order of the first part's images, to see the clusters on the information plane; None
            where there is none.
        batch_size: for the expected number of positives in a batch.
        stability: what `measure_stability` found, by the names of ``parts``.

    >>> clusters = Clusters.from_labels(list("abcd"), [0, 0, 1, 1], name="toy")
    >>> found = diagnose({"toy": clusters}, labels=["cat", "cat", "dog", "eel"], batch_size=2)
    >>> found.planes["toy"].mutual_information, found.summaries["toy"].entropy
    (1.0, 1.0)
    """
    ids = next(iter(parts.values())).ids
    levels, measured = {}, {}
    for name, part in parts.items():
        found = by_level(name, part.select(ids))
        levels.update(found)
        if stability and name in stability:
            measured[next(iter(found))] = stability[name]
    return Diagnostics(
        summaries={name: summarise(clusters, batch_size) for name, clusters in levels.items()},
        planes={} if labels is None else {name: information_plane(one, labels) for name, one in levels.items()},
        stability=measured,
        agreement=agreement(levels) if len(levels) > 1 else None,
    )


def by_level(name: str, clusters: Clusters) -> dict[str, Clusters]:
    """The clusters called ``name``, each level by itself; where they are of several adapters, these too."""
    found = clusters.blocks()
    if len(found) < 2:
        return {name: clusters}
    if len({source for source, _ in found}) == 1:
        return {f"{name} level {level}": block for (_, level), block in found.items()}
    return {f"{name}: {block}": one for block, one in blocks(clusters).items()}
