"""``wscl-embed search``"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from wscl_embed.searching import Hit


@click.command(
    "search",
    epilog="""\b
Example:
  wscl-embed search runs/photos --image query.jpg -k 5
  wscl-embed search runs/photos --text "red dress" --where "label == 'Dresses' AND price < 50" --sheet found.png

--where is an SQL condition over the columns of the dataset, as DuckDB reads it: text in single quotes, AND, OR, NOT,
IN ('a', 'b'), LIKE 'S%', BETWEEN, IS NULL, list_contains(tags, 'beach'), attributes.colour = 'red'.

--sheet writes a contact sheet of what was found.""",
)
@click.argument("source", metavar="RUN")
@click.option("--image", metavar="FILE", help="the query, an image")
@click.option("--text", metavar="TEXT", help="the query, in words, for models with a text tower")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="how many results")
@click.option("--where", metavar="SQL", help="only images that meet this condition")
@click.option("--columns", metavar="A,B,...", help="columns of the dataset to show  [default: the run's label column]")
@click.option("--data", metavar="PATH", help="the dataset with the images and columns  [default: the run's]")
@click.option("--model", metavar="NAME", help="what embedded RUN, if that is an HDF5 file: a run or a model")
@click.option("--pretrained", metavar="TAG", help="the weights of --model, as for fit")
@click.option("--exact", is_flag=True, help="look at every row, also where there is an index")
@click.option("--sheet", metavar="FILE.png", help="write a picture of the results")
@click.option("--overwrite", is_flag=True, help="replace --sheet")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def command(source: str, as_json: bool, columns: str | None, **options: Any) -> None:
    """Find the images of a run or an embedding file most like an image, or a text."""
    from wscl_embed.pipeline import search

    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    hits = search(source, columns=names, **options)
    if as_json:
        _print_json(hits)
    elif not hits:
        click.echo(f"No image meets --where {options['where']}" if options["where"] else "There are no images.")
    else:
        _print_table(hits)
    if options["sheet"]:
        click.echo(f"Wrote {options['sheet']}", err=as_json)


def _print_json(hits: list[Hit]) -> None:
    import json

    records = [{"id": hit.id, "score": hit.score, "metadata": hit.metadata} for hit in hits]
    click.echo(json.dumps(records, ensure_ascii=False, default=str))


def _print_table(hits: list[Hit]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from wscl_embed.progress import printable
    from wscl_embed.searching.columns import cell_text

    table = Table()
    for name in ("rank", "score"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("id", *hits[0].metadata):
        table.add_column(Text(printable(name)), overflow="fold")
    for rank, hit in enumerate(hits, 1):
        values = [hit.id, *(cell_text(value) for value in hit.metadata.values())]
        table.add_row(str(rank), f"{hit.score:.4f}", *(Text(printable(value)) for value in values))
    Console(highlight=False).print(table)
