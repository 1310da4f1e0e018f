"""Words in one form, and the words that describe each cluster (class-based TF-IDF)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse

# What makes an emoji of a punctuation mark: variation selector 16 and the keycap, as in "#\ufe0f\u20e3".
EMOJI_SUFFIXES = ("\ufe0f", "\u20e3")
VARIATION_SELECTORS = ("\ufe0e", "\ufe0f")
JOINER = "\u200d"

HAN = re.compile("[\u3005-\u3007\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]+")
KANA = re.compile("[\u3041-\u309f]+|[\u30a1-\u30ff]+")
RUNS = re.compile(f"{HAN.pattern}|{KANA.pattern}|(?:(?!{HAN.pattern}|{KANA.pattern}).)+")


MAX_TERM = 1000  # characters; longer is no word, and bringing marks into order takes quadratic time


def normalise_term(text: str) -> str:
    """One form for what people write in several: a tag or a word in NFKC, casefolded, without surrounding punctuation.

    Emoji (with the joiners inside them), combining marks, inner hyphens and underscores stay; runs of white space
    become one space. Invisible characters that tell no two words apart go: joiners and direction marks between letters,
    soft hyphens, and the variation selectors after a symbol. What holds no letter, digit or symbol becomes the empty
    string, and so does what is longer than `MAX_TERM`. Idempotent.

    >>> [normalise_term(text) for text in ("#Sun!", "ＢＥＡＣＨ", "_rock-n-roll_", "हिन्दी", "❤️", "#️⃣", "--")]
    ['sun', 'beach', 'rock-n-roll', 'हिन्दी', '❤', '#️⃣', '']
    >>> [normalise_term(text) for text in ("sun\\u200dset", "\\u200fשמש")]
    ['sunset', 'שמש']
    """
    return _normalise(text) if len(text) <= MAX_TERM else ""


@lru_cache(maxsize=1 << 17)
def _normalise(text: str) -> str:
    if text.isascii() and text.isalnum():
        return text.lower()
    term = _fold(" ".join(text.split()))
    while term != text:
        text, term = term, _fold(" ".join(term.split()))
    start, end = 0, len(term)
    while start < end and _is_edge(term[start], leading=True) and not _begins_emoji(term, start):
        start += 1
    while end > start and _is_edge(term[end - 1]):
        end -= 1
    return term[start:end]


def _fold(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return folded if folded.isascii() else _visible(folded)


def _visible(text: str) -> str:
    """``text`` without the invisible characters that tell no two words apart."""
    kept: list[str] = []
    for char, following in zip(text, f"{text[1:]} ", strict=True):
        after_symbol = bool(kept) and unicodedata.category(kept[-1])[0] == "S"
        if char in VARIATION_SELECTORS:
            invisible = after_symbol  # elsewhere it makes an emoji of a letter or a digit
        elif char == JOINER:
            invisible = not (after_symbol and unicodedata.category(following)[0] == "S")
        else:
            invisible = unicodedata.category(char) == "Cf" and not _spells_flag(char)
        if not invisible:
            kept.append(char)
    return "".join(kept)


def _spells_flag(char: str) -> bool:
    """Whether ``char`` is one of the invisible letters in the emoji of a regional flag."""
    return "\U000e0020" <= char <= "\U000e007f"


def _begins_emoji(text: str, place: int) -> bool:
    """Whether the punctuation mark at ``place`` is made an emoji by what follows it."""
    return unicodedata.category(text[place])[0] == "P" and text[place + 1 : place + 2] in EMOJI_SUFFIXES


def _is_edge(char: str, *, leading: bool = False) -> bool:
    """Whether ``char`` is stripped at an end: punctuation, separators, controls; at the front also marks, which have
    lost their letter. The invisible letters that spell regional flags end those emoji and stay."""
    if _spells_flag(char):
        return leading
    kind = unicodedata.category(char)
    return kind[0] in ("PZM" if leading else "PZ") or kind in ("Cc", "Cf")


def words(text: str) -> list[str]:
    """The words of ``text``, as `normalise_term` writes them; single letters are left out.

    Chinese and Japanese put no spaces between words: there runs of one script stand for words, those of more than two
    Chinese characters as overlapping pairs, which is how search engines index them.

    >>> words("Nike Women's T-Shirt, a white one")
    ['nike', "women's", 't-shirt', 'white', 'one']
    >>> words("赤いカメラと海、一只黑猫")
    ['赤', 'カメラ', '海', '一只', '只黑', '黑猫']
    """
    terms = (part for term in map(normalise_term, text.split()) for part in _unspaced(term))
    return [term for term in terms if len(term) > 1 or HAN.fullmatch(term)]


def _unspaced(term: str) -> list[str]:
    """``term``, or what stands for words in a run of Chinese or Japanese."""
    if term.isascii() or (not HAN.search(term) and not KANA.search(term)):
        return [term]
    parts: list[str] = []
    for run in filter(None, map(normalise_term, RUNS.findall(term))):
        pairs = len(run) > 2 and HAN.fullmatch(run)
        parts += [run[start : start + 2] for start in range(len(run) - 1)] if pairs else [run]
    return parts


def describing_terms(tokens: Sequence[Sequence[str]], labels: NDArray[np.int64], *, top: int = 5) -> list[list[str]]:
    """The ``top`` terms of each cluster by class-based TF-IDF; see `describing_columns`.

    Args:
        tokens: n lists of terms, one a record; a term may occur several times in it.
        labels: (n,) cluster of each record, 0..K-1; records of negative label (noise) are left out.

    >>> describing_terms([["sun", "sea"], ["sun"], ["snow", "sea"]], np.array([0, 0, 1]), top=1)
    [['sun'], ['snow']]
    """
    from scipy import sparse

    position: dict[str, int] = {}
    columns = [position.setdefault(term, len(position)) for record in tokens for term in record]
    ends = np.cumsum([0, *map(len, tokens)])
    counts = sparse.csr_array((np.ones(len(columns)), columns, ends), shape=(len(tokens), len(position)))
    return describing_columns(counts, list(position), labels, top=top)


def describing_columns(
    counts: sparse.csr_array, terms: Sequence[str], labels: NDArray[np.int64], *, top: int = 5
) -> list[list[str]]:
    """The ``top`` terms of each cluster by class-based TF-IDF.

    The weight of term t in cluster c is (share of t among the tokens of c) * log(1 + A / f_t), with A the mean number
    of tokens a cluster and f_t the number of t in all clusters. Equal weights stand in alphabetical order.

    Args:
        counts: (n, V) CSR, how often each record has each term.
        terms: the V terms.
        labels: (n,) cluster of each record, 0..K-1; records of negative label (noise) are left out.
    """
    from scipy import sparse

    k = int(labels.max(initial=-1)) + 1
    present = np.flatnonzero(labels >= 0)
    shape = (k, counts.shape[0])
    one_hot = sparse.csr_array((np.ones(len(present)), (labels[present], present)), shape=shape)
    totals = sparse.csr_array(one_hot @ counts)  # (K, V)
    if not totals.nnz:
        return [[] for _ in range(k)]
    frequency = totals.sum(axis=0)
    rarity = np.log1p(frequency.sum() / k / np.maximum(frequency, 1))
    order = np.empty(len(terms), dtype=np.int64)
    order[sorted(range(len(terms)), key=terms.__getitem__)] = np.arange(len(terms))
    described = []
    for a, b in zip(totals.indptr[:-1], totals.indptr[1:], strict=True):
        columns = totals.indices[a:b]
        # The share divides by a constant of the cluster, so it leaves the order as it is.
        weights = totals.data[a:b] * rarity[columns]
        described.append([terms[column] for column in columns[np.lexsort((order[columns], -weights))[:top]]])
    return described
