"""``wscl-embed export``"""

from __future__ import annotations

import click

from wscl_embed.export.layouts import LAYOUTS

LISTING = "\n".join(f"  {name:<16}{layout.help}" for name, layout in LAYOUTS.items())


@click.command(
    "export",
    epilog=f"""\b
Layouts:
{LISTING}

\b
Example:
  wscl-embed export runs/photos --layout parquet --output photos.parquet
  wscl-embed export runs/photos --layout ann-benchmarks:queries=500,neighbors=10 --output photos-angular.hdf5
  wscl-embed export runs/photos --layout onnx --output photos.onnx""",
)
@click.argument("source", metavar="RUN_OR_H5")
@click.option("--layout", required=True, metavar="SPEC", help="NAME or NAME:option=value,...")
@click.option("--output", required=True, metavar="PATH", help="the file or folder to write")
@click.option("--overwrite", is_flag=True, help="replace --output")
def command(source: str, layout: str, output: str, overwrite: bool) -> None:
    """Write embeddings, or the model, in the layout of another tool."""
    from wscl_embed.export import export

    path = export(source, layout, output, overwrite=overwrite)
    click.echo(f"Wrote {path}")
