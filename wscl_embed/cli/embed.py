"""``wscl-embed embed``"""

from __future__ import annotations

from typing import Any

import click

from wscl_embed.cli.options import config_options, given, require
from wscl_embed.limits import MAX_INT

OPTIONS = ["data", "model", "output", "pretrained", "image_size", "dtype", "device", "workers", "max_bad_share"]
DESCRIBED = {
    "data": "images to embed: a folder, Parquet, WebDataset tars, or a Hub name  [required]",
    "model": "a run of fit, its model folder, or any other model fit takes  [required]",
    "output": "the HDF5 file to write  [required]",
}


@click.command(
    "embed",
    epilog="""\b
Example:
  wscl-embed embed --data more-photos/ --model runs/photos --output more.h5""",
)
@config_options(OPTIONS, described=DESCRIBED)
@click.option(
    "--caption-column",
    metavar="COLUMN",
    help="embed this column of captions as well, by the text tower  [default: with --update the file's]",
)
@click.option("--split", metavar="SPLIT", help="embed the rows of this split only")
@click.option("--batch-size", type=click.IntRange(1, MAX_INT), default=64, show_default=True, help="images a batch")
@click.option("--overwrite", is_flag=True, help="replace --output")
@click.option("--resume", is_flag=True, help="continue an interrupted job; what was embedded is not embedded again")
@click.option(
    "--update", is_flag=True, help="embed only images that are new in --data, or whose files or captions changed"
)
def command(**options: Any) -> None:
    """Embed images into an HDF5 file.

    --output appears under its name when it is complete. --resume continues a job that was killed. --update embeds what
    is new or changed, and never takes images out of --output.
    """
    from wscl_embed import EmbeddingStore
    from wscl_embed.pipeline import embed

    chosen = given(options)
    require(chosen, ["data", "model", "output"], "embed")
    path = embed(chosen.pop("data"), chosen.pop("model"), chosen.pop("output"), **chosen)
    with EmbeddingStore(path) as store:
        click.echo(f"Wrote {path}: {len(store):,} embeddings of {store.embeddings.shape[1]} dimensions")
