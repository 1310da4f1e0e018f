"""By what the map may be coloured: each adapter's clusters, and the labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wscl_embed.report.contents import ReportInput

N_COLOURS = 8  # in the page's palette, which eyes that see fewer colours can tell apart
UNTRAINED, NONE = -2, -1


@dataclass(frozen=True)
class Colouring:
    """One way to colour n images.

    =========== ======================================================================================
    ``title``   what the categories are
    ``block``   whose clusters they are, of `ReportInput.blocks`; None for labels
    ``codes``   (n,) the category of each image; -1: in none; -2: not trained on, so that clusters know nothing of it
    ``names``   of the categories
    ``hues``    (categories,) numbers of colours, 0 to 7
    =========== ======================================================================================
    """

    title: str
    block: str | None
    codes: NDArray[np.int64]
    names: list[str]
    hues: NDArray[np.int64]


def make_colourings(given: ReportInput, plane: NDArray[np.uint16]) -> list[Colouring]:
    """The clusters of each adapter, or each level, then the labels."""
    found = []
    for title, block in given.blocks.items():
        codes = np.full(len(given.ids), UNTRAINED, dtype=np.int64)
        codes[given.trained_rows] = block.labels
        names = [str(name) for name in block.table["name"]]
        found.append(Colouring(f"{title} clusters", title, codes, names, spread_hues(codes, plane, len(names))))
    if given.label_names:
        codes, names = given.label_codes, given.label_names
        title = f"label ({given.label_column})"
        found.append(Colouring(title, None, codes, names, spread_hues(codes, plane, len(names))))
    return found


def spread_hues(codes: NDArray[np.int64], plane: NDArray[np.uint16], k: int) -> NDArray[np.int64]:
    """(k,) a colour for each category, 0 to 7, so that those of one colour lie far apart on the map.

    The largest categories choose first, and each takes the colour whose nearest bearer is the furthest away.
    """
    inside = codes >= 0
    counts = np.bincount(codes[inside], minlength=k)
    sums = [np.bincount(codes[inside], plane[inside, axis].astype(np.float64), minlength=k) for axis in (0, 1)]
    centres = np.stack(sums, axis=1) / np.maximum(counts, 1)[:, None]
    hues = np.full(k, -1, dtype=np.int64)
    for category in np.argsort(-counts, kind="stable"):
        distances = np.linalg.norm(centres - centres[category], axis=1)
        room = [distances[hues == hue].min(initial=np.inf) for hue in range(N_COLOURS)]
        hues[category] = int(np.argmax(room))
    return hues
