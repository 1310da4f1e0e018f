"""``wscl-embed cluster``"""

from __future__ import annotations

from typing import Any

import click

from wscl_embed.cli.options import config_options, given

OPTIONS = ["data", "adapter", "adapter_weight", "output", "model", "pretrained", "image_size", "device", "workers"]


@click.command(
    epilog="""\b
Example:
  wscl-embed cluster --data photos/ --adapter hashtags --adapter captions --label-column category --plot plane.png"""
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
@click.option(
    "--label-column", metavar="TEXT", help="column of labels, of some images or all, to hold the clusters against"
)
@click.option(
    "--stability",
    type=int,
    metavar="N",
    default=3,
    show_default=True,
    help="compare N clusterings of subsamples, and of seeds; on at most 2,000 records; 0 for none",
)
@click.option("--diagnostics", metavar="PATH", help="write what was found as JSON")
@click.option("--plot", metavar="PATH", help="write the information plane as a PNG; needs --label-column")
@click.option("--overwrite", is_flag=True, help="replace these files")
def command(**options: Any) -> None:
    """Turn signals into clusters and say what they are, without training.

    --output is a Parquet file; without it the clusters are only described. With labels, I(Z;T) says in bits how much
    of them the clusters tell, and H(Z|T) how much besides: a signal with little of the first will not help.
    """
    from wscl_embed.cli.diagnostics_tables import print_diagnostics
    from wscl_embed.errors import InputError
    from wscl_embed.pipeline import run_cluster

    chosen = given(options)
    for name in ("data", "adapter"):
        if name not in chosen:
            raise InputError(f"the option --{name} is missing.")
    result = run_cluster(chosen.pop("data"), chosen.pop("adapter"), **chosen)
    print_diagnostics(result.diagnostics)
    for name in ("output", "diagnostics", "plot"):
        if name in chosen:
            click.echo(f"Wrote {chosen[name]}")
