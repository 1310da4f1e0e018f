"""What clusterers said of the images, before the noise policy."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wscl_embed.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

NO_SIGNAL = -3  # scikit-learn's HDBSCAN gives this label to rows with missing data


@dataclass(frozen=True, eq=False)
class RawLabels:
    """What one adapter's clusterer said of N images.

    ========== ===============================================================================================
    ``source`` the adapter
    ``labels`` (N,) int64: the column of the image's cluster in the membership matrix, -1 for noise, -3
               (`NO_SIGNAL`) for a record without the signal, which the clusterer never saw
    ``policy`` what became of the noise: ``instance``, ``drop``, ``nearest`` or ``soft``
    ========== ===============================================================================================
    """

    source: str
    labels: NDArray[np.int64]
    policy: str = "instance"

    def check(self, n: int, k: int) -> None:
        """Raise `InputError` unless the labels are those of ``n`` images and ``k`` clusters."""
        if self.labels.shape != (n,) or self.labels.max(initial=-1) >= k:
            raise InputError(
                f"Clusters: raw labels of {self.source} must be {n} numbers below {k}, one an image; "
                f"got shape {self.labels.shape}, up to {self.labels.max(initial=-1)}."
            )

    def select(self, rows: NDArray[np.intp]) -> RawLabels:
        """Those of some images."""
        return replace(self, labels=self.labels[rows])

    def moved(self, offset: int, sources: Sequence[str]) -> RawLabels:
        """The same where the clusters stand ``offset`` columns further right, among the columns of ``sources``."""
        inside = self.labels >= 0
        labels = np.where(inside, self.labels + offset, self.labels)
        return replace(self, labels=labels, source=sources[int(labels.max())] if inside.any() else self.source)


def integer_labels(labels: ArrayLike, what: str) -> NDArray[np.int64]:
    """(N,) int64 from what holds whole numbers, of floats too.

    Raises:
        InputError: anything else (names ``what``): names of classes, missing values, fractions.

    >>> integer_labels([1.0, -1.0], "labels").tolist()
    [1, -1]
    """
    given = np.asarray(labels)
    with np.errstate(invalid="ignore"), suppress(TypeError, ValueError, OverflowError):
        whole = given.astype(np.int64)
        if given.dtype.kind in "biufO" and np.array_equal(whole, given):
            return whole
    few = ", ".join(map(repr, given.ravel()[:5].tolist()))
    raise InputError(f"{what} must be whole numbers, negative for noise; got {given.dtype}: {few}, ...")


def load_raw(table: pa.Table, adapters: list[dict[str, Any]]) -> tuple[RawLabels, ...]:
    """The raw labels in the table of a clusters file; none in files without them."""
    if not adapters:
        return ()
    flat = table.column("raw_labels").combine_chunks().flatten().to_numpy()
    columns = flat.reshape(len(table), len(adapters)).T
    return tuple(RawLabels(one["source"], labels, one["policy"]) for one, labels in zip(adapters, columns, strict=True))
