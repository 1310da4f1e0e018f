"""Overlapping clusters: each tag is one, and records attract by the tags they share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_adapters.tag_table import TagTable


def overlap_membership(table: TagTable, informativeness: NDArray[np.float64]) -> sparse.csr_array:
    """(n, V) CSR float32 membership, rows of unit length or empty.

    The pair weight of two records is the information of the tags they share over the geometric mean of what each
    has in all: 1 for the same tags, as for another view of the same image, and 0 for no tag in common. The information
    of a tag is log2(tagged records / records with it), in bits, times its ``informativeness`` (V,). A tag in every
    record has none, and no members.

    >>> import pyarrow as pa
    >>> from wscl_adapters.tag_table import read_tags
    >>> table = read_tags(pa.chunked_array([["sun", "sun sea", "sea", "snow"]]))
    >>> membership = overlap_membership(table, np.ones(3))
    >>> (membership @ membership.T).toarray()[1].round(2)
    array([0.71, 1.  , 0.71, 0.  ], dtype=float32)
    """
    information = np.log2(table.n_tagged / table.frequency) * informativeness
    rows = sparse.csr_array(table.rows * np.sqrt(information)[None, :])
    rows.eliminate_zeros()
    length = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
    rows.data /= np.repeat(length, np.diff(rows.indptr))
    return sparse.csr_array(rows[table.inverse]).astype(np.float32)
