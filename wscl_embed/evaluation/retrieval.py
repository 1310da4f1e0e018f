"""Image-to-image retrieval: each image queries the others, and those of its label are to be found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from wscl_embed.errors import InputError
from wscl_embed.evaluation.neighbours import chunk_size, drawn, nearest, unit_rows
from wscl_embed.label_codes import label_codes

RECALL_AT = (1, 5, 10)
RETRIEVAL_METRICS = (*(f"recall@{k}" for k in RECALL_AT), "map@r", "r_precision", "ndcg")

BYTES_PER_NEIGHBOUR = 64  # its similarity, its row, and what scoring makes of them in float64


@dataclass(frozen=True)
class Retrieval:
    """Per-query results of leave-one-out retrieval.

    ============== ==========================================================================================
    ``per_query``  metric name -> (q,) float64, the queries in the order of the images
    ``n_skipped``  images whose label no other image has: nothing to find, so they are no queries
    ============== ==========================================================================================
    """

    per_query: dict[str, NDArray[np.float64]]
    n_skipped: int

    @property
    def n_queries(self) -> int:
        """q, how many images were queries."""
        return len(self.per_query["map@r"])

    def means(self) -> dict[str, float]:
        """Metric name -> mean over the queries."""
        return {name: float(values.mean()) for name, values in self.per_query.items()}


def evaluate_retrieval(
    embeddings: ArrayLike, labels: Sequence[object] | NDArray[Any], *, max_queries: int | None = None
) -> Retrieval:
    """Query with each image among all the others, R of which have its label.

    =============== ==================================================================================================
    ``recall@k``    whether one of its label is among the k nearest, k of 1, 5, 10
    ``map@r``       mean average precision over the R nearest (Musgrave et al., "A Metric Learning Reality Check",
                    ECCV 2020)
    ``r_precision`` share of the R nearest that have its label (Manning et al., "Introduction to Information
                    Retrieval", 2008, section 8.4)
    ``ndcg``        normalised discounted cumulative gain, gain 1 for its label and 0 for others, cut at R (Järvelin
                    and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002)
    =============== ==================================================================================================

    Exact, on the GPU where there is one. Memory: a copy of the embeddings, and a quarter of a GiB whatever n and R are.

    Args:
        embeddings: (n, D); compared by cosine.
        labels: n labels, in the order of the rows (an index of pandas' is not looked at); an image whose label is None,
            NaN, another of pandas' missing values or a blank string is neither query nor result.
        max_queries: so many images query, 1 or more, drawn at random; all of them are results.

    Raises:
        InputError: no label occurs twice, another number of labels than rows, or a row that is not finite.

    >>> result = evaluate_retrieval(np.array([[1, 0], [1, 0.1], [0, 1]]), ["a", "a", "b"])
    >>> result.means()["recall@1"], result.n_queries, result.n_skipped
    (1.0, 2, 1)
    """
    rows = np.asarray(embeddings)
    if rows.ndim != 2 or len(rows) != len(labels):
        raise InputError(f"embeddings of shape {rows.shape} for {len(labels)} labels; give (n, D), one row a label.")
    if max_queries is not None and max_queries < 1:
        raise InputError(f"max_queries must be at least 1; got {max_queries}.")
    present, codes = encode_labels(labels)
    relevant = np.bincount(codes)[codes] - 1 if len(codes) else np.zeros(0, dtype=np.int64)  # R of each image
    queries = np.flatnonzero(relevant > 0)
    if not len(queries):
        raise InputError(f"no label occurs twice among the {len(labels)} images to evaluate: nothing can be retrieved.")
    unit = unit_rows(rows if len(present) == len(rows) else rows[present])
    # Queries of like R share a chunk, which looks only as deep as the largest of them.
    asked = drawn(queries, max_queries)
    by_depth = asked[np.argsort(-relevant[asked], kind="stable")]
    scores = _score_all(unit, codes, relevant, by_depth)
    order = np.argsort(by_depth)
    return Retrieval({name: values[order] for name, values in scores.items()}, len(present) - len(queries))


def encode_labels(labels: Sequence[object] | NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The rows that have a label, and a number for each of their labels; labels that read alike are the same.

    >>> [part.tolist() for part in encode_labels(["b", None, "a", "b ", np.nan])]
    [[0, 2, 3], [1, 0, 1]]
    """
    codes = label_codes(labels)
    present = np.flatnonzero(codes >= 0)
    return present, codes[present]


def _score_all(
    unit: Tensor, codes: NDArray[np.int64], relevant: NDArray[np.int64], queries: NDArray[np.int64]
) -> dict[str, NDArray[np.float64]]:
    """Metric name -> (q,) for the query rows, given in the order of falling R."""
    labels, counts = (torch.from_numpy(values).to(unit.device) for values in (codes, relevant))
    parts = []
    start = 0
    while start < len(queries):
        depth = min(len(unit) - 1, max(int(relevant[queries[start]]), max(RECALL_AT)))
        stop = start + chunk_size(len(unit), depth * BYTES_PER_NEIGHBOUR)
        rows = torch.from_numpy(queries[start:stop]).to(unit.device)
        _, found = nearest(unit[rows], unit, depth, own=rows)
        parts.append(_score(labels[found] == labels[rows, None], counts[rows]))
        start = stop
    return {name: torch.cat([part[name] for part in parts]).cpu().numpy() for name in RETRIEVAL_METRICS}


def _score(hits: Tensor, relevant: Tensor) -> dict[str, Tensor]:
    """Metric name -> (q,) float64, from (q, depth) hits in the order of rank and R (q,)."""
    ranks = torch.arange(1, hits.shape[1] + 1, device=hits.device)
    within = hits & (ranks <= relevant[:, None])  # the hits among the R nearest
    precision = hits.cumsum(dim=1) / ranks.double()
    gain = 1 / torch.log2(ranks.double() + 1)
    return {
        **{f"recall@{k}": hits[:, :k].any(dim=1).double() for k in RECALL_AT},
        "map@r": (precision * within).sum(dim=1) / relevant,
        "r_precision": within.sum(dim=1) / relevant.double(),
        "ndcg": (gain * within).sum(dim=1) / gain.cumsum(dim=0)[relevant - 1],
    }
