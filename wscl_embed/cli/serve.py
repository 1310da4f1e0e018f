"""``wscl-embed serve``"""

from __future__ import annotations

from typing import Any

import click


@click.command(
    "serve",
    epilog="""\b
Example:
  wscl-embed serve runs/photos
  wscl-embed serve runs/photos --compare runs/other --port 9000

The page is for this machine alone: it listens on 127.0.0.1. From elsewhere, ssh -L 8765:127.0.0.1:8765 HOST brings it
to you. The embeddings before tuning are made at the first start, where fit did not leave them in the cache. Ctrl-C
ends it.""",
)
@click.argument("source", metavar="RUN")
@click.option("--compare", metavar="RUN", help="another run or embedding file, instead of the frozen encoder")
@click.option("--after-only", is_flag=True, help="search the run's embeddings alone")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="N", help="0: any  [default: the first free one from 8765 on]"
)
@click.option("--data", metavar="PATH", help="the dataset with the images and columns  [default: the run's]")
@click.option("--model", metavar="NAME", help="what embedded RUN, if that is an HDF5 file: a run or a model")
@click.option("--pretrained", metavar="TAG", help="the weights of --model, as for fit")
def command(source: str, **options: Any) -> None:
    """Look at a run in a browser: search before and after side by side, browse clusters, filter by columns."""
    from wscl_embed.pipeline import serve

    serve(source, ready=_announce, **options)
    click.echo("Stopped.")


def _announce(address: str) -> None:
    click.echo(f"Open {address} in a browser. Ctrl-C ends it.")
