"""``wscl-embed evaluate``"""

from __future__ import annotations

import click


@click.command(
    "evaluate",
    epilog="""\b
Example:
  wscl-embed evaluate runs/photos --data photos/ --label-column category --before frozen.h5""",
)
@click.argument("embeddings", metavar="RUN_OR_H5")
@click.option("--data", required=True, metavar="PATH", help="the images it was made from, for their labels")
@click.option("--label-column", metavar="COLUMN", help="column of labels: image-to-image retrieval, probes")
@click.option("--caption-column", metavar="COLUMN", help="column of captions: text-to-image retrieval")
@click.option("--split", metavar="SPLIT", default="test", show_default=True, help="score this split; all: every image")
@click.option("--before", metavar="RUN_OR_H5", help="another embedding file over the same images, to compare with")
@click.option(
    "--max-queries", type=click.IntRange(min=1), help="draw so many queries at random; all images are searched"
)
def command(
    embeddings: str,
    data: str,
    label_column: str | None,
    caption_column: str | None,
    split: str,
    before: str | None,
    max_queries: int | None,
) -> None:
    """Score an embedding file by labels, captions or both, alone or against another.

    Where the data has no column `split`, the split test of a run is what `fit` held out. The nearest neighbours and the
    linear probe learn from the labels of the split `train`, where the file has it.
    """
    from wscl_embed.cli.tables import print_scores
    from wscl_embed.metric_names import ALL
    from wscl_embed.pipeline import evaluate

    metrics = evaluate(
        embeddings,
        data,
        label_column,
        caption_column=caption_column,
        split=None if split == "all" else split,
        before=before,
        max_queries=max_queries,
    )
    print_scores(metrics, before="before", after="after" if before else "value", names=ALL)
