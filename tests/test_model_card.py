"""The model card: read back by huggingface_hub, with the run's own figures in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelCard

from wscl_embed.clusters import Clusters
from wscl_embed.model_card import clusters_fingerprint, write_card

if TYPE_CHECKING:
    from wscl_embed.encoder import Encoder

METRICS: dict[str, Any] = {
    "split": "test",
    "label_column": "kind: of | thing",
    "n_queries": 7,
    "before": {"recall@1": 0.5, "map@r": 0.25},
    "after": {"recall@1": 0.75, "map@r": 0.375},
    "change": {"recall@1": {"mean": 0.25, "low": 0.125, "high": 0.5}},
    "verdict": "better",
}
CLUSTERS = Clusters.from_labels(["a", "b", "c"], [0, 0, 1], name="tags")


def card(encoder: Encoder, folder: Path, metrics: dict[str, Any]) -> ModelCard:
    folder.mkdir(parents=True)
    write_card(folder, encoder, CLUSTERS, metrics, adapters=["hashtags:n_clusters=2"], dataset_fingerprint="f1")
    return ModelCard.load(folder / "README.md")


def test_the_hub_s_own_reader_finds_the_figures(lite0: Encoder, tmp_path: Path) -> None:
    made = card(lite0, tmp_path / "photos" / "model", METRICS)
    assert made.data.library_name == "open_clip"
    found = {result.metric_type: result.metric_value for result in made.data.eval_results}
    assert found == {"recall@1": 0.75, "map@r": 0.375}
    for part in (
        "# photos\n",
        "| base model | `efficientnet-lite0` |",
        "`hashtags:n_clusters=2`",
        f"| clusters fingerprint | `{clusters_fingerprint(CLUSTERS)}` |",
        "| dataset fingerprint | `f1` |",
        "| Recall@1 | 0.500 | 0.750 | +0.125 .. +0.500 |",
        "Verdict: better.",
        lite0.weights_hash(),
    ):
        assert part in made.text, part


def test_a_run_that_was_not_scored(lite0: Encoder, tmp_path: Path) -> None:
    made = card(lite0, tmp_path / "photos" / "model", {})
    assert made.data.eval_results is None
    assert "Nothing was scored" in made.text


def test_the_fingerprint_tells_clusters_apart() -> None:
    same = Clusters.from_labels(["a", "b", "c"], [5, 5, 9], name="other")
    moved = Clusters.from_labels(["a", "b", "c"], [0, 1, 1], name="tags")
    renamed = Clusters.from_labels(["a", "b", "d"], [0, 0, 1], name="tags")
    weaker = Clusters.from_labels(["a", "b", "c"], [0, 0, 1], np.array([1, 1, 0.5]), name="tags")
    assert clusters_fingerprint(same) == clusters_fingerprint(CLUSTERS)
    assert len({clusters_fingerprint(one) for one in (CLUSTERS, moved, renamed, weaker)}) == 4
