"""Weak metadata to clusters, clusters to a better image encoder, the encoder to a searchable embedding file.

>>> from wscl_embed import Clusters
>>> Clusters.from_labels(["a", "b"], [0, 0], name="toy").n_clusters
1
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wscl_embed.adapter import Adapter, option
    from wscl_embed.clusters import Clusters
    from wscl_embed.dataset import load_dataset
    from wscl_embed.encoder_sources import load_encoder
    from wscl_embed.evaluation import evaluate_retrieval
    from wscl_embed.loss import cl_infonce
    from wscl_embed.pipeline import cluster, embed, evaluate, fit, serve
    from wscl_embed.searching import Searcher
    from wscl_embed.store import EmbeddingStore

__version__ = "0.1.0"

# Loaded when first asked for: torch and its friends take seconds, `wscl-embed --help` must not.
_HOME = {
    "Adapter": "adapter",
    "option": "adapter",
    "Clusters": "clusters",
    "EmbeddingStore": "store",
    "Searcher": "searching",
    "cl_infonce": "loss",
    "cluster": "pipeline",
    "embed": "pipeline",
    "evaluate": "pipeline",
    "evaluate_retrieval": "evaluation",
    "fit": "pipeline",
    "load_dataset": "dataset",
    "load_encoder": "encoder_sources",
    "serve": "pipeline",
}

__all__ = [
    "Adapter",
    "Clusters",
    "EmbeddingStore",
    "Searcher",
    "cl_infonce",
    "cluster",
    "embed",
    "evaluate",
    "evaluate_retrieval",
    "fit",
    "load_dataset",
    "load_encoder",
    "option",
    "serve",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    """What completion offers."""
    return [*__all__, "__version__"]
