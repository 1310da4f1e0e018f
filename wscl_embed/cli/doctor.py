"""``wscl-embed doctor``"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from wscl_embed.doctor import Finding

MARKS = {"fine": ("ok", None), "note": ("note", "yellow"), "broken": ("BROKEN", "red")}


@click.command(
    "doctor",
    epilog="""\b
Example:
  wscl-embed doctor --output runs/

Exit code 0 where a run would work, 1 where something would break it. It writes 64 MiB to the places it measures, and
removes them.""",
)
@click.option("--output", default=".", show_default=True, metavar="PATH", help="where runs would be written")
@click.option("--json", "as_json", is_flag=True, help="print JSON instead of a table")
def command(output: str, as_json: bool) -> None:
    """Look whether this machine and installation can do a run, and say what mends what cannot."""
    from wscl_embed.doctor import examine

    findings = []
    for finding in examine(output):
        findings.append(finding)
        if not as_json:
            _print(finding)
    broken = [finding for finding in findings if finding.state == "broken"]
    if as_json:
        import json
        from dataclasses import asdict

        click.echo(json.dumps({"ok": not broken, "findings": [asdict(one) for one in findings]}, ensure_ascii=False))
    else:
        click.echo(
            f"\nThis would break a run: {', '.join(one.what for one in broken)}." if broken else "\nAll is well."
        )
    sys.exit(1 if broken else 0)


def _print(finding: Finding) -> None:
    from wscl_embed.progress import printable

    mark, colour = MARKS[finding.state]
    click.secho(f"{mark:7}", fg=colour, nl=False)
    click.echo(f"{finding.what:22} {printable(finding.said)}")
    if finding.mend:
        click.echo(f"{'':30}-> {finding.mend}")
