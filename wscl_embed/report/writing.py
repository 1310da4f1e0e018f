"""From `ReportInput` to the file."""

from __future__ import annotations

import re
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.adapter import Adapter
from wscl_embed.errors import InputError
from wscl_embed.files import write_text
from wscl_embed.registry import make_adapter
from wscl_embed.report import charts
from wscl_embed.report.cards import Card, draw_pictures, highlights, make_cards
from wscl_embed.report.colouring import Colouring, make_colourings
from wscl_embed.report.contents import ReportInput
from wscl_embed.report.information import information_points
from wscl_embed.report.layout import map_coordinates
from wscl_embed.report.packing import pack, pack_texts, shorten
from wscl_embed.report.page import render
from wscl_embed.report.thumbnails import thumbnails

QUARANTINE_ROWS = 200
VERSIONS = ("wscl-embed", "torch", "open_clip_torch", "timm", "numpy", "scikit-learn", "pillow", "datasets")


def write_report(path: str | Path, given: ReportInput, *, seed: int = 0) -> None:
    """Write a run as one HTML page that needs nothing else: no network, no server, no files beside it.

    Time is spent on at most 1,200 thumbnails, and on arranging at most 5,000 images on the map and placing the others
    among them; the file grows with the number of images by some tens of bytes each.

    Args:
        path: the HTML file; it appears only when it is whole.
        given: the run.
        seed: of the map and of the draw of thumbnails.

    Raises:
        MissingExtraError: the extra ``report`` is not installed.
    """
    script = charts.bokeh_script()
    plane = map_coordinates(given.embeddings, seed=seed)
    cards = make_cards(given)
    rows_of = highlights(cards)
    first = [place for places in rows_of.values() for place in places]
    on_card, shown = draw_pictures(cards, first, len(given.ids), seed)
    colourings = make_colourings(given, plane)
    data = {
        "points": _points(given, plane),
        "colourings": [_colouring(one, cards) for one in colourings],
        "cards": [_card(card, rows) for card, rows in zip(cards, on_card, strict=True)],
        "highlights": rows_of,
        "pictures": thumbnails(given.dataset, shown),
        "map": charts.map_chart(len(given.ids)),
        "labelled": bool(given.label_names),
    }
    training = charts.training_charts(given.metrics.get("training", []))
    plane_points = information_points(given)
    if plane_points:
        data["information"] = charts.information_chart(plane_points)
    facts = _facts(given) | {"n_clusters": len(cards), "training": training, "information": plane_points}
    write_text(Path(path), render(script=script, data=data, **facts))


def _points(given: ReportInput, plane: NDArray[np.uint16]) -> dict[str, Any]:
    return {"x": pack(plane[:, 0]), "y": pack(plane[:, 1]), "ids": pack_texts([shorten(one) for one in given.ids])}


def _colouring(one: Colouring, cards: list[Card]) -> dict[str, Any]:
    card_of = {card.column: place for place, card in enumerate(cards) if card.block == one.block}
    return {
        "title": one.title,
        "kind": "labels" if one.block is None else "clusters",
        "codes": pack(one.codes.astype(np.int32)),
        "names": one.names,
        "cards": [] if one.block is None else [card_of.get(column, -1) for column in range(len(one.names))],
        "hues": one.hues.tolist(),
    }


def _card(card: Card, rows: list[int]) -> dict[str, Any]:
    return {
        "name": card.name,
        "size": card.size,
        "terms": card.terms,
        "purity": card.purity,
        "entropy": card.entropy,
        "labels": card.labels,
        "rows": rows,
    }


def _facts(given: ReportInput) -> dict[str, Any]:
    """What the page says in words."""
    reasons = Counter(row.reason.split(" (")[0] for row in given.quarantine)
    return {
        "name": given.name,
        "metrics": given.metrics,
        "config": {key: value for key, value in given.config.items() if value not in (None, [])},
        "versions": {package: _version(package) for package in VERSIONS},
        "n_images": len(given.ids),
        "n_trained": len(given.clusters),
        "n_noise": int((np.diff(given.clusters.membership.indptr) == 0).sum()),
        "n_quarantined": len(given.quarantine),
        "quarantine": list(given.quarantine)[:QUARANTINE_ROWS],
        "reasons": reasons.most_common(),
        "label_column": given.label_column,
        "images_unseen": "train" not in str(given.metrics.get("split")).split("+"),
        "labels_unseen": not any(_reads_labels(spec, given.label_column) for spec in given.config.get("adapter", [])),
    }


def _reads_labels(adapter: str, label_column: str | None) -> bool:
    """Whether an adapter's specification, or one of its defaults, names the labels.

    >>> _reads_labels("hashtags", "label"), _reads_labels("hashtags", "tags")
    (False, True)
    >>> _reads_labels("attributes:columns=colour+label", "label")
    True
    """
    try:
        made = make_adapter(adapter)
    except InputError:  # an option that only Python can give
        return label_column in re.split("[:,=+]", adapter)
    return _names(made, label_column)


def _names(adapter: Adapter, column: str | None) -> bool:
    """Whether an option of an adapter, or of an adapter within it, is the column."""
    values = adapter.options().values()
    inner = [value for value in values if isinstance(value, Adapter)]
    listed = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return (
        adapter.name == "labels"
        or (column is not None and column in listed)
        or any(_names(one, column) for one in inner)
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
