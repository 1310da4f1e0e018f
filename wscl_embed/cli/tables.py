"""Tables for the terminal, on stdout."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from wscl_embed.metric_names import ALL, SHORT

if TYPE_CHECKING:
    from wscl_embed.run import Run


def print_scores(
    metrics: dict[str, Any], before: str = "frozen", after: str = "tuned", *, names: dict[str, str] = SHORT
) -> None:
    """The closing table: each metric before and after, the change with its interval, and the verdict.

    Args:
        names: the rows, metric name -> what people call it; those that were not measured are left out.
    """
    from wscl_embed.evaluation import VERDICTS

    console = Console(highlight=False)
    console.print(_heading(metrics), soft_wrap=True, markup=False)  # columns may have brackets in their names
    table = Table()
    table.add_column("")
    for column in (before, after, "change", "95 % interval") if "before" in metrics else (after,):
        table.add_column(column, justify="right")
    for key, name in names.items():
        if key in metrics["after"]:
            table.add_row(name, *_cells(metrics, key))
    console.print(table)
    if metrics["n_skipped"]:
        console.print(f"Images alone with their label, hence no queries: {metrics['n_skipped']}.")
    if "verdict" in metrics:
        console.print(f"Verdict: {VERDICTS[metrics['verdict']]}", soft_wrap=True)


def print_guard(report: dict[str, Any]) -> None:
    """The sweep over mixtures of frozen and tuned weights, if there was one, and what was settled on."""
    from wscl_embed.guard import describe

    console = Console(highlight=False)
    if "sweep" in report:
        table = Table(box=None, pad_edge=False, title="On the validation images, by share of the tuned weights:")
        table.title_justify = "left"
        table.add_column("")
        for one in report["sweep"]:
            table.add_column(f"{one['alpha']:g}", justify="right")
        for key in report["sweep"][0]["change"]:
            table.add_row(ALL[key], *(f"{one[key]:.3f}".removeprefix("0") for one in report["sweep"]))
        console.print(table)
    line = describe(report)
    console.print(f"{line[0].upper()}{line[1:]} (--wise-ft).", soft_wrap=True)


def print_next(run: Run) -> None:
    """Where to look at a run: its report, and `serve` or, where its libraries are not installed, `search`."""
    if run.report.is_file():
        click.echo(f"Look at it in a browser: {run.report}")
    can_serve = find_spec("starlette") is not None and find_spec("uvicorn") is not None
    command = f"serve {run.folder}" if can_serve else f"search {run.folder} --image PICTURE"
    click.echo(f"Search it: wscl-embed {command}")


def _heading(metrics: dict[str, Any]) -> str:
    where = f"the {metrics['split']} split" if metrics["split"] else "all images"
    parts = []
    if metrics["label_column"] is not None:
        parts.append(f"Image-to-image retrieval by {metrics['label_column']}, {metrics['n_queries']} queries")
    if metrics["caption_column"] is not None:
        parts.append(f"Text-to-image retrieval by {metrics['caption_column']}")
    drawn = f", at most {metrics['max_queries']} queries drawn at random" if metrics.get("max_queries") else ""
    return f"{'; '.join(parts)}; {where}{drawn}:"


def _cells(metrics: dict[str, Any], key: str) -> list[str]:
    after = f"{metrics['after'][key]:.3f}"
    if "before" not in metrics:
        return [after]
    change = metrics["change"][key]
    interval = f"{change['low']:+.3f} .. {change['high']:+.3f}"
    return [f"{metrics['before'][key]:.3f}", after, f"{change['mean']:+.3f}", interval]
