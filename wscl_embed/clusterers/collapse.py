"""Distinct rows with weights in place of all rows."""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Features: TypeAlias = "NDArray[np.floating] | sparse.csr_array"


def as_rows(features: Any) -> Features:
    """(n, F) numbers as a CSR array or an array, from lists, data frames, tensors, or any sparse layout.

    Raises:
        ValueError, TypeError: it holds something else.

    >>> as_rows([[1, 2], [3, 4]]).shape
    (2, 2)
    """
    if sparse.issparse(features):
        return sparse.csr_array(cast(Any, features))
    rows = np.asarray(features)
    return rows if rows.dtype.kind in "fiub" else rows.astype(np.float64)


BLOCK = 2**18  # bytes of rows looked at together
COLLAPSE_BYTES = 140  # a row, while `collapse_rows` runs


def collapse_rows(features: Features) -> tuple[Features, NDArray[np.int64], NDArray[np.int64]]:
    """Distinct rows (u, F) in order of appearance, the distinct row of each row (n,), how often each occurs (u,)."""
    inverse = _sparse_codes(features) if sparse.issparse(features) else _dense_codes(np.asarray(features))
    counts = np.bincount(inverse).astype(np.int64)
    first = np.empty(len(counts), dtype=np.int64)
    first[inverse[::-1]] = np.arange(len(inverse))[::-1]
    rows = features if len(first) == features.shape[0] else features[first]
    return rows, inverse, counts


def _dense_codes(features: NDArray[np.floating]) -> NDArray[np.int64]:
    """(n,) numbers from 0 in order of appearance, the same where the rows of ``features`` (n, F) are."""
    import pandas as pd

    # Digests of 16 bytes stand for the rows, so that 200,000 wide rows are not held twice.
    width, digests = features.shape[1] * features.dtype.itemsize, []
    step = max(1, BLOCK // max(1, width))
    for start in range(0, len(features), step):
        block = features[start : start + step] + 0  # makes -0.0 and 0.0 the same bytes
        data = block.tobytes()
        digests += [_digest(data[i * width : (i + 1) * width]) for i in range(len(block))]
    codes, _ = pd.factorize(np.array(digests, dtype=object))  # in order of appearance
    return np.asarray(codes, dtype=np.int64)


def _sparse_codes(features: sparse.csr_array) -> NDArray[np.int64]:
    """(n,) numbers from 0 in order of appearance, the same where the rows of ``features`` (n, F) are."""
    import pyarrow as pa

    matrix = sparse.csr_array(features, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    entries = np.empty(matrix.nnz, dtype=[("column", matrix.indices.dtype), ("value", matrix.data.dtype)])
    entries["column"], entries["value"] = matrix.indices, matrix.data
    ends = matrix.indptr.astype(np.int64) * entries.itemsize
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(entries)]
    rows = pa.LargeBinaryArray.from_buffers(pa.large_binary(), matrix.shape[0], buffers)
    return np.asarray(rows.dictionary_encode().indices, dtype=np.int64)


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
