"""``wscl-embed cluster``"""

from __future__ import annotations

from typing import Any

import click

from wscl_embed.cli.options import config_options, given

OPTIONS = ["data", "adapter", "adapter_weight", "output", "model", "pretrained", "image_size", "device", "workers"]


@click.command(
    epilog="""\b
Example:
  wscl-embed cluster --data photos/ --adapter hashtags:column=tags --output clusters.parquet"""
)
@config_options(OPTIONS)
@click.option("--split", help="cluster the rows of this split only")
@click.option(
    "--batch-size",
    type=click.IntRange(min=2),
    default=512,
    show_default=True,
    help="for the expected number of positives in a batch",
)
@click.option("--overwrite", is_flag=True, help="replace --output")
def command(**options: Any) -> None:
    """Turn signals into clusters and say what they are, without training.

    --output is a Parquet file; without it the clusters are only described.
    """
    from wscl_embed.errors import InputError
    from wscl_embed.pipeline import cluster

    chosen = given(options)
    for name in ("data", "adapter"):
        if name not in chosen:
            raise InputError(f"the option --{name} is missing.")
    cluster(chosen.pop("data"), chosen.pop("adapter"), **chosen)
    if "output" in chosen:
        click.echo(f"Wrote {chosen['output']}")
