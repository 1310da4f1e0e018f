"""``wscl-embed demo``"""

from __future__ import annotations

import click

from wscl_embed.limits import MAX_WORKERS


@click.command(
    "demo",
    epilog="""\b
Example:
  wscl-embed demo --output runs/demo""",
)
@click.option("--output", default="runs/demo", show_default=True, metavar="PATH", help="the run directory to write")
@click.option("--overwrite", is_flag=True, help="replace the run in --output")
@click.option("--workers", type=click.IntRange(0, MAX_WORKERS), help="processes that decode images")
def command(output: str, overwrite: bool, workers: int | None) -> None:
    """Run the whole job on the emoji that come with the package, in a few minutes on a laptop.

    Keywords are the hashtags. The emoji's group is the held-out label: it scores the
    result on the test emoji, and on others chooses how far to tune (--wise-ft); training never sees it.
    """
    from wscl_embed.cli.tables import print_guard, print_next, print_scores
    from wscl_embed.demo import CONTACT_SHEET, run_demo

    result = run_demo(output, overwrite=overwrite, workers=workers)
    print_scores(result.metrics)
    print_guard(result.metrics["guard"])
    click.echo(f"Wrote {result.run.folder}: embeddings.h5, model/, {CONTACT_SHEET} (ten queries before and after)")
    print_next(result.run)
