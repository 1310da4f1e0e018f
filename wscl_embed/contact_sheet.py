"""A picture of what changed: queries with their nearest neighbours before and after."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.dataset import image_source
from wscl_embed.evaluation.neighbours import normalise
from wscl_embed.files import atomic_path
from wscl_embed.images import decode_image

if TYPE_CHECKING:
    import datasets
    from PIL import Image, ImageDraw

CELL, GAP, MARGIN, HEADER = 72, 8, 24, 64
SAME, OTHER, INK, FAINT = "#1a7f37", "#d0d7de", "#1f2328", "#59636e"


def write_contact_sheet(
    path: str | Path,
    dataset: datasets.Dataset,
    before: NDArray[np.floating],
    after: NDArray[np.floating],
    labels: Sequence[object],
    *,
    n_queries: int = 10,
    n_neighbours: int = 6,
    seed: int = 0,
) -> None:
    """Write a PNG: a row a query, its nearest neighbours before on the left, after on the right.

    The queries are drawn at random, label after label: they are not chosen for how well they do.
    A green frame marks a neighbour of the query's label.

    Args:
        path: the PNG.
        dataset: the n images to query among, with ``image``.
        before, after: (n, D) embeddings of these images.
        labels: their n labels.
    """
    from PIL import Image, ImageDraw

    queries = _draw_queries(labels, n_queries, seed)
    unit = [normalise(np.asarray(vectors, dtype=np.float32)) for vectors in (before, after)]
    block = n_neighbours * (CELL + GAP)
    width = 2 * MARGIN + CELL + 2 * (block + 3 * GAP)
    height = HEADER + len(queries) * (CELL + 2 * GAP) + MARGIN + 16
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    columns = [MARGIN + CELL + 3 * GAP, MARGIN + CELL + block + 6 * GAP]
    for text, left in zip(
        ("query", "nearest before (frozen)", "nearest after (tuned)"), (MARGIN, *columns), strict=True
    ):
        draw.text((left, HEADER - 28), text, fill=INK, font=font(16))
    for number, query in enumerate(queries):
        top = HEADER + number * (CELL + 2 * GAP)
        sheet.paste(_thumbnail(dataset, query), (MARGIN, top))
        for vectors, left in zip(unit, columns, strict=True):
            for place, row in enumerate(_nearest(vectors, query, n_neighbours)):
                _paste(sheet, draw, dataset, row, left + place * (CELL + GAP), top, labels[row] == labels[query])
    note = "Queries drawn at random, label after label. Green frame: same label as the query."
    draw.text((MARGIN, height - MARGIN - 8), note, fill=FAINT, font=font(13))
    with atomic_path(Path(path)) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _draw_queries(labels: Sequence[object], count: int, seed: int) -> list[int]:
    """Row numbers: round after round one of each label, in the labels' order."""
    rng = np.random.default_rng(seed)
    names = np.asarray([str(label) for label in labels])
    piles = [list(rng.permutation(np.flatnonzero(names == name))) for name in np.unique(names)]
    drawn: list[int] = []
    while len(drawn) < min(count, len(labels)):
        drawn.extend(int(pile.pop()) for pile in piles if pile)
    return drawn[:count]


def _nearest(unit: NDArray[np.float32], query: int, count: int) -> list[int]:
    similarity = unit @ unit[query]
    similarity[query] = -np.inf
    return [int(row) for row in np.argsort(-similarity, kind="stable")[:count]]


def _paste(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, dataset: datasets.Dataset, row: int, left: int, top: int, same: bool
) -> None:
    sheet.paste(_thumbnail(dataset, row), (left, top))
    box = (left - 2, top - 2, left + CELL + 1, top + CELL + 1)
    draw.rectangle(box, outline=SAME if same else OTHER, width=3 if same else 1)


def _thumbnail(dataset: datasets.Dataset, row: int) -> Image.Image:
    from PIL import Image, ImageOps

    image = decode_image(image_source(dataset[row]["image"]), draft_size=CELL)
    return ImageOps.pad(image, (CELL, CELL), method=Image.Resampling.LANCZOS, color="white")


@cache
def font(size: int) -> Any:
    """Pillow's own font, which it makes anew each time it is asked."""
    from PIL import ImageFont

    return ImageFont.load_default(size)
