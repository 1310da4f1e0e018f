"""The company tags keep: how often each occurs beside each of the most frequent ones, and what that says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_adapters.tag_table import TagTable

REFERENCE = 1000  # the tags that count as company: what is rarer says little, and a square of them stays small
PRIOR = 20.0  # occurrences of anybody's company that are added to a tag's own
PAIRS = 2_000  # compared at a time


@dataclass(frozen=True, eq=False)
class Company:
    """Counts of what occurs together, over all records.

    ============= ======================================================================================
    ``counts``    (V, R) CSR float64: records with tag v and reference tag r, 0 where they are the same
    ``reference`` (R,) int64: the most frequent tags
    ============= ======================================================================================
    """

    counts: sparse.csr_array
    reference: NDArray[np.int64]

    def informativeness(self) -> NDArray[np.float64]:
        """(V,) in [0, 1]: how much each tag says about the tags beside it.

        The mean over them of log2 lift (the Kullback-Leibler divergence, in bits, of the tag's company from everyone
        else's), relative to one bit, or to the mean occurrence of a tag where that says less, as values of independent
        attributes do; 1 at most, and for tags without company or too rare to be references. Estimated from few
        records it comes out too high, so only frequent tags are ever found to say nothing.
        """
        square = sparse.coo_array(self.counts[self.reference])  # (R, R)
        tag, beside = square.coords
        told, weight = np.ones(self.counts.shape[0]), square.sum(axis=1)
        anybody = square.sum(axis=0)
        share = square.data / weight[tag]
        lift = share / (anybody[beside] / (anybody.sum() - anybody)[tag])
        bits = np.bincount(tag, weights=share * np.log2(lift), minlength=len(weight))
        if weight.any():
            unit = min(1.0, float((bits * weight).sum() / weight.sum()))
            if unit > 0:
                told[self.reference] = np.where(weight > 0, np.clip(bits / unit, 0, 1), 1)
        return told

    def agreement(self, tags: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
        """(k,) bits by which the company of ``tags`` (k,) speaks for being that of ``others`` (k,), not anybody's.

        The log-likelihood ratio of each tag's company under the other's distribution (with `PRIOR` occurrences of
        anybody's mixed in) and under anybody's. The two tags themselves do not count as company; 0 where there is none.
        """
        parts = [
            self._agreement(tags[start : start + PAIRS], others[start : start + PAIRS])
            for start in range(0, len(tags), PAIRS)
        ]
        return np.concatenate([*parts, np.zeros(0)])

    def _agreement(self, tags: NDArray[np.int64], others: NDArray[np.int64]) -> NDArray[np.float64]:
        anybody = np.asarray(self.counts.sum(axis=0)).ravel()
        anybody = anybody / max(1.0, anybody.sum())  # (R,)
        own = sparse.coo_array(self.counts[tags])
        pair, column = own.coords
        met = self.reference[column]
        counted = (met != tags[pair]) & (met != others[pair])
        pair, column, seen = pair[counted], column[counted], own.data[counted]
        theirs = self.counts[others]
        total = np.asarray(theirs.sum(axis=1)).ravel() - _entries(theirs, self._columns(tags))
        beside = np.asarray(theirs[pair, column]).ravel()
        expected = anybody[column]
        bits = seen * np.log2((beside + PRIOR * expected) / ((total[pair] + PRIOR) * expected))
        return np.bincount(pair, weights=bits, minlength=len(tags)).astype(np.float64)

    def _columns(self, tags: NDArray[np.int64]) -> NDArray[np.int64]:
        """(k,) the column of each tag, -1 where it is no reference."""
        columns = np.full(self.counts.shape[0], -1)
        columns[self.reference] = np.arange(len(self.reference))
        return columns[tags]


def count_company(table: TagTable) -> Company:
    """The `Company` of the tags of ``table``.

    A record with thousands of tags costs at most `REFERENCE` times as many steps.

    >>> import pyarrow as pa
    >>> from wscl_adapters.tag_table import read_tags
    >>> table = read_tags(pa.chunked_array([["sun sea", "sun sea", "sun ski"]]))
    >>> table.tags, count_company(table).counts.toarray().tolist()
    (['sea', 'ski', 'sun'], [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 1.0]])
    """
    reference = np.argsort(-table.frequency, kind="stable")[:REFERENCE]
    weighted = sparse.csr_array(table.rows.multiply(table.counts.astype(np.float64)[:, None]))
    counts = sparse.csr_array(weighted.T @ sparse.csr_array(table.rows[:, reference]).astype(np.float64))
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    counts.data[rows == reference[counts.indices]] = 0
    counts.eliminate_zeros()
    return Company(counts, reference)


def _entries(matrix: sparse.csr_array, columns: NDArray[np.int64]) -> NDArray[np.float64]:
    """The entry of each row of ``matrix`` in its column, 0 where that is -1."""
    found = np.asarray(matrix[np.arange(matrix.shape[0]), columns]).ravel()
    return np.where(columns >= 0, found, 0.0)
