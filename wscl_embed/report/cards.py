"""What is said of each cluster, and which are shown first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wscl_embed.report.contents import ReportInput

HIGHLIGHTS = 4  # cards in each of the rows largest, purest, most confused
LEAST_SIZE = 5  # images a cluster needs to be among the purest or the most confused
PICTURES = 8  # on a card
CARD_PICTURES = 900  # on all cards together
ALL_PICTURES = 1_200  # with those that are shown on the map only
TOP_LABELS = 4


@dataclass(frozen=True)
class Card:
    """One cluster.

    ============ =====================================================================================
    ``block``    which of `ReportInput.blocks`
    ``column``   of the block's membership matrix
    ``rows``     of the dataset, its images
    ``purity``   the share of the commonest label among those that have one; None where none has
    ``entropy``  of its labels, in bits; None likewise
    ``labels``   the commonest labels, with how many images have each
    ============ =====================================================================================
    """

    block: str
    column: int
    name: str
    terms: list[str]
    rows: NDArray[np.int64]
    purity: float | None
    entropy: float | None
    labels: list[tuple[str, int]]

    @property
    def size(self) -> int:
        """How many images it has."""
        return len(self.rows)


def make_cards(given: ReportInput) -> list[Card]:
    """One card for each cluster that has an image, the largest first."""
    cards = []
    for title, block in given.blocks.items():
        by_cluster = block.membership.tocsc()
        for column, (name, terms) in enumerate(zip(block.table["name"], block.table["terms"], strict=True)):
            members = by_cluster.indices[by_cluster.indptr[column] : by_cluster.indptr[column + 1]]
            if len(members):
                rows = np.sort(given.trained_rows[members])
                mix = label_mix(given.label_codes[rows], given.label_names)
                cards.append(Card(title, column, str(name), [*map(str, terms)], rows, *mix))
    return sorted(cards, key=lambda card: -card.size)


def label_mix(
    codes: NDArray[np.int64], names: Sequence[str]
) -> tuple[float | None, float | None, list[tuple[str, int]]]:
    """Purity, entropy in bits and the commonest labels of some images; a negative code is no label.

    >>> label_mix(np.array([0, 0, 1, 1, -1]), ["cat", "dog"])
    (0.5, 1.0, [('cat', 2), ('dog', 2)])
    """
    counts = np.bincount(codes[codes >= 0], minlength=len(names))
    total = int(counts.sum())
    if not total:
        return None, None, []
    shares = counts[counts > 0] / total
    top = [int(code) for code in np.argsort(-counts, kind="stable")[:TOP_LABELS] if counts[code]]
    entropy = float(-(shares * np.log2(shares)).sum()) + 0.0
    return float(shares.max()), entropy, [(names[code], int(counts[code])) for code in top]


def highlights(cards: Sequence[Card]) -> dict[str, list[int]]:
    """Positions in ``cards`` of the ``largest``, the ``purest`` and the most ``confused`` clusters.

    The purest and the most confused are looked for among clusters of at least five images: a small one is pure by
    accident; of equally pure ones those that are not among the largest come first. Both are empty without labels.
    """
    largest = list(range(min(HIGHLIGHTS, len(cards))))
    judged = [place for place, card in enumerate(cards) if card.purity is not None and card.size >= LEAST_SIZE]
    purest = sorted(judged, key=lambda place: (-(cards[place].purity or 0), place in largest, place))
    confused = sorted(judged, key=lambda place: (-(cards[place].entropy or 0), place))
    return {
        "largest": largest,
        "purest": purest[:HIGHLIGHTS],
        "confused": [place for place in confused[:HIGHLIGHTS] if cards[place].entropy],
    }


def draw_pictures(
    cards: Sequence[Card], first: Sequence[int], n_images: int, seed: int
) -> tuple[list[list[int]], list[int]]:
    """Which images to show: the rows on each card, and all rows, of at most `ALL_PICTURES` images.

    Drawn at random from each cluster, so that they show what is in it. The cards ``first`` come first, then the
    larger ones; when `CARD_PICTURES` are used up the remaining cards go without. What is left is spread over all
    images, for the map.
    """
    rng = np.random.default_rng(seed)
    on_card: list[list[int]] = [[] for _ in cards]
    shown: dict[int, None] = {}
    for place in dict.fromkeys([*first, *range(len(cards))]):
        if len(shown) >= CARD_PICTURES:
            break
        count = min(PICTURES, cards[place].size)
        on_card[place] = rng.choice(cards[place].rows, count, replace=False).tolist()
        shown.update(dict.fromkeys(on_card[place]))
    for row in rng.permutation(n_images).tolist():
        if len(shown) >= ALL_PICTURES:
            break
        shown[row] = None
    return on_card, list(shown)
