"""``wscl-embed fit``"""

from __future__ import annotations

from typing import Any

import click

from wscl_embed.cli.options import config_options, given


@click.command(
    epilog="""\b
Example:
  wscl-embed fit --data photos/ --adapter hashtags:column=tags,n_clusters=200 \\
      --label-column category --output runs/photos
Another encoder (open_clip's names and tags):
  wscl-embed fit ... --model ViT-B-32 --pretrained laion2b_s34b_b79k --tune full
The same run again, elsewhere:
  wscl-embed fit --config runs/photos/config.yaml --output runs/again"""
)
@config_options()
@click.option("--config", "config_file", metavar="FILE", help="YAML with options; those given here come before it")
@click.option("--overwrite", is_flag=True, help="replace the run in --output")
@click.option("--resume", is_flag=True, help="continue an interrupted run with the same options")
def command(config_file: str | None, overwrite: bool, resume: bool, **options: Any) -> None:
    """Cluster by weak signals, fine-tune, embed, and compare before and after.

    A dataset with a column `split` trains on the rows `train`.
    """
    from wscl_embed.cli.tables import print_guard, print_scores
    from wscl_embed.config import make_config
    from wscl_embed.pipeline import run_fit

    result = run_fit(make_config(given(options), config_file), overwrite=overwrite, resume=resume)
    if "before" in result.metrics:
        print_scores(result.metrics)
        print_guard(result.metrics["guard"])
    else:
        click.echo("Neither --label-column nor --caption-column, so no before/after table.")
    click.echo(f"Wrote {result.run.folder}: embeddings.h5, model/, clusters.parquet, metrics.json")
    if result.run.report.is_file():
        click.echo(f"Look at it in a browser: {result.run.report}")
