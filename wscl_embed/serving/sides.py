"""`Side`: one of the embeddings that are searched side by side, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError

if TYPE_CHECKING:
    from wscl_embed.searching import Hit, Searcher


@dataclass(frozen=True)
class Answer:
    """What one side found: ``hits``, most similar first, or the ``problem`` that kept it from searching."""

    hits: list[Hit] = field(default_factory=list)
    problem: str = ""


@dataclass(frozen=True)
class Side:
    """One of the embeddings that are searched side by side.

    ============ ====================================================
    ``key``      ``before`` or ``after``
    ``title``    what the page calls it
    ``what``     by which encoder, in words
    ``searcher`` that searches it
    ============ ====================================================
    """

    key: str
    title: str
    what: str
    searcher: Searcher

    @cached_property
    def no_images(self) -> str:
        """Why it cannot be searched by images that are not among its own; empty where it can."""
        try:
            _ = self.searcher.queries.encoder
        except InputError as error:
            return str(error)
        return ""

    @cached_property
    def no_texts(self) -> str:
        """Why it cannot be searched by text; empty where it can."""
        if self.no_images:
            return self.no_images
        encoder = self.searcher.queries.encoder
        return "" if encoder.has_text_tower else f"The model {encoder.name} has no text tower: it is searched by image."

    def by_text(self, text: str, k: int, where: str | None) -> Answer:
        """The k images a text describes best."""
        if self.no_texts:
            return Answer(problem=self.no_texts)
        return Answer(self.searcher.by_text(text, k, where=where, columns=[]))

    def by_vector(self, vectors: Mapping[str, NDArray[np.float32]], k: int, where: str | None) -> Answer:
        """The k images nearest to this side's embedding of a query, of those of all sides by their keys."""
        if self.key not in vectors:
            return Answer(problem=self.no_images)
        return Answer(self.searcher.by_vector(vectors[self.key], k, where=where, columns=[]))

    def by_id(self, image_id: str, k: int, where: str | None) -> Answer:
        """The k images most like one of them, without itself."""
        if self.searcher.find_row(image_id) is None:
            return Answer(problem="This image is not among these embeddings.")
        return Answer(self.searcher.by_id(image_id, k, where=where, columns=[]))


@dataclass(frozen=True)
class Found:
    """A hit as a page shows it.

    ============ =======================================================================================
    ``rank``     from 1
    ``id``       of the image
    ``row``      of it in the embedding file of the run; None where it is not there
    ``score``    cosine similarity
    ``metadata`` values of the columns that are shown
    ``same``     whether its label is the query's; None where there is nothing to compare
    ``moved``    where the other side has it: its rank, 0 where it is not that far up; None without another
    ============ =======================================================================================
    """

    rank: int
    id: str
    row: int | None
    score: float
    metadata: dict[str, Any]
    same: bool | None = None
    moved: int | None = None


def with_moves(found: list[Found], before: Answer) -> list[Found]:
    """The same with the ranks they had before."""
    ranks = {hit.id: rank for rank, hit in enumerate(before.hits, 1)}
    return [replace(one, moved=ranks.get(one.id, 0)) for one in found]
