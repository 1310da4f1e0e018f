"""A column of tags, in Arrow, to a sparse table of which records have which tags."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_embed.clusterers import collapse_rows
from wscl_embed.errors import InputError
from wscl_embed.terms import normalise_term

if TYPE_CHECKING:
    import pyarrow as pa

# A "#" that starts a keycap emoji is no hashtag.
SEPARATORS = re.compile(r"[\s,;|，、；،؛]+|[#＃](?!\ufe0f?\u20e3)")
MAX_TAGS = 10_000  # of a record; a million on one would be in company with each other a million million times
CHUNK = 65_536  # records held as Python objects at a time


@dataclass(frozen=True, eq=False)
class TagTable:
    """Which of n records have which of V tags, identical records held once.

    =========== ==========================================================================
    ``tags``    the V distinct normalised tags, in alphabetical order
    ``rows``    (u, V) CSR float32 of ones: the distinct sets of tags
    ``inverse`` (n,) int64: the row of each record
    ``counts``  (u,) int64: how many records have it
    =========== ==========================================================================
    """

    tags: list[str]
    rows: sparse.csr_array
    inverse: NDArray[np.int64]
    counts: NDArray[np.int64]

    @property
    def frequency(self) -> NDArray[np.int64]:
        """(V,) records with each tag."""
        return np.asarray(self.counts @ self.rows, dtype=np.int64)

    @property
    def n_tagged(self) -> int:
        """Records with a tag."""
        return int(self.counts[np.diff(self.rows.indptr) > 0].sum())

    def of_records(self) -> sparse.csr_array:
        """(n, V): the rows of all records."""
        return sparse.csr_array(self.rows[self.inverse])

    def select(self, kept: NDArray[np.bool_]) -> TagTable:
        """The table of the tags where ``kept`` (V,) is true."""
        tags = [tag for tag, keep in zip(self.tags, kept.tolist(), strict=True) if keep]
        return self.with_rows(self.rows[:, np.flatnonzero(kept)], tags)

    def with_rows(self, rows: sparse.csr_array, tags: list[str]) -> TagTable:
        """The same records with other tags: ``rows`` (u, V') in place of the present ones."""
        ones = sparse.csr_array(rows).astype(np.float32)
        ones.sum_duplicates()
        ones.data[:] = 1
        distinct, again, _ = collapse_rows(ones)
        inverse = again[self.inverse]
        counts = np.bincount(inverse, minlength=distinct.shape[0])
        return TagTable(tags, sparse.csr_array(distinct), inverse, counts.astype(np.int64))


def read_tags(column: pa.ChunkedArray) -> TagTable:
    """The table of a column with a list of tags or one string (``#Sun #Beach, summer``) a record.

    Each distinct spelling is normalised once (`wscl_embed.terms.normalise_term`), and one chunk of the records is held
    as Python objects at a time. Of a record's tags the first `MAX_TAGS` count.

    Raises:
        InputError: values that are neither, with the type they are of.

    >>> import pyarrow as pa
    >>> table = read_tags(pa.chunked_array([["#Sun #Beach, summer#sun", None, "beach summer sun"]]))
    >>> table.tags, table.inverse.tolist(), table.counts.tolist()
    (['beach', 'summer', 'sun'], [0, 1, 0], [2, 1])
    """
    codes_of: dict[str | None, int] = {None: -1}
    position: dict[str, int] = {"": -1}
    rows, columns, start = [], [], 0
    for chunk in _chunks(column):
        lengths, flat = _first_tags(*_flat_tags(chunk))
        encoded = flat.dictionary_encode()
        for raw in encoded.dictionary.to_pylist():
            if raw not in codes_of:
                codes_of[raw] = position.setdefault(normalise_term(raw), len(position) - 1)
        codes = np.array([codes_of[raw] for raw in encoded.dictionary.to_pylist()] or [-1], dtype=np.int64)
        columns.append(np.where(encoded.is_valid(), codes[encoded.indices.fill_null(0)], -1))
        rows.append(np.repeat(np.arange(start, start + len(chunk)), lengths))
        start += len(chunk)
    del position[""]
    tags = sorted(position)
    rank = np.empty(len(tags) + 1, dtype=np.int64)
    rank[[position[tag] for tag in tags]] = np.arange(len(tags))
    row, code = np.concatenate([*rows, []]).astype(np.int64), np.concatenate([*columns, []]).astype(np.int64)
    row, code = row[code >= 0], rank[code[code >= 0]]
    matrix = sparse.csr_array((np.ones(len(row), dtype=np.float32), (row, code)), shape=(start, len(tags)))
    whole = TagTable(tags, matrix, np.arange(start), np.ones(start, dtype=np.int64))
    return whole.with_rows(matrix, tags)


def split_tags(text: str) -> list[str]:
    """The tags of one string, as written.

    >>> split_tags("#Sun #Beach, summer#sun")
    ['Sun', 'Beach', 'summer', 'sun']
    """
    return [part for part in SEPARATORS.split(text) if part]


def _chunks(column: pa.ChunkedArray) -> Iterator[pa.Array]:
    for chunk in column.chunks:
        for start in range(0, len(chunk), CHUNK):
            yield chunk.slice(start, CHUNK)


def _first_tags(lengths: NDArray[np.int64], flat: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """What `_flat_tags` gives, without the tags of a record after its first `MAX_TAGS`."""
    if lengths.max(initial=0) <= MAX_TAGS:
        return lengths, flat
    place = np.arange(len(flat)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.minimum(lengths, MAX_TAGS), flat.take(np.flatnonzero(place < MAX_TAGS))


def _flat_tags(chunk: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    """How many raw tags each record of ``chunk`` has, and these one after the other, as strings."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kinds = pa.types
    if kinds.is_string(chunk.type) or kinds.is_large_string(chunk.type):
        chunk = pa.array(
            [None if text is None else split_tags(text) for text in chunk.to_pylist()], pa.list_(pa.string())
        )
    elif kinds.is_null(chunk.type):
        chunk = chunk.cast(pa.list_(pa.string()))
    is_list = kinds.is_list(chunk.type) or kinds.is_large_list(chunk.type) or kinds.is_fixed_size_list(chunk.type)
    if not is_list or kinds.is_nested(chunk.type.value_type):
        raise InputError(f"holds {chunk.type}; a list of tags or one string a record is needed.")
    lengths = np.asarray(pc.fill_null(pc.list_value_length(chunk), 0), dtype=np.int64)
    return lengths, chunk.flatten().cast(pa.string())
