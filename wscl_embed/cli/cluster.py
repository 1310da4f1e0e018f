"""``wscl-embed cluster``"""

from __future__ import annotations

from typing import Any

import click

from wscl_embed.cli.options import config_options, given, require
from wscl_embed.limits import MAX_INT

OPTIONS = ["data", "adapter", "adapter_weight", "output", "model", "pretrained", "image_size", "device", "workers"]
DESCRIBED = {
    "output": "Parquet file to write the clusters to  [default: none is written]",
    "model": "encoder for adapters that read images, as for fit  [default: efficientnet-lite0]",
}


@click.command(
    "cluster",
    epilog="""\b
Example:
  wscl-embed cluster --data photos/ --adapter hashtags --adapter captions --label-column category --plot plane.png""",
)
@config_options(OPTIONS, described=DESCRIBED)
@click.option("--split", metavar="SPLIT", help="cluster the rows of this split only")
@click.option(
    "--batch-size",
    type=click.IntRange(2, MAX_INT),
    default=512,
    show_default=True,
    help="images a batch, to say how many positives an image meets in one",
)
@click.option(
    "--label-column", metavar="COLUMN", help="column of labels, of some images or all, to compare the clusters with"
)
@click.option(
    "--stability",
    type=int,
    metavar="N",
    default=3,
    show_default=True,
    help="how many clusterings to compare, of subsamples and of seeds, on at most 2,000 records; 0: none",
)
@click.option("--diagnostics", metavar="PATH", help="write what was found as JSON")
@click.option("--plot", metavar="PATH", help="write the information plane as a PNG; needs --label-column")
@click.option("--overwrite", is_flag=True, help="replace these files")
def command(**options: Any) -> None:
    """Turn signals into clusters and say what they are, without training.

    With --label-column it also says, in bits, how much the clusters tell about the labels, I(Z;T), and how much they
    tell besides, H(Z|T). A signal with little I(Z;T) will not help.
    """
    from wscl_embed.cli.diagnostics_tables import print_diagnostics
    from wscl_embed.pipeline import run_cluster

    chosen = given(options)
    require(chosen, ["data", "adapter"], "cluster")
    result = run_cluster(chosen.pop("data"), chosen.pop("adapter"), **chosen)
    print_diagnostics(result.diagnostics)
    for name in ("output", "diagnostics", "plot"):
        if name in chosen:
            click.echo(f"Wrote {chosen[name]}")
