"""What `wscl-embed cluster` shows on stdout: adapters side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

if TYPE_CHECKING:
    from wscl_embed.diagnostics import Agreement, Diagnostics, Interval, Spread


def print_diagnostics(found: Diagnostics) -> None:
    """What the clusters of one or several adapters are, side by side."""
    console = Console(highlight=False)
    table = Table(Column(no_wrap=True), *(_column(name) for name in found.summaries))
    for name, cells in _rows(found).items():
        table.add_row(name, *cells)
    console.print(table)
    for note in _notes(found):
        console.print(note, markup=False, soft_wrap=True)
    if found.agreement is not None:
        console.print(_agreement_table(found.agreement))
        console.print(
            "Agreement: adjusted mutual information over the images both have in a cluster; 1 the same clusters, 0 as "
            "by chance.",
            soft_wrap=True,
        )


def _rows(found: Diagnostics) -> dict[str, list[str]]:
    """A row a fact, a cell an adapter; a row without facts is left out."""
    summaries = list(found.summaries.values())
    planes = [found.planes.get(name) for name in found.summaries]
    stability = [found.stability.get(name) for name in found.summaries]
    rows = {
        "clusters": [str(one.n_clusters) for one in summaries],
        "  of one image": [str(one.singletons) for one in summaries],
        "images in none": [f"{one.noise_share:.1%}" for one in summaries],
        "positives a batch": [f"{one.expected_positives:.2f}" for one in summaries],
        "H(Z), bits": [f"{one.entropy:.2f}" for one in summaries],
        "I(Z;T), bits": [
            _with_range(one.mutual_information, one.mutual_information_interval) if one else "" for one in planes
        ],
        "H(Z|T), bits": [
            _with_range(one.conditional_entropy, one.conditional_entropy_interval) if one else "" for one in planes
        ],
        "stable, subsamples": [_with_range(one.subsamples.mean, one.subsamples) if one else "" for one in stability],
        "stable, seeds": [
            "" if one is None else _with_range(one.seeds.mean, one.seeds) if one.seeds else "no seed"
            for one in stability
        ],
    }
    return {name: cells for name, cells in rows.items() if any(cells)}


def _notes(found: Diagnostics) -> Iterator[str]:
    batch_size = next(iter(found.summaries.values())).batch_size
    yield f"Positives: other images of its clusters that an image meets in a batch of {batch_size} drawn uniformly."
    if found.planes:
        plane = next(iter(found.planes.values()))
        yield (
            f"I(Z;T): what the clusters tell of the labels, at most H(T) = {plane.label_entropy:.2f} bits; H(Z|T): "
            "what they tell besides."
        )
        if plane.is_estimate:
            yield (
                f"Estimates, and their 95 % intervals, from the labels of {plane.n_labelled:,} of {plane.n_images:,} "
                "images, which should be a random draw."
            )
        few = [name for name, one in found.summaries.items() if one.n_clusters > 2 * plane.n_labelled]
        if plane.is_estimate and few:
            yield f"Fewer labels than half the clusters of {', '.join(few)}: take these intervals as too narrow."
    if found.stability:
        records = max(one.records for one in found.stability.values())
        yield (
            f"Stable: adjusted Rand index between clusterings of 80 % of {records:,} records, mean and range; 1 the "
            "same clusters, 0 as by chance."
        )


def _agreement_table(found: Agreement) -> Table:
    table = Table("agreement", *(_column(name) for name in found.names[:-1]))
    for row, name in enumerate(found.names[1:], 1):
        table.add_row(Text(name), *("-" if np.isnan(value) else f"{value:.2f}" for value in found.values[row, :row]))
    return table


def _column(name: str) -> Column:
    return Column(Text(name), justify="right")


def _with_range(value: float, spread: Interval | Spread) -> str:
    """The value, and below it from where to where, unless that is one place."""
    shown = f"{spread.low:.2f}..{spread.high:.2f}"
    return f"{value:.2f}" if spread.low == spread.high else f"{value:.2f}\n{shown}"
