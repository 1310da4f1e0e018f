"""Distinct rows with weights in place of all rows."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Features: TypeAlias = "NDArray[np.floating] | sparse.csr_array"


COLLAPSE_BYTES = 140  # a row, while `collapse_rows` runs


def collapse_rows(features: Features) -> tuple[Features, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct rows (u, F) in order of appearance, the distinct row of each row (n,), how often each occurs (u,)."""
    import pandas as pd

    # Digests of 16 bytes stand for the rows, so that 200,000 wide rows are not held twice.
    if sparse.issparse(features):
        matrix = sparse.csr_array(features, copy=True)
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        bounds = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        keys = [_digest(matrix.indices[a:b].tobytes() + matrix.data[a:b].tobytes()) for a, b in bounds]
    else:
        keys = [_digest((row + 0).tobytes()) for row in features]  # + 0 makes -0.0 and 0.0 the same bytes
    codes, _ = pd.factorize(np.array(keys, dtype=object))
    inverse = codes.astype(np.int64)
    _, first, counts = np.unique(inverse, return_index=True, return_counts=True)
    rows = features if len(first) == features.shape[0] else features[first]
    return rows, inverse, counts.astype(np.int64)


def row_bytes(features: Features) -> int:
    """About how many bytes a row of ``features`` takes."""
    if sparse.issparse(features):
        return int(12 * features.nnz / max(1, features.shape[0]))
    return int(features.shape[1] * features.dtype.itemsize)


def collapsed_bytes(features: Features, distinct: Features) -> int:
    """Bytes of the copy `collapse_rows` made; it makes none where all rows are distinct."""
    return 0 if distinct is features else int(distinct.shape[0]) * row_bytes(distinct)


def with_short_indices(matrix: sparse.csr_array) -> sparse.csr_array:
    """The same matrix with 32-bit indices where they suffice: scikit-learn refuses longer ones, SciPy makes them."""
    if max(matrix.nnz, *matrix.shape) > np.iinfo(np.int32).max:
        return matrix
    arrays = (matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32))
    return sparse.csr_array(arrays, shape=matrix.shape)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
