"""A picture of a search: the query, and what was found for it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from math import ceil
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

from wscl_embed.contact_sheet import FAINT, GAP, INK, MARGIN, OTHER, font
from wscl_embed.files import atomic_path
from wscl_embed.images import BadImageError, decode_image
from wscl_embed.searching.columns import cell_text
from wscl_embed.searching.searcher import Hit, Searcher

CELL, LINE, PER_ROW = 144, 18, 5
LONGEST = 2_000  # characters that are looked at: no line holds more


def write_search_sheet(
    path: str | Path, searcher: Searcher, query: str, image: Path | None, hits: Sequence[Hit]
) -> None:
    """Write a PNG: the query, and below it the hits in rows of five, with rank, score, id and columns.

    Args:
        path: the PNG.
        searcher: that found the hits; its dataset has their images.
        query: what was looked for, in words.
        image: what was looked for, as an image.
    """
    lines = 2 + max((len(hit.metadata) for hit in hits), default=0)
    step = CELL + lines * LINE + 2 * GAP
    top = MARGIN + (CELL if image is not None else LINE) + 3 * GAP
    rows = -(-len(hits) // PER_ROW)
    width = 2 * MARGIN + PER_ROW * (CELL + 2 * GAP) - 2 * GAP
    sheet = Image.new("RGB", (width, top + max(1, rows) * step + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    left = MARGIN
    if image is not None:
        _paste(sheet, draw, image, left, MARGIN)
        left += CELL + 2 * GAP
    draw.text((left, MARGIN), _fitting(draw, query, width - left - MARGIN, 16), fill=INK, font=font(16))
    for number, hit in enumerate(hits):
        place = (MARGIN + number % PER_ROW * (CELL + 2 * GAP), top + number // PER_ROW * step)
        _draw_hit(sheet, draw, searcher, number + 1, hit, *place)
    if not hits:
        draw.text((MARGIN, top), "Nothing was found.", fill=FAINT, font=font(13))
    with atomic_path(Path(path)) as temporary:
        sheet.save(temporary, format="PNG", optimize=True)


def _draw_hit(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, searcher: Searcher, rank: int, hit: Hit, left: int, top: int
) -> None:
    try:
        _paste(sheet, draw, searcher.columns.image(hit.row), left, top)
    except BadImageError as error:
        draw.rectangle((left - 2, top - 2, left + CELL + 1, top + CELL + 1), outline=OTHER)
        draw.text((left + GAP, top + GAP), _fitting(draw, error.reason, CELL - 2 * GAP, 13), fill=FAINT, font=font(13))
    texts = [f"{rank}.  {hit.score:.3f}", *(cell_text(value) for value in hit.metadata.values()), hit.id]
    for line, text in enumerate(texts):
        where = (left, top + CELL + GAP + line * LINE)
        draw.text(where, _fitting(draw, text, CELL, 13), fill=FAINT if text is texts[-1] else INK, font=font(13))


def _paste(sheet: Image.Image, draw: ImageDraw.ImageDraw, source: bytes | Path, left: int, top: int) -> None:
    image = decode_image(source, draft_size=CELL)
    sheet.paste(ImageOps.pad(image, (CELL, CELL), method=Image.Resampling.LANCZOS, color="white"), (left, top))
    draw.rectangle((left - 2, top - 2, left + CELL + 1, top + CELL + 1), outline=OTHER)


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    """``text`` in one line, cut to ``width`` pixels."""
    line = " ".join(text[:LONGEST].split())
    if len(text) <= LONGEST and draw.textlength(line, font=font(size)) <= width:
        return line

    def pixels(end: int) -> int:
        return ceil(draw.textlength(f"{line[:end]}...", font=font(size)))

    too_long = bisect_right(range(len(line)), width, key=pixels)
    return f"{line[: max(0, too_long - 1)]}..."
