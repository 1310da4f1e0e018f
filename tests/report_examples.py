"""Runs to make reports of: real emoji, made-up embeddings in which labels are neighbours, names that mean harm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from wscl_embed.clusters import Clusters
from wscl_embed.quarantine import Quarantine
from wscl_embed.report import ReportInput

if TYPE_CHECKING:
    import datasets

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&{{ 7 * 7 }}"


def scored(change: float = 0.05) -> dict[str, Any]:
    """The before/after part of ``metrics.json``."""
    names = ("recall@1", "recall@5", "recall@10", "map@r")
    return {
        "split": "val+test",
        "label_column": "label",
        "caption_column": None,
        "n_queries": 60,
        "n_skipped": 0,
        "before": dict.fromkeys(names, 0.5),
        "after": dict.fromkeys(names, 0.5 + change),
        "change": {name: {"mean": change, "low": change - 0.02, "high": change + 0.02} for name in names},
        "verdict": "better" if change > 0.02 else "worse" if change < -0.02 else "no difference",
    }


def report_input(
    dataset: datasets.Dataset, *, labels: bool = True, clusters: bool = True, bad: bool = True
) -> ReportInput:
    """A run over ``dataset``: a cluster a label, one row in six held out, one in ten of the others noise."""
    rng = np.random.default_rng(0)
    names = sorted(set(dataset["label"]))
    codes = np.array([names.index(label) for label in dataset["label"]])
    embeddings = np.eye(len(names), 32, dtype=np.float32)[codes] + 0.08 * rng.normal(size=(len(codes), 32))
    trained = np.flatnonzero(np.arange(len(codes)) % 6)
    assigned = np.where(np.arange(len(trained)) % 10, codes[trained], -1)
    terms = [[HOSTILE, name, "term"] if code == 0 else [name, "term"] for code, name in enumerate(names)]
    ids = [dataset["id"][int(row)] for row in trained]
    assigned = assigned if clusters else np.full(len(ids), -1)
    made = Clusters.from_labels(ids, assigned, name="hashtags", terms=terms if clusters else None)
    quarantine = Quarantine()
    if bad:
        quarantine.add(HOSTILE, f"images/{HOSTILE}", "truncated image file")
    history = [{"epoch": epoch, "loss": 3 - epoch / 4, "learning_rate": 1e-3 / epoch} for epoch in (1, 2, 3)]
    label_column = "label" if labels else None
    adapter = "hashtags:column=tags" if clusters else "none"
    return ReportInput(
        name=f"a run {HOSTILE}",
        config={"adapter": [adapter], "label_column": label_column, "seed": 0},
        metrics={**(scored() if labels else {}), "training": history, "seconds": {"training": 1.0}},
        dataset=dataset,
        embeddings=embeddings,
        clusters=made,
        quarantine=quarantine,
        label_column=label_column,
    )
