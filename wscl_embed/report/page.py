"""The page: a Jinja template with its style and scripts inside."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from wscl_embed.metric_names import ALL

TEMPLATE = Path(__file__).parent / "template"
HEADLINES = ("recall@1", "map@r")
HEADLINES_BY_TEXT = ("text_to_image_recall@10",)
MARKS = {"better": "▲", "worse": "▼", "mixed": "◆", "no difference": "●"}


def render(*, script: str, data: dict[str, Any], **facts: Any) -> str:
    """The page as HTML.

    What comes from the dataset - ids, tags, labels, reasons - is text to the template, which escapes it, and to the
    page's script, which only ever sets text. Should both fail, the page's content security policy lets no script run
    but the two whose hashes it names, and nothing be loaded from anywhere.

    Args:
        script: the charting library.
        data: for the page's script.
        facts: what the template says in words.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from wscl_embed.evaluation import VERDICTS
    from wscl_embed.guard import describe

    environment = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # Bokeh refers to what came before
    scripts = [closed(script), closed((TEMPLATE / "report.js").read_text(encoding="utf-8"))]
    scores = score_rows(facts["metrics"])
    return environment.get_template("report.html").render(
        style=Markup("".join((TEMPLATE / name).read_text(encoding="utf-8") for name in ("look.css", "report.css"))),
        scripts=[Markup(one) for one in scripts],
        script_hashes=[content_hash(one) for one in scripts],
        data=data | {"training": [chart["item"] for chart in facts["training"]]},
        scores=scores,
        headlines=[row for row in scores if row["key"] in HEADLINES]
        or [row for row in scores if row["key"] in HEADLINES_BY_TEXT],
        verdict=VERDICTS.get(facts["metrics"].get("verdict", "")),
        written=describe(facts["metrics"]["guard"]) if "guard" in facts["metrics"] else "",
        mark=MARKS.get(facts["metrics"].get("verdict", "")),
        **facts,
    )


def closed(script: str) -> str:
    """A script that cannot end the element it stands in."""
    return re.sub(r"<(?=/script|!--|script)", r"\\x3c", script, flags=re.IGNORECASE)


def content_hash(script: str) -> str:
    """How a content security policy names an inline script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def score_rows(metrics: Any) -> list[dict[str, Any]]:
    """The rows of the before/after table, with where the interval lies on a scale all rows share, 0 to 100."""
    changes = metrics.get("change", {})
    names = {key: name for key, name in ALL.items() if key in changes}
    reach = 1.1 * max((abs(changes[key][end]) for key in names for end in ("low", "high")), default=0) or 1.0
    rows = []
    for key, name in names.items():
        change = changes[key]
        low, mean, high = (50 + 50 * change[end] / reach for end in ("low", "mean", "high"))
        direction = "up" if change["low"] > 0 else "down" if change["high"] < 0 else "even"
        values = {"before": metrics["before"][key], "after": metrics["after"][key]}
        rows.append({"key": key, "name": name, **values, **change, "at": (low, mean, high), "direction": direction})
    return rows
