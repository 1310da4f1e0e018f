"""The charts, as Bokeh documents without colours: the page paints them for light or dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from wscl_embed.errors import import_extra
from wscl_embed.report.information import PlanePoint

NAMES = {"loss": "Loss", "learning_rate": "Learning rate"}
LOD_POINTS = 12_000  # drawn while the map moves; all of them once it rests
ACCENT = "#0072B2"


def bokeh() -> Any:
    """The package, or the line that installs it."""
    return import_extra("bokeh", package="bokeh", extra="report", needed_for="report.html")


def map_chart(n: int) -> dict[str, Any]:
    """The map of n points as `bokeh.embed.json_item` gives it.

    The page fills the data source ``points`` (``x``, ``y``, ``colour``: a number in the palette of the mapper
    ``palette``), reads what is under the pointer from it, and marks a chosen point through the source ``mark``.
    Bokeh draws on a canvas, which needs no GPU; while the map moves it draws a tenth of many points.
    """
    from bokeh.models import ColumnDataSource, HoverTool, LinearColorMapper, PanTool, Range1d, TapTool, WheelZoomTool
    from bokeh.plotting import figure

    points = ColumnDataSource({"x": [], "y": [], "colour": []}, name="points")
    mark = ColumnDataSource({"x": [], "y": []}, name="mark")
    plot = figure(
        name="map",
        sizing_mode="stretch_both",
        tools=[PanTool(name="pan"), WheelZoomTool(name="wheel")],
        toolbar_location=None,
        x_range=Range1d(0, 65535),
        y_range=Range1d(0, 65535),
        lod_threshold=LOD_POINTS,
        lod_factor=max(1, math.ceil(n / LOD_POINTS)),
        lod_timeout=200,
        min_border=0,
    )
    plot.axis.visible = False
    plot.grid.visible = False
    plot.outline_line_color = None
    mapper = LinearColorMapper(palette=["#888888"], low=0, high=1, name="palette")
    size = 7 if n <= 3_000 else 5 if n <= 20_000 else 3.5
    colour = {"field": "colour", "transform": mapper}
    dots = plot.scatter("x", "y", source=points, size=size, fill_color=colour, fill_alpha=0.85, line_color=None)
    dots.nonselection_glyph = None
    dots.selection_glyph = None
    ring = {"size": size + 9, "fill_color": None, "line_width": 2.5, "line_color": "#000000"}
    plot.scatter("x", "y", source=mark, name="ring", **ring)
    plot.add_tools(HoverTool(tooltips=None, renderers=[dots]), TapTool(renderers=[dots]))
    return _item(plot)


def training_charts(history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for each number that was written down after the epochs: ``title``, ``item`` and the last ``value``."""
    from bokeh.models import NumeralTickFormatter
    from bokeh.plotting import figure

    charts = []
    for name, values in series_of(history).items():
        known = np.isfinite(values)
        epochs = np.array([float(entry["epoch"]) for entry in history])
        title = NAMES.get(name, name.replace("_", " ").capitalize())
        plot = figure(height=230, sizing_mode="stretch_width", tools="hover", toolbar_location=None)
        plot.hover.tooltips = [
            ("epoch", "@x"),
            (title, "@y{0.[0000]e+0}" if np.abs(values[known]).max() < 0.01 else "@y{0.[0000]}"),
        ]
        plot.hover.mode = "vline"
        plot.line(epochs[known], values[known], line_width=2, line_color=ACCENT, name="accent")
        plot.scatter(epochs[known], values[known], size=5, color=ACCENT, name="accent")
        plot.xaxis.axis_label = "epoch"
        plot.yaxis.formatter = NumeralTickFormatter(format="0.[00000]")
        plot.y_range.range_padding = 0.15
        charts.append({"title": title, "item": _item(plot), "first": values[known][0], "last": values[known][-1]})
    return charts


def information_chart(points: Sequence[PlanePoint]) -> dict[str, Any]:
    """H(Z|T) over I(Z;T), as `wscl_embed.diagnostics.plot_information_plane` has it: right and down is better."""
    from bokeh.models import ColumnDataSource, LabelSet, Range1d
    from bokeh.plotting import figure

    plot = figure(height=340, sizing_mode="stretch_width", tools="hover", toolbar_location=None)
    plot.hover.tooltips = [("clusters", "@name"), ("I(Z;T)", "@told{0.00} bits"), ("H(Z|T)", "@besides{0.00} bits")]
    right = max(point.told for point in points) or 1.0
    top = max(1.0, *(point.besides for point in points))
    plot.x_range = Range1d(0, 1.25 * right)
    plot.y_range = Range1d(-0.06 * top, 1.15 * top)
    for reference in (False, True):
        some = [point for point in points if point.reference is reference]
        source = ColumnDataSource({key: [getattr(point, key) for point in some] for key in ("name", "told", "besides")})
        name, marker = ("reference", "diamond") if reference else ("accent", "circle")
        plot.scatter("told", "besides", source=source, size=12, marker=marker, color=ACCENT, name=name)
        place = {"x_offset": 10, "y_offset": 6, "text_align": "left", "text_font_size": "13px"}
        plot.add_layout(LabelSet(x="told", y="besides", text="name", source=source, name="names", **place))
    plot.xaxis.axis_label = "I(Z;T): bits the clusters tell of the labels"
    plot.yaxis.axis_label = "H(Z|T): bits they tell besides"
    return _item(plot)


def series_of(history: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Each numeric key besides ``epoch`` with its value after each epoch, NaN where there is none.

    >>> series_of([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1}])["loss"].tolist()
    [2.0, 1.0]
    """
    names = dict.fromkeys(
        key for entry in history for key, value in entry.items() if key != "epoch" and _is_number(value)
    )
    found = {}
    for name in names:
        values = [entry.get(name, math.nan) for entry in history]
        found[name] = np.array([float(value) if _is_number(value) else math.nan for value in values])
    return {name: values for name, values in found.items() if np.isfinite(values).any()}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _item(plot: Any) -> dict[str, Any]:
    from bokeh.embed import json_item

    plot.background_fill_color = None
    plot.border_fill_color = None
    item: dict[str, Any] = json_item(plot)
    return item


def bokeh_script() -> str:
    """BokehJS, which Bokeh brings along."""
    from pathlib import Path

    return (Path(bokeh().__file__).parent / "server" / "static" / "js" / "bokeh.min.js").read_text(encoding="utf-8")
