"""What a clusterer is, and what comes of one: scikit-learn's contract, never a class by its name."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from wscl_embed.clusterers.collapse import Features, collapse_rows
from wscl_embed.errors import InputError
from wscl_embed.raw_labels import integer_labels

WEAKEST = 1e-6  # a membership is positive: a record in a cluster with strength 0 would be in none


@runtime_checkable
class Clusterer(Protocol):
    """scikit-learn's contract: (n, F) features to (n,) integer labels, -1 for noise.

    Two habits of that ecosystem are used where they are there: a parameter ``sample_weight`` of ``fit_predict``, and
    an attribute ``probabilities_`` (n,) after it, in [0, 1], as scikit-learn's and hdbscan's HDBSCAN have it: how
    strongly each row belongs to its cluster, 0 for noise.
    """

    def fit_predict(self, X: Features) -> NDArray[np.integer]: ...


@dataclass(frozen=True, eq=False)
class Clustering:
    """What a clusterer made of n rows.

    ============= =========================================================================
    ``labels``    (n,) int64, -1 for noise
    ``strengths`` (n,) float32 in (0, 1]: how strongly each row belongs to its cluster (the
                  value of a noise row means nothing); None where the clusterer knows none
    ============= =========================================================================

    >>> Clustering(np.array([0, 0, -1])).labels.tolist()
    [0, 0, -1]
    """

    labels: NDArray[np.int64]
    strengths: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        if self.strengths is not None:
            inside = self.strengths[self.labels >= 0]
            if not ((inside > 0) & (inside <= 1)).all():
                raise InputError("Clustering: the strengths of rows in a cluster must lie in (0, 1].")


def clustering(labels: NDArray[np.integer], strengths: NDArray[np.floating] | None) -> Clustering:
    """A `Clustering` from a clusterer's labels, noise negative, and its probabilities in [0, 1].

    NaN counts as 1: hdbscan divides infinite densities where many rows are identical.
    """
    hard = np.maximum(labels, -1).astype(np.int64)
    return Clustering(
        hard, None if strengths is None else np.clip(np.nan_to_num(strengths, nan=1.0), WEAKEST, 1).astype(np.float32)
    )


def fit_predict(features: Features, clusterer: Clusterer) -> Clustering:
    """The clusters a `Clusterer` object makes of the rows of ``features`` (n, F).

    Raises:
        InputError: labels or probabilities of another length than the rows, labels that are no whole numbers,
            probabilities outside [0, 1], or distinct rows that the clusterer refuses.
    """
    if "sample_weight" in inspect.signature(clusterer.fit_predict).parameters:
        rows, inverse, counts = collapse_rows(features)
        weights = counts.astype(np.float64)
        try:
            labels = np.asarray(cast(Any, clusterer).fit_predict(rows, sample_weight=weights))
        except ValueError as error:  # such as fewer rows than clusters: fewer than its owner knows of
            distinct = f"the {rows.shape[0]} distinct rows of {features.shape[0]}"
            raise InputError(f"clusterer {clusterer!r} does not take {distinct} ({error}).") from error
    else:
        rows, inverse = features, np.arange(features.shape[0])
        labels = np.asarray(clusterer.fit_predict(rows))
    found = getattr(clusterer, "probabilities_", None)
    strengths = None if found is None else np.asarray(found, dtype=np.float64)
    for what, values in (("labels", labels), ("probabilities_", strengths)):
        if values is not None and values.shape != (rows.shape[0],):
            raise InputError(f"clusterer {clusterer!r} gave {what} of shape {values.shape} for {rows.shape[0]} rows.")
    labels = integer_labels(labels, f"the labels of clusterer {clusterer!r}")
    if strengths is not None and not ((strengths >= 0) & (strengths <= 1)).all():
        raise InputError(f"clusterer {clusterer!r} gave probabilities_ outside [0, 1].")
    return clustering(labels[inverse], None if strengths is None else strengths[inverse])
