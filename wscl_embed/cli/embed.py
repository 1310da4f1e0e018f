"""``wscl-embed embed``"""

from __future__ import annotations

from typing import Any

import click

from wscl_embed.cli.options import config_options, given


@click.command(
    epilog="""\b
Example:
  wscl-embed embed --data more-photos/ --model runs/photos --output more.h5"""
)
@config_options(["data", "output", "model", "pretrained", "image_size", "dtype", "device", "workers", "max_bad_share"])
@click.option(
    "--caption-column", help="embed this column of captions as well, by the text tower  [with --update the file's]"
)
@click.option("--split", help="embed the rows of this split only")
@click.option("--batch-size", type=click.IntRange(min=1), default=64, show_default=True, help="images a batch")
@click.option("--overwrite", is_flag=True, help="replace --output")
@click.option("--resume", is_flag=True, help="continue an interrupted job; what was embedded is not embedded again")
@click.option(
    "--update", is_flag=True, help="embed only images that are new in --data, or whose files or captions changed"
)
def command(**options: Any) -> None:
    """Embed images into an HDF5 file.

    --model is a run of `fit`, its model folder, or any other model `fit` takes. --output appears when it is whole; of a
    job that was killed, --resume goes on. --update never takes images out of --output.
    """
    from wscl_embed.errors import InputError
    from wscl_embed.pipeline import embed

    chosen = given(options)
    for name in ("data", "model", "output"):
        if name not in chosen:
            raise InputError(f"the option --{name} is missing.")
    path = embed(chosen.pop("data"), chosen.pop("model"), chosen.pop("output"), **chosen)
    click.echo(f"Wrote {path}")
