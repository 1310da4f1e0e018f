"""Words in one form, and the words that describe each cluster (class-based TF-IDF)."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# What makes an emoji of a punctuation mark: variation selector 16 and the keycap, as in "#\ufe0f\u20e3".
EMOJI_SUFFIXES = ("\ufe0f", "\u20e3")


@lru_cache(maxsize=1 << 17)
def normalise_term(text: str) -> str:
    """One form for what people write in several: a tag or a word in NFKC, casefolded, without surrounding punctuation.

    Emoji (with their joiners and variation selectors), combining marks, inner hyphens and underscores stay; runs of
    white space become one space. What holds no letter, digit or symbol becomes the empty string. Idempotent.

    >>> [normalise_term(text) for text in ("#Sun!", "ＢＥＡＣＨ", "_rock-n-roll_", "हिन्दी", "❤️", "#️⃣", "--")]
    ['sun', 'beach', 'rock-n-roll', 'हिन्दी', '❤️', '#️⃣', '']
    """
    term = _fold(" ".join(text.split()))
    while term != text:
        text, term = term, _fold(" ".join(term.split()))
    start, end = 0, len(term)
    while start < end and _is_edge(term[start], leading=True) and term[start + 1 : start + 2] not in EMOJI_SUFFIXES:
        start += 1
    while end > start and _is_edge(term[end - 1]):
        end -= 1
    return term[start:end]


def _fold(text: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _is_edge(char: str, *, leading: bool = False) -> bool:
    """Whether ``char`` is stripped at an end: punctuation, separators, controls; at the front also marks, which have
    lost their letter. The invisible letters that spell regional flags end those emoji and stay."""
    if "\U000e0020" <= char <= "\U000e007f":
        return leading
    kind = unicodedata.category(char)
    return kind[0] in ("PZM" if leading else "PZ") or kind in ("Cc", "Cf")


def words(text: str) -> list[str]:
    """The words of ``text``, as `normalise_term` writes them; single characters are left out.

    >>> words("Nike Women's T-Shirt, a white one")
    ['nike', "women's", 't-shirt', 'white', 'one']
    """
    return [term for term in map(normalise_term, text.split()) if len(term) > 1]


def describing_terms(tokens: Sequence[Sequence[str]], labels: NDArray[np.int64], *, top: int = 5) -> list[list[str]]:
    """The ``top`` terms of each cluster by class-based TF-IDF.

    The weight of term t in cluster c is (share of t among the tokens of c) * log(1 + A / f_t), with A the mean number
    of tokens a cluster and f_t the number of t in all clusters. Equal weights stand in alphabetical order.

    Args:
        tokens: n lists of terms, one a record.
        labels: (n,) cluster of each record, 0..K-1; records of negative label (noise) are left out.

    >>> describing_terms([["sun", "sea"], ["sun"], ["snow", "sea"]], np.array([0, 0, 1]), top=1)
    [['sun'], ['snow']]
    """
    from scipy import sparse

    k = int(labels.max(initial=-1)) + 1
    pairs = [
        (label, term) for label, record in zip(labels.tolist(), tokens, strict=True) if label >= 0 for term in record
    ]
    if not pairs:
        return [[] for _ in range(k)]
    vocabulary = sorted({term for _, term in pairs})
    position = {term: column for column, term in enumerate(vocabulary)}
    rows = np.array([label for label, _ in pairs])
    columns = np.array([position[term] for _, term in pairs])
    counts = sparse.csr_array((np.ones(len(pairs)), (rows, columns)), shape=(k, len(vocabulary)))
    rarity = np.log1p(len(pairs) / k / counts.sum(axis=0))
    described = []
    for a, b in zip(counts.indptr[:-1], counts.indptr[1:], strict=True):
        # The share divides by a constant of the cluster, so it leaves the order as it is.
        weights = counts.data[a:b] * rarity[counts.indices[a:b]]
        best = np.lexsort((counts.indices[a:b], -weights))[:top]
        described.append([vocabulary[column] for column in counts.indices[a:b][best]])
    return described
