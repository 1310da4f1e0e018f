"""``wscl-embed fit``"""

from __future__ import annotations

from typing import Any

import click

from wscl_embed.cli.options import SectionedCommand, config_options, given

SECTIONS = {
    "Most used": ["data", "adapter", "label_column", "output", "config_file", "overwrite", "resume"],
    "Data and scoring": ["adapter_weight", "caption_column", "eval_split", "holdout", "max_bad_share"],
    "Encoder": ["model", "pretrained", "image_size"],
    "Training": [
        "tune",
        "epochs",
        "batch_size",
        "images_per_cluster",
        "learning_rate",
        "weight_decay",
        "projection",
        "wise_ft",
        "recluster_every",
        "recluster_warmup",
        "seed",
    ],
    "Only with --tune head": ["cached_views"],
    "Only with --tune full": ["unlocked_groups", "micro_batch_size", "compile"],
    "Loss": ["temperature", "denominator", "cross_view_only", "q", "lam", "instance_weight"],
    "Output and machine": ["dtype", "save_every", "tensorboard", "device", "workers", "cache_dir"],
}


@click.command(
    "fit",
    cls=SectionedCommand,
    sections=SECTIONS,
    epilog="""\b
Example:
  wscl-embed fit --data photos/ --adapter hashtags:column=tags,n_clusters=200 \\
      --label-column category --output runs/photos
Another encoder (open_clip's names and tags):
  wscl-embed fit ... --model ViT-B-32 --pretrained laion2b_s34b_b79k --tune full
The same run again, elsewhere:
  wscl-embed fit --config runs/photos/config.yaml --output runs/again""",
)
@config_options()
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    help="YAML file with options, also required ones; the command line overrides it",
)
@click.option("--overwrite", is_flag=True, help="replace the run in --output")
@click.option("--resume", is_flag=True, help="continue an interrupted run with the same options")
def command(config_file: str | None, overwrite: bool, resume: bool, **options: Any) -> None:
    """Cluster by weak signals, fine-tune, embed, and compare before and after.

    Trains on the rows whose column `split` says train, and scores those that say test. Without such a column, a share
    of the images (--holdout) is held out for scoring.
    """
    from wscl_embed.cli.tables import print_guard, print_next, print_scores
    from wscl_embed.config import make_config
    from wscl_embed.pipeline import run_fit

    result = run_fit(make_config(given(options), config_file), overwrite=overwrite, resume=resume)
    if "before" in result.metrics:
        print_scores(result.metrics)
    else:
        click.echo("Neither --label-column nor --caption-column, so no before/after table.")
    print_guard(result.metrics["guard"])
    click.echo(f"Wrote {result.run.folder}: embeddings.h5, model/, clusters.parquet, metrics.json")
    print_next(result.run)
