"""``wscl-embed index``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from wscl_embed.searching.building import IndexReport


@click.command(
    "index",
    epilog="""\b
Example:
  wscl-embed index runs/photos
  wscl-embed index runs/photos --kind hnsw --recall 0.99 --caption-column title

auto builds nothing for up to 50,000 images, which exact search looks through in milliseconds. The index lies beside
the embeddings. Delete one that came with a run from somebody else, and build your own: reading it runs code that
trusts what it reads.""",
)
@click.argument("source", metavar="RUN")
@click.option(
    "--kind", type=click.Choice(["auto", "hnsw", "ivf"]), default="auto", show_default=True, help="kind of index"
)
@click.option("--recall", type=float, default=0.95, show_default=True, metavar="X", help="recall@10 to reach")
@click.option("--caption-column", metavar="COLUMN", help="texts to measure text queries with  [default: the run's]")
@click.option("--data", metavar="PATH", help="the dataset with the captions  [default: the run's]")
@click.option("--model", metavar="NAME", help="what embedded RUN, if that is an HDF5 file: a run or a model")
@click.option("--pretrained", metavar="TAG", help="the weights of --model, as for fit")
def command(source: str, **options: Any) -> None:
    """Build an index that makes searching many images fast, and say what it misses."""
    from wscl_embed.pipeline import index

    report = index(source, **options)
    if report.kind == "exact":
        click.echo(f"No index: exact search over {report.rows:,} images takes {report.exact_ms:.2f} ms a query.")
        return
    _print_report(report)


def _print_report(report: IndexReport) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    name = {"hnsw": "efSearch", "ivf": "nprobe"}[report.kind]
    console.print(
        f"{report.kind} over {report.rows:,} images, {name} {report.effort}, built in {report.build_seconds:.1f} s:",
        soft_wrap=True,
    )
    table = Table()
    for column in ("queries", "number", "recall@10"):
        table.add_column(column, justify="left" if column == "queries" else "right")
    for kind, value in report.recall.items():
        table.add_row(kind, str(report.queries[kind]), f"{value:.3f}")
    console.print(table)
    console.print(
        f"{report.index_ms:.2f} ms a query, exact search {report.exact_ms:.2f} ms: {report.speedup:.1f} times as fast.",
        soft_wrap=True,
    )
    if not report.reached:
        console.print(f"[yellow]The recall of {report.target} asked for is not reached.[/yellow]", soft_wrap=True)
