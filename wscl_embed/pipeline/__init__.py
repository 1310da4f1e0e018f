"""The jobs of the toolkit, end to end; the command line mirrors them."""

from wscl_embed.pipeline.clustering import ClusterResult, cluster, run_cluster
from wscl_embed.pipeline.embedding import embed
from wscl_embed.pipeline.evaluating import evaluate
from wscl_embed.pipeline.fitting import FitResult, fit, run_fit
from wscl_embed.pipeline.searching import index, search
from wscl_embed.pipeline.serving import serve

__all__ = [
    "ClusterResult",
    "FitResult",
    "cluster",
    "embed",
    "evaluate",
    "fit",
    "index",
    "run_cluster",
    "run_fit",
    "search",
    "serve",
]
