"""``wscl-embed adapters``"""

from __future__ import annotations

import click


@click.command(
    "adapters",
    epilog="""\b
Example:
  wscl-embed adapters hashtags""",
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
def command(names: tuple[str, ...]) -> None:
    """List the installed adapters with their options, and where each comes from.

    Options are written after the name: hashtags:column=tags,n_clusters=200.
    """
    from wscl_embed.errors import InputError, nearest
    from wscl_embed.registry import installed_adapters

    installed = installed_adapters()
    for name in names:
        if name not in installed:
            raise InputError(f"unknown adapter {name!r}. {nearest(name, installed)}")
    for info in installed.values():
        if names and info.name not in names:
            continue
        click.secho(f"{info.name}", bold=True, nl=False)
        click.echo(f"  ({info.distribution}, {info.entry_point.value})")
        try:
            cls = info.load()
        except InputError as error:  # one broken plugin must not hide the others
            click.echo(f"  does not work: {error}\n")
            continue
        click.echo(f"  {(cls.__doc__ or '').strip().splitlines()[0]}")
        for item in cls.option_fields().values():
            click.echo(f"    {item.name}={item.default}".ljust(36) + str(item.metadata.get("help", "")))
        click.echo()
