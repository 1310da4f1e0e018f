"""The information plane as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from wscl_embed.diagnostics.information import InformationPlane
from wscl_embed.errors import import_extra
from wscl_embed.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

INK, FAINT, POINT = "#1f2328", "#59636e", "#0969da"


def load_matplotlib() -> ModuleType:
    """matplotlib's figures, drawn without a window.

    Raises:
        MissingExtraError: it is not installed.
    """
    return import_extra("matplotlib.figure", package="matplotlib", extra="plots", needed_for="A plot")


def plot_information_plane(planes: Mapping[str, InformationPlane], path: str | Path) -> None:
    """Write a PNG: I(Z;T) to the right, H(Z|T) upwards, a point each of ``planes``, over the same images.

    Two points are there to compare with: SimCLR, for which every image is a cluster, and SupCon, whose clusters are the
    labels. To the right and down is better. An estimate has its interval, on a slope because I(Z;T) + H(Z|T) = H(Z) is
    known.

    Args:
        planes: name -> `InformationPlane`, at least one.
        path: the PNG.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure = load_matplotlib().Figure(figsize=(7, 5), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    first = next(iter(planes.values()))
    top = float(np.log2(first.n_images)) - first.label_entropy
    named = [(plane.mutual_information, plane.conditional_entropy, name) for name, plane in planes.items()]
    for plane in planes.values():
        _draw_interval(axes, plane)
    axes.plot([x for x, _, _ in named], [y for _, y, _ in named], "o", color=POINT, markersize=7, zorder=3)
    references = [(first.label_entropy, top, "SimCLR"), (first.label_entropy, 0.0, "SupCon")]
    axes.plot([first.label_entropy] * 2, [top, 0], "D", color="white", markeredgecolor=FAINT, markersize=6, zorder=2)
    axes.axvline(first.label_entropy, color=FAINT, linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
    _label_axes(axes, first, max([top, *(y for _, y, _ in named)]))
    figure.draw_without_rendering()  # the layout is settled before the names find their places
    points = [(*point, INK) for point in named] + [(*point, FAINT) for point in references]
    bands = [box for plane in planes.values() for box in _along_interval(axes, plane)]
    _place_names(axes, points, [*bands, _whole_height(axes, first.label_entropy)])
    with atomic_path(Path(path)) as temporary:
        figure.savefig(temporary, format="png")


def _draw_interval(axes: Axes, plane: InformationPlane) -> None:
    x, y = plane.mutual_information_interval, plane.conditional_entropy_interval
    axes.plot([x.low, x.high], [y.high, y.low], color=POINT, linewidth=5, alpha=0.25, solid_capstyle="butt", zorder=1)


def _label_axes(axes: Axes, plane: InformationPlane, highest: float) -> None:
    highest = max(highest, 0.1)
    axes.set_xlim(0, max(plane.label_entropy, 0.1) * 1.18)
    axes.set_ylim(-0.04 * highest, highest * 1.1)
    axes.set_xlabel("I(Z;T) in bits: what the clusters tell of the labels")
    axes.set_ylabel("H(Z|T) in bits: what they tell besides")
    axes.spines[["top", "right"]].set_visible(False)
    of = f"{plane.n_images:,} images"
    note = f"{of}, {plane.n_labelled:,} of them labelled; bands: 95 % intervals" if plane.is_estimate else of
    axes.set_title(f"Information plane, {note}\nto the right and down is better", fontsize=10, color=FAINT, loc="left")
    axes.annotate(
        f"H(T) = {plane.label_entropy:.2f}",
        (plane.label_entropy, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=8,
        color=FAINT,
    )


def _place_names(axes: Axes, points: list[tuple[float, float, str, str]], taken: list[Bbox]) -> None:
    """Write each point's name at the first place around it where it covers no point, no name, and nothing ``taken``."""
    markers = [_around(axes, x, y, 9) for x, y, _, _ in points]
    for number, (x, y, name, colour) in enumerate(points):
        others = [*markers[:number], *markers[number + 1 :], *taken]
        style: Any = {"fontsize": 9, "color": colour, "va": "center", "zorder": 4}
        text = axes.annotate(name, (x, y), xytext=(0, 0), textcoords="offset points", **style)
        for distance in (9, 16, 24, 34, 46):
            if any(_fits(axes, text, distance, angle, others) for angle in (0, 180, 45, -45, 135, -135, 90, -90)):
                break
        taken.append(text.get_window_extent())


def _fits(axes: Axes, text: Any, distance: float, angle: float, others: list[Bbox]) -> bool:
    """Move the text there; True when it is inside the axes and free."""
    x, y = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    text.set_position((distance * x, distance * y))
    text.set_horizontalalignment("left" if x > 0.1 else "right" if x < -0.1 else "center")
    box = text.get_window_extent()
    inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1 and axes.bbox.y0 <= box.y0 and box.y1 <= axes.bbox.y1
    return inside and not any(box.overlaps(other) for other in others)


def _along_interval(axes: Axes, plane: InformationPlane) -> list[Bbox]:
    """The pixels of an interval, none where it has no width."""
    x, y = plane.mutual_information_interval, plane.conditional_entropy_interval
    places: list[float] = np.linspace(0, 1, 20).tolist() if x.high > x.low else []
    return [_around(axes, x.low + at * (x.high - x.low), y.high - at * (y.high - y.low), 5) for at in places]


def _whole_height(axes: Axes, x: float) -> Bbox:
    """The pixels of a vertical line."""
    from matplotlib.transforms import Bbox

    column, _ = axes.transData.transform((x, 0))
    return Bbox.from_extents(column - 3, axes.bbox.y0, column + 3, axes.bbox.y1)


def _around(axes: Axes, x: float, y: float, radius: float) -> Bbox:
    """The pixels around a point."""
    from matplotlib.transforms import Bbox

    column, row = axes.transData.transform((x, y))
    return Bbox.from_extents(column - radius, row - radius, column + radius, row + radius)
