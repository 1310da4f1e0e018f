"""Captions query images and images query captions, through an encoder's two towers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wscl_embed.evaluation.neighbours import chunk_size, drawn, nearest, unit_rows

RECALL_AT = (1, 5, 10)
TEXT_TO_IMAGE = tuple(f"text_to_image_recall@{k}" for k in RECALL_AT)
IMAGE_TO_TEXT = tuple(f"image_to_text_recall@{k}" for k in RECALL_AT)


def evaluate_cross_modal(
    images: NDArray[np.floating],
    texts: NDArray[np.floating],
    pairs: NDArray[np.int64],
    *,
    max_queries: int | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Recall@k both ways (Karpathy and Fei-Fei, "Deep Visual-Semantic Alignments", CVPR 2015).

    ``text_to_image_recall@k``: whether an image of the text is among its k nearest images.
    ``image_to_text_recall@k``: whether a text of the image is among its k nearest texts.

    Args:
        images: (n, D) image embeddings; compared by cosine.
        texts: (m, D) embeddings of distinct texts: a caption that several images carry is one text, and any of them
            will do for it.
        max_queries: so many texts query, and so many images, drawn at random.
        pairs: (p, 2), the row of an image and the row of a text of it. What has no pair does not query.

    Returns:
        Metric name -> one value a query: a text for `TEXT_TO_IMAGE`, an image for `IMAGE_TO_TEXT`.

    >>> found = evaluate_cross_modal(np.eye(2), np.array([[1.0, 0.1], [0.9, 0.2]]), np.array([[0, 0], [1, 1]]))
    >>> found["text_to_image_recall@1"].tolist(), found["image_to_text_recall@1"].tolist()
    ([1.0, 0.0], [1.0, 1.0])
    """
    image_rows, text_rows = unit_rows(images), unit_rows(texts)
    of_image, of_text = (torch.from_numpy(np.ascontiguousarray(side)).to(image_rows.device) for side in pairs.T)
    return {
        **dict(zip(TEXT_TO_IMAGE, _recalls(text_rows, image_rows, of_text, of_image, max_queries), strict=True)),
        **dict(zip(IMAGE_TO_TEXT, _recalls(image_rows, text_rows, of_image, of_text, max_queries), strict=True)),
    }


def _recalls(
    queries: Tensor, rows: Tensor, query_of: Tensor, row_of: Tensor, most: int | None
) -> list[NDArray[np.float64]]:
    """Whether one of a query's rows is among the k nearest, for each k: (q,) each, of the queries with a pair."""
    asked = torch.from_numpy(drawn(torch.unique(query_of).cpu().numpy(), most)).to(rows.device)
    known = (query_of * len(rows) + row_of).sort().values  # each pair as one number
    depth = min(max(RECALL_AT), len(rows))
    hits = []
    for part in torch.split(asked, chunk_size(len(rows))):
        _, found = nearest(queries[part], rows, depth)
        pairs = part[:, None] * len(rows) + found
        at = torch.searchsorted(known, pairs).clamp_max(len(known) - 1)
        hits.append(known[at] == pairs)
    ranked = torch.cat(hits)  # (q, depth)
    return [ranked[:, :k].any(dim=1).double().cpu().numpy() for k in RECALL_AT]
