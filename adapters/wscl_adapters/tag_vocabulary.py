"""One tag for what is written in several ways, and the words in tags written together. All from the tags themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from wscl_adapters.tag_company import count_company
from wscl_adapters.tag_table import TagTable

SEPARATORS = str.maketrans("", "", " -_'’·")
PLURALS = (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"))
SHORTEST = 3  # letters of a singular, and of a word in a compound
SHORTEST_VARIANT = 6  # letters from which on one inner letter more is a spelling, not another word
LONGEST = 40  # letters of what is looked at for other spellings, and for words in it
AGREES = 1.0  # bits of company that make two forms one tag; below, as for glasses and glass, they stay two
TIMES = 10  # a word in a compound occurs so many times as often as the compound


def merge_variants(table: TagTable) -> TagTable:
    """The tags of ``table`` with spellings of one tag under the most frequent of them.

    ``new-york``, ``new_york`` and ``newyork`` are one. Plurals, and words of `SHORTEST_VARIANT` letters or more that
    differ by one inner letter (``colour``, ``traveller``), are one when both occur and their company agrees
    (`Company.agreement` over `AGREES`).

    >>> import pyarrow as pa
    >>> from wscl_adapters.tag_table import read_tags
    >>> records = ["sunset sea"] * 3 + ["sunsets sea"] * 2 + ["ski snow"] * 9 + ["new-york", "newyork"]
    >>> merge_variants(read_tags(pa.chunked_array([records]))).tags
    ['newyork', 'sea', 'ski', 'snow', 'sunset']
    """
    frequency = table.frequency.tolist()
    order = sorted(range(len(frequency)), key=lambda column: (-frequency[column], len(table.tags[column]), column))
    position = {table.tags[column]: rank for rank, column in enumerate(order)}
    joined: dict[str, int] = {}
    form = np.array([joined.setdefault(tag.translate(SEPARATORS), rank) for tag, rank in position.items()], dtype=int)
    found = {
        (max(rank, position[other]), min(rank, position[other]))
        for tag, rank in position.items()
        for other in _variants(tag)
        if other in position
    }
    # A form only ever becomes one of lower rank, so chains end; of several, the most frequent.
    pairs = np.array(sorted(found, reverse=True), dtype=np.int64).reshape(-1, 2)
    column_of = np.array(order, dtype=np.int64)
    agreement = count_company(table).agreement(column_of[pairs[:, 0]], column_of[pairs[:, 1]])
    agreeing = pairs[agreement > AGREES]
    form[agreeing[:, 0]] = agreeing[:, 1]
    while (form[form] != form).any():
        form = form[form]
    to = np.empty_like(column_of)
    to[column_of] = column_of[form]
    return _mapped(table, to)


def add_words(table: TagTable) -> TagTable:
    """The tags of ``table``, and to rare ones written together the words in them: ``sunset`` to ``sunsetbeach``.

    Words are other tags of `SHORTEST` letters or more that occur `TIMES` times as often as the whole, the split the
    most probable one if tags were drawn by their frequency (a unigram model). Where the company of the whole speaks
    against a word (`Company.agreement` < 0), as against ``car`` and ``pet`` in ``carpet``, that word is left out.

    >>> import pyarrow as pa
    >>> from wscl_adapters.tag_table import read_tags
    >>> table = add_words(read_tags(pa.chunked_array([["sunset", "beach"] * 10 + ["sunsetbeach"]])))
    >>> [table.tags[column] for column in table.rows[[-1]].indices]
    ['beach', 'sunset', 'sunsetbeach']
    """
    frequency = table.frequency
    known = {
        tag: (column, int(frequency[column]))
        for column, tag in enumerate(table.tags)
        if frequency[column] >= TIMES and len(tag) >= SHORTEST and tag.isalpha()
    }
    total = int(frequency.sum())
    found = [
        (column, word)
        for column, tag in enumerate(table.tags)
        if 2 * SHORTEST <= len(tag) <= LONGEST and tag.isalpha()
        for word in split_compound(tag, known, at_least=TIMES * int(frequency[column]), total=total)
    ]
    if not found:
        return table
    compounds, words = np.array(found, dtype=np.int64).T
    agreeing = count_company(table).agreement(compounds, words) >= 0
    size = len(table.tags)
    entries = (np.ones(int(agreeing.sum())), (compounds[agreeing], words[agreeing]))
    parts = sparse.csr_array(entries, shape=(size, size))
    return table.with_rows(sparse.csr_array(table.rows + table.rows @ parts), table.tags)


def split_compound(tag: str, known: Mapping[str, tuple[int, int]], *, at_least: int, total: int) -> list[int]:
    """The columns of the words ``tag`` is most probably made of, each in ``at_least`` records; none if there are none.

    Args:
        known: column and frequency of each word.
        total: occurrences of all tags.

    >>> known = {"sun": (0, 90), "set": (1, 20), "sunset": (2, 30), "beach": (3, 50)}
    >>> split_compound("sunsetbeach", known, at_least=10, total=190)
    [2, 3]
    >>> split_compound("sunsetbeach", known, at_least=40, total=190)
    []
    """
    best: list[tuple[float, list[int]] | None] = [(0.0, []), *(None for _ in tag)]  # of each beginning of the tag
    for end in range(SHORTEST, len(tag) + 1):
        for start in range(end - SHORTEST + 1):
            before = best[start]
            if before is None:
                continue
            column, count = known.get(tag[start:end], (-1, 0))
            if count < at_least:
                continue
            score = before[0] + math.log(count / total)
            reached = best[end]
            if reached is None or score > reached[0]:
                best[end] = (score, [*before[1], column])
    whole = best[-1]
    return [] if whole is None else whole[1]


def _variants(tag: str) -> Iterator[str]:
    """What ``tag`` would be as a singular, or with one inner letter less."""
    for ending, singular in PLURALS:
        if tag.endswith(ending) and len(tag) - len(ending) + len(singular) >= SHORTEST:
            yield tag.removesuffix(ending) + singular
    if SHORTEST_VARIANT <= len(tag) <= LONGEST and tag.isalpha():
        for inner in range(1, len(tag) - 1):
            yield tag[:inner] + tag[inner + 1 :]


def _mapped(table: TagTable, to: NDArray[np.int64]) -> TagTable:
    """``table`` with each tag written as the one whose column ``to`` (V,) says."""
    kept, column = np.unique(to, return_inverse=True)
    if len(kept) == len(to):
        return table
    moved = sparse.csr_array((table.rows.data, column[table.rows.indices], table.rows.indptr), shape=table.rows.shape)
    return table.with_rows(sparse.csr_array(moved[:, : len(kept)]), [table.tags[end] for end in kept.tolist()])
