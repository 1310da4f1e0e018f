"""``wscl-embed search``"""

from __future__ import annotations

import click


@click.command(
    epilog="""\b
Example:
  wscl-embed search runs/photos --image query.jpg -k 5"""
)
@click.argument("run", metavar="RUN")
@click.option("--image", required=True, metavar="FILE", help="the query")
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="how many results")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def command(run: str, image: str, k: int, as_json: bool) -> None:
    """Find the images of a run most like one image."""
    import json

    from wscl_embed.pipeline import search

    results = search(run, image, k=k)
    if as_json:
        click.echo(json.dumps([{"id": image_id, "score": score} for image_id, score in results], ensure_ascii=False))
        return
    for image_id, score in results:
        click.echo(f"{score:.4f}  {image_id}")
