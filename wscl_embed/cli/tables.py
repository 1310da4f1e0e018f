"""Tables for the terminal, on stdout."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

NAMES = {"recall@1": "Recall@1", "recall@5": "Recall@5", "recall@10": "Recall@10", "map@r": "mAP@R"}


def print_scores(metrics: dict[str, Any], before: str = "frozen", after: str = "tuned") -> None:
    """The closing table: each metric before and after, the change with its interval, and the verdict."""
    from wscl_embed.retrieval import VERDICTS

    console = Console(highlight=False)
    where = f"the {metrics['split']} split" if metrics["split"] else "all images"
    console.print(
        f"Image-to-image retrieval by {metrics['label_column']}, {metrics['n_queries']} queries, {where}:",
        soft_wrap=True,
    )
    table = Table()
    table.add_column("")
    for column in (before, after, "change", "95 % interval") if "before" in metrics else (after,):
        table.add_column(column, justify="right")
    for key, name in NAMES.items():
        values = [f"{metrics['after'][key]:.3f}"]
        if "before" in metrics:
            change = metrics["change"][key]
            values = [
                f"{metrics['before'][key]:.3f}",
                *values,
                f"{change['mean']:+.3f}",
                f"{change['low']:+.3f} .. {change['high']:+.3f}",
            ]
        table.add_row(name, *values)
    console.print(table)
    if metrics["n_skipped"]:
        console.print(f"Images alone with their label, hence no queries: {metrics['n_skipped']}.")
    if "verdict" in metrics:
        console.print(f"Verdict: {VERDICTS[metrics['verdict']]}", soft_wrap=True)
