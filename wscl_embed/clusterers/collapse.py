"""Distinct rows with weights in place of all rows."""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Features: TypeAlias = "NDArray[np.floating] | sparse.csr_array"


BLOCK = 2**18  # bytes of rows looked at together
COLLAPSE_BYTES = 140  # a row, while `collapse_rows` runs


def collapse_rows(features: Features) -> tuple[Features, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct rows (u, F) in order of appearance, the distinct row of each row (n,), how often each occurs (u,)."""
    import pandas as pd

    # Digests of 16 bytes stand for the rows, so that 200,000 wide rows are not held twice.
    keys = sparse_digests(features) if sparse.issparse(features) else dense_digests(np.asarray(features))
    codes, distinct = pd.factorize(np.array(keys, dtype=object))  # in order of appearance
    inverse = codes.astype(np.int64)
    first = np.empty(len(distinct), dtype=np.int64)
    first[inverse[::-1]] = np.arange(len(inverse))[::-1]
    rows = features if len(first) == features.shape[0] else features[first]
    return rows, inverse, np.bincount(inverse, minlength=len(first)).astype(np.int64)


def dense_digests(features: NDArray[np.floating]) -> list[bytes]:
    """n digests, the same where the rows of ``features`` (n, F) are."""
    width, digests = features.shape[1] * features.dtype.itemsize, []
    step = max(1, BLOCK // max(1, width))
    for start in range(0, len(features), step):
        block = features[start : start + step] + 0  # makes -0.0 and 0.0 the same bytes
        data = block.tobytes()
        digests += [_digest(data[i * width : (i + 1) * width]) for i in range(len(block))]
    return digests


def sparse_digests(features: sparse.csr_array) -> list[bytes]:
    """n digests, the same where the rows of ``features`` (n, F) are."""
    matrix = sparse.csr_array(features, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    indices, values, ends = matrix.indices.tobytes(), matrix.data.tobytes(), matrix.indptr.tolist()
    i, v = matrix.indices.itemsize, matrix.data.itemsize
    return [_digest(indices[a * i : b * i] + values[a * v : b * v]) for a, b in pairwise(ends)]


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
