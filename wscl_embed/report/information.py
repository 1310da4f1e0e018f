"""The information plane of a run's clusters, with the two corners every clustering lies between."""

from __future__ import annotations

import math
from dataclasses import dataclass

from wscl_embed.diagnostics import information_plane
from wscl_embed.report.contents import ReportInput


@dataclass(frozen=True)
class PlanePoint:
    """One clustering, in bits: ``told`` I(Z;T), ``besides`` H(Z|T), of ``all`` H(T); ``reference`` for the corners."""

    name: str
    told: float
    besides: float
    all: float
    reference: bool = False
    estimate: bool = False


def information_points(given: ReportInput) -> list[PlanePoint]:
    """A point for the clusters of each adapter, over the images trained on, then the corners: no clusters at all
    (SimCLR), and the labels themselves (SupCon). None where no image trained on has a label."""
    labels = [given.label_names[code] if code >= 0 else None for code in given.label_codes[given.trained_rows]]
    if not any(label is not None for label in labels):
        return []
    planes = {name: information_plane(block, labels) for name, block in given.blocks.items()}
    found = [
        PlanePoint(
            name, plane.mutual_information, plane.conditional_entropy, plane.label_entropy, False, plane.is_estimate
        )
        for name, plane in planes.items()
    ]
    if not found:
        return []
    label_entropy = found[0].all
    alone = math.log2(len(labels)) - label_entropy  # each image a cluster of its own
    return [
        *found,
        PlanePoint("SimCLR", label_entropy, alone, label_entropy, reference=True),
        PlanePoint("SupCon", label_entropy, 0.0, label_entropy, reference=True),
    ]
