"""What a report is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.clusters import Clusters
from wscl_embed.diagnostics.information import blocks
from wscl_embed.label_codes import label_codes
from wscl_embed.quarantine import Quarantine

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class ReportInput:
    """A finished run.

    ================ ===========================================================================
    ``name``         what to call it
    ``config``       the options it ran with
    ``metrics``      what ``metrics.json`` holds
    ``dataset``      n images with ``id`` and undecoded ``image``
    ``embeddings``   (n, D) of the tuned encoder; compared by cosine
    ``clusters``     of the images trained on, named by their ids, which are among the n
    ``quarantine``   the images that were left out
    ``label_column`` the column of labels, if there is one
    ================ ===========================================================================
    """

    name: str
    config: Mapping[str, Any]
    metrics: Mapping[str, Any]
    dataset: datasets.Dataset
    embeddings: NDArray[np.floating]
    clusters: Clusters
    quarantine: Quarantine
    label_column: str | None = None

    @cached_property
    def ids(self) -> list[str]:
        """Of the n images."""
        return list(self.dataset["id"][:])

    @cached_property
    def trained_rows(self) -> NDArray[np.int64]:
        """(t,) the row of ``dataset`` of each image of ``clusters``."""
        position = {image_id: row for row, image_id in enumerate(self.ids)}
        return np.array([position[image_id] for image_id in self.clusters.ids], dtype=np.int64)

    @cached_property
    def blocks(self) -> dict[str, Clusters]:
        """The clusters of each adapter, or of each of its levels, by name; those without a cluster are left out."""
        return {name: block for name, block in blocks(self.clusters).items() if block.n_clusters}

    @cached_property
    def label_names(self) -> list[str]:
        """The labels that occur, in alphabetical order; none without a label column."""
        return self._labels[0]

    @cached_property
    def label_codes(self) -> NDArray[np.int64]:
        """(n,) positions in `label_names`; -1 where an image has no label: None, NaN or a blank string."""
        return self._labels[1]

    @cached_property
    def _labels(self) -> tuple[list[str], NDArray[np.int64]]:
        if self.label_column is None:
            return [], np.full(len(self.ids), -1)
        values = self.dataset[self.label_column][:]
        codes = label_codes(values)
        named = {int(code): str(value).strip() for code, value in zip(codes, values, strict=True) if code >= 0}
        return [named[code] for code in sorted(named)], codes
