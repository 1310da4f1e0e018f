"""Slow loops written from the papers, to compare the fast code with."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor


def cl_infonce_reference(
    z: Tensor,
    membership: np.ndarray,
    temperature: float | Tensor,
    denominator: str = "all",
    cross_view_only: bool = False,
    q: float = 0.0,
    lam: float = 1.0,
) -> Tensor:
    """The loss as wscl_embed.loss.objective states it: a loop over anchors, a loop over their positives.

    z (B, V, P), membership dense (B, K).
    """
    rows = [(image, view) for image in range(z.shape[0]) for view in range(z.shape[1])]
    losses = []
    for anchor in rows:
        others = [row for row in rows if row != anchor and not (cross_view_only and row[1] == anchor[1])]
        logit = {row: torch.dot(z[anchor], z[row]) / temperature for row in others}
        weight = {
            row: 1.0 if row[0] == anchor[0] else float(np.dot(membership[anchor[0]], membership[row[0]]))
            for row in others
        }
        positives = [row for row in others if weight[row] > 0]
        cost = torch.zeros((), dtype=z.dtype)
        for positive in positives:
            negatives = [row for row in others if weight[row] == 0]
            opposed = others if denominator == "all" else [positive, *negatives]
            log_d = torch.logsumexp(torch.stack([logit[row] for row in opposed]), 0)
            if q == 0:
                pair = log_d - logit[positive]
            else:
                pair = ((lam * log_d.exp()) ** q - torch.exp(q * logit[positive])) / q
            cost = cost + weight[positive] * pair
        if positives:
            losses.append(cost / sum(weight.values()))
    return torch.stack(losses).mean() if losses else torch.zeros((), dtype=z.dtype)


def supcon_out_reference(z: Tensor, labels: list[int], temperature: float) -> Tensor:
    """L_out of Khosla et al. 2020, equation 2: z (2B, P), one label a row."""
    total = torch.zeros((), dtype=z.dtype)
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        denominator = sum(torch.exp(torch.dot(z[i], z[a]) / temperature) for a in range(len(z)) if a != i)
        inner = sum(torch.log(torch.exp(torch.dot(z[i], z[p]) / temperature) / denominator) for p in positives)
        total = total - inner / len(positives)
    return total / len(z)


def sincere_reference(z: Tensor, labels: list[int], temperature: float) -> Tensor:
    """SINCERE of Feeney & Hughes 2023: z (2B, P), one label a row."""
    total = torch.zeros((), dtype=z.dtype)
    for i in range(len(z)):
        positives = [p for p in range(len(z)) if p != i and labels[p] == labels[i]]
        negatives = [n for n in range(len(z)) if labels[n] != labels[i]]
        for p in positives:
            attract = torch.exp(torch.dot(z[i], z[p]) / temperature)
            repel = sum(torch.exp(torch.dot(z[i], z[n]) / temperature) for n in negatives)
            total = total - torch.log(attract / (attract + repel)) / len(positives)
    return total / len(z)


def rince_reference(first: Tensor, second: Tensor, temperature: float, q: float, lam: float) -> Tensor:
    """RINCE of Chuang et al. 2022, for pairs of views: the positive of a row is its other view."""
    z = torch.cat([first, second])
    n = len(first)
    total = torch.zeros((), dtype=z.dtype)
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        positive = torch.exp(torch.dot(z[i], z[partner]) / temperature)
        negative = sum(torch.exp(torch.dot(z[i], z[k]) / temperature) for k in range(2 * n) if k not in (i, partner))
        total = total - positive**q / q + (lam * (positive + negative)) ** q / q
    return total / (2 * n)


def nt_xent_reference(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """NT-Xent of Chen et al. 2020, equation 1, averaged over all 2B rows."""
    z = torch.cat([first, second])
    n = len(first)
    total = torch.zeros((), dtype=z.dtype)
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        denominator = sum(torch.exp(torch.dot(z[i], z[k]) / temperature) for k in range(2 * n) if k != i)
        total = total - torch.log(torch.exp(torch.dot(z[i], z[partner]) / temperature) / denominator)
    return total / (2 * n)


def retrieval_reference(embeddings: np.ndarray, labels: list[object]) -> dict[str, list[float]]:
    """Recall@k, mAP@R, R-precision and nDCG at R of each query, query by query; ties in row order."""
    found: dict[str, list[float]] = {}
    for query, label in enumerate(labels):
        others = [row for row in range(len(labels)) if row != query]
        relevant = sum(labels[row] == label for row in others)
        if not relevant:
            continue
        ranked = sorted(others, key=lambda row: -cosine(embeddings[query], embeddings[row]))
        hits = [labels[row] == label for row in ranked]
        scores = {f"recall@{k}": float(any(hits[:k])) for k in (1, 5, 10)}
        scores["map@r"] = sum(sum(hits[: i + 1]) / (i + 1) for i in range(relevant) if hits[i]) / relevant
        scores["r_precision"] = sum(hits[:relevant]) / relevant
        gains = [1 / math.log2(i + 2) for i in range(relevant)]
        scores["ndcg"] = sum(gain for gain, hit in zip(gains, hits, strict=False) if hit) / sum(gains)
        for name, value in scores.items():
            found.setdefault(name, []).append(value)
    return found


def cross_modal_reference(
    images: np.ndarray, texts: np.ndarray, pairs: list[tuple[int, int]]
) -> dict[str, list[float]]:
    """Recall@k of each text that has an image, and of each image that has a text."""
    found: dict[str, list[float]] = {}
    turned = [(text, image) for image, text in pairs]
    for name, queries, rows, links in (
        ("text_to_image", texts, images, turned),
        ("image_to_text", images, texts, pairs),
    ):
        for query in sorted({one for one, _ in links}):
            ranked = sorted(range(len(rows)), key=lambda row: -cosine(queries[query], rows[row]))
            for k in (1, 5, 10):
                hit = any((query, row) in links for row in ranked[:k])
                found.setdefault(f"{name}_recall@{k}", []).append(float(hit))
    return found


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
