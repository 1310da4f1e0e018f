"""How many records are noise, which policy they fell under, and what became of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from wscl_embed.clusters import Clusters
from wscl_embed.raw_labels import NO_SIGNAL, RawLabels


@dataclass(frozen=True)
class NoiseSummary:
    """Counts over the N images of one adapter with a clusterer."""

    source: str
    policy: str
    n_images: int
    n_noise: int
    """Records the clusterer saw and called noise."""
    n_without_signal: int
    """Records it never saw."""
    n_joined: int
    """Noise records that the policy put into clusters of this adapter."""
    mean_shared: float
    """Clusters of this adapter each of those is in, on average."""
    n_dropped: int
    """Records left out of training, for noise or for want of a signal."""

    @property
    def line(self) -> str:
        """What became of them, for the terminal."""
        if not self.n_noise + self.n_without_signal:
            return f"noise (policy {self.policy}): none, every record is in a cluster"
        counts = f"{self.n_noise} of {self.n_images} records ({self.n_noise / self.n_images:.1%})"
        if self.n_without_signal:
            counts += f" and {self.n_without_signal} without a signal"
        return f"noise (policy {self.policy}): {counts}; {self._fate()}"

    def as_dict(self) -> dict[str, Any]:
        """The counts by name, for ``metrics.json``."""
        return asdict(self)

    def _fate(self) -> str:
        alone = "an image's only positive is its own other view"
        if self.policy == "drop":
            return f"{self.n_dropped} are left out of training"
        if self.policy == "instance":
            return f"in no cluster: {alone}"
        joined = f"{self.n_joined} joined the nearest cluster"
        if self.policy == "soft":
            joined = f"{self.n_joined} share {self.mean_shared:.1f} nearby clusters each"
        left = self.n_noise + self.n_without_signal - self.n_joined
        return joined + (f", {left} in no cluster: {alone}" if left else "")


def summarise_noise(clusters: Clusters) -> list[NoiseSummary]:
    """One `NoiseSummary` for each adapter whose raw labels ``clusters`` (N images) carry."""
    dropped = clusters.dropped
    return [_summarise(clusters, raw, int((dropped & (raw.labels < 0)).sum())) for raw in clusters.raw]


def _summarise(clusters: Clusters, raw: RawLabels, n_dropped: int) -> NoiseSummary:
    noise = (raw.labels < 0) & (raw.labels != NO_SIGNAL)
    columns = np.flatnonzero(clusters.table["source"] == raw.source)
    entries = np.diff(clusters.membership[np.flatnonzero(noise)][:, columns].indptr)
    joined = int((entries > 0).sum())
    return NoiseSummary(
        source=raw.source,
        policy=raw.policy,
        n_images=len(clusters),
        n_noise=int(noise.sum()),
        n_without_signal=int((raw.labels == NO_SIGNAL).sum()),
        n_joined=joined,
        mean_shared=float(entries.sum() / max(1, joined)),
        n_dropped=n_dropped if raw.policy == "drop" else 0,
    )
