"""The jobs of the toolkit, end to end; the command line mirrors them."""

from wscl_embed.pipeline.clustering import cluster
from wscl_embed.pipeline.embedding import embed
from wscl_embed.pipeline.evaluating import evaluate
from wscl_embed.pipeline.fitting import FitResult, fit, run_fit
from wscl_embed.pipeline.retrieval import search

__all__ = ["FitResult", "cluster", "embed", "evaluate", "fit", "run_fit", "search"]
