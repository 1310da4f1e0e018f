"""Labels predicted from the labels of a bank of other images: by nearest neighbours, and by a linear classifier."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray

from wscl_embed.evaluation.neighbours import chunk_size, nearest, unit_rows

NEIGHBOURS = 20
TEMPERATURE = 0.07
PROBE_ROWS = 20_000
SMALL = 10**9  # multiplications a step, under which threads only wait for each other: two took ten times the CPU of one
PROBE_C = 0.01  # of 1e-4 .. 0.1 the best on the validation split of product photos (benchmarks/LOG.md)


def knn_accuracy(
    bank: NDArray[np.floating],
    bank_labels: NDArray[np.int64],
    queries: NDArray[np.floating],
    labels: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Whether the 20 nearest of a bank vote for each query's label, weighted by exp(cosine / 0.07).

    The weighting is Wu et al.'s ("Unsupervised Feature Learning via Non-Parametric Instance Discrimination", CVPR
    2018); 20 neighbours are DINO's (Caron et al., ICCV 2021).

    Args:
        bank: (n, D) embeddings of other images; compared by cosine.
        bank_labels: (n,) numbers from 0.
        queries: (q, D).
        labels: (q,) numbers of the same labels; one the bank lacks is never right.

    Returns:
        (q,) of 0 and 1.

    >>> knn_accuracy(np.eye(2), np.array([0, 1]), np.array([[1.0, 0.1], [1.0, 0.2]]), np.array([0, 1])).tolist()
    [1.0, 0.0]
    """
    rows = unit_rows(bank)
    asked = unit_rows(queries)
    of_row, of_query = (torch.from_numpy(values).to(rows.device) for values in (bank_labels, labels))
    k, n_labels = min(NEIGHBOURS, len(rows)), int(max(bank_labels.max(), labels.max())) + 1
    right = []
    size = chunk_size(len(rows), 4 * n_labels)
    for part, truth in zip(torch.split(asked, size), torch.split(of_query, size), strict=True):
        similarity, found = nearest(part, rows, k)
        weights = ((similarity - 1) / TEMPERATURE).exp()  # e^(s - 1) votes as e^s does, and does not overflow
        votes = torch.zeros(len(part), n_labels, device=rows.device).scatter_add_(1, of_row[found], weights)
        right.append(votes.argmax(dim=1) == truth)
    return torch.cat(right).double().cpu().numpy()


def linear_probe(
    bank: NDArray[np.floating],
    bank_labels: NDArray[np.int64],
    queries: NDArray[np.floating],
    labels: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Whether a multinomial logistic regression (scikit-learn's) fitted on a bank tells each query's label.

    On unit-length embeddings, standardised by the bank, with C = 0.01. A bank of more than 20,000 is sampled. A linear
    map of the embedding hardly changes what a linear classifier can tell: do not expect much of it in head mode.

    Arguments and result as in `knn_accuracy`.

    >>> bank, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])
    >>> linear_probe(bank, labels, np.array([[1.0, 0.1]]), np.array([0])).tolist()
    [1.0]
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import Normalizer, StandardScaler
    from threadpoolctl import threadpool_limits

    if len(bank) > PROBE_ROWS:
        drawn = np.sort(np.random.default_rng(0).choice(len(bank), PROBE_ROWS, replace=False))
        bank, bank_labels = bank[drawn], bank_labels[drawn]
    n_labels = len(np.unique(bank_labels))
    if n_labels == 1:
        return np.asarray(labels == bank_labels[0], dtype=np.float64)
    model = make_pipeline(Normalizer(), StandardScaler(), LogisticRegression(C=PROBE_C, tol=1e-3, max_iter=300))
    threads = 1 if bank.size * n_labels < SMALL else None
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a few more steps change no prediction worth the time
        model.fit(bank, bank_labels)
    return np.asarray(model.predict(queries) == labels, dtype=np.float64)
