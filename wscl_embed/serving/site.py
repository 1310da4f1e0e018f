"""`Site`: what is served of a run, without a word of HTTP."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from wscl_embed.errors import InputError
from wscl_embed.searching.columns import cell_text
from wscl_embed.serving.asked import MAX_PAGE, Asked
from wscl_embed.serving.cluster_cards import ClusterCard, ClusterCards
from wscl_embed.serving.filters import both, column_kinds, condition, values_of
from wscl_embed.serving.pictures import Pictures, Upload, Uploads
from wscl_embed.serving.sides import Answer, Found, Side, with_moves

if TYPE_CHECKING:
    from pathlib import Path

PER_PAGE = 24  # images a side
BROWSED = 60
CARDS = 24
LONGEST_VALUE = 400  # characters


@dataclass(frozen=True)
class Results:
    """What a search found: a list of `Found` a side, or the ``problems`` that kept a side from searching."""

    found: dict[str, list[Found]]
    problems: dict[str, str]
    more: bool

    def same(self, key: str) -> int:
        """How many on this page have the query's label."""
        return sum(bool(one.same) for one in self.found[key])


@dataclass(frozen=True)
class Query:
    """What was searched by, to be shown: an image of the run, an upload, or a text."""

    title: str
    row: int | None = None
    upload: str = ""
    facts: Sequence[tuple[str, str]] = ()
    clusters: Sequence[ClusterCard] = ()


@dataclass(frozen=True)
class Browsed:
    """A page of images in the order of rows, or of a cluster: (row, id, values) each, of ``total``."""

    images: list[tuple[int, str, dict[str, Any]]]
    total: int
    more: bool
    cluster: ClusterCard | None = None


class Site:
    """A run, searched by one or two embeddings side by side.

    Args:
        name: what to call it.
        sides: the embeddings; the last one is the run's own, whose dataset has the images.
        clusters: the run's ``clusters.parquet``, where there is one.
        notices: what the page should say, such as why there is no other side.

    Raises:
        InputError: a dataset that cannot be opened, or is another one.
    """

    def __init__(self, name: str, sides: Sequence[Side], clusters: Path | None, notices: Sequence[str] = ()) -> None:
        self.name, self.sides, self.notices = name, tuple(sides), list(notices)
        self.searcher = sides[-1].searcher
        self.columns = self.searcher.columns
        self.kinds = column_kinds(self.columns.dataset)
        self.values = values_of(self.columns.dataset)
        self.pictures, self.uploads = Pictures(self.searcher), Uploads(sides)
        self.shown = self.searcher.default_columns
        self.label_column = next(iter(self.shown), None)
        self.token = secrets.token_hex(4)  # browsers keep pictures under addresses of this start alone
        self._clusters_file = clusters

    @cached_property
    def clusters(self) -> ClusterCards | None:
        """The clusters; None where the run has none."""
        from wscl_embed.clusters import Clusters

        if self._clusters_file is None or not self._clusters_file.is_file():
            return None
        cards = ClusterCards(Clusters.load(self._clusters_file), self.searcher.ids)
        return cards if len(cards) else None

    def condition(self, asked: Asked) -> str | None:
        """The SQL condition of a page.

        Raises:
            InputError: it cannot be evaluated.
        """
        filtered = condition(self.kinds, asked.column, asked.comparison, asked.value) if asked.column else ""
        where = both(asked.where, filtered)
        if asked.where and filtered:
            apart = self.columns.passing(asked.where) & self.columns.passing(filtered)
            if not np.array_equal(apart, self.columns.passing(str(where))):  # such as: true) OR (true
                raise InputError(f"{asked.where!r}: the brackets of the condition do not match.")
        return where

    def search(self, asked: Asked) -> Results:
        """A page of what each side finds.

        Raises:
            InputError: a condition that cannot be evaluated, or an image that is not there (any more).
        """
        where, k = self.condition(asked), PER_PAGE * asked.page
        answers = {side.key: self._answer(side, asked, k + 1, where) for side in self.sides}
        more = asked.page < MAX_PAGE and any(len(answer.hits) > k for answer in answers.values())
        cut = {key: Answer(answer.hits[:k], answer.problem) for key, answer in answers.items()}
        label = self._label(asked)
        found = {key: self._listed(answer, k - PER_PAGE, label) for key, answer in cut.items()}
        before, after = self.sides[0].key, self.sides[-1].key
        if before != after and cut[before].hits:
            found[after] = with_moves(found[after], cut[before])
        return Results(found, {key: one.problem for key, one in cut.items() if one.problem}, more)

    def _answer(self, side: Side, asked: Asked, k: int, where: str | None) -> Answer:
        if asked.text:
            return side.by_text(asked.text, k, where)
        if asked.image:
            return side.by_vector(self.upload(asked.image).vectors, k, where)
        self.searcher.row_of(asked.id)
        return side.by_id(asked.id, k, where)

    def _listed(self, answer: Answer, skipped: int, label: object) -> list[Found]:
        """The hits of an answer but for the first ``skipped``; ``label`` is the query's."""
        found = []
        for rank, hit in enumerate(answer.hits[skipped:], skipped + 1):
            row = self.searcher.find_row(hit.id)
            values = {} if row is None else self.columns.values(row, self.shown)
            same = None if label is None else values.get(str(self.label_column)) == label
            found.append(Found(rank, hit.id, row, hit.score, values, same))
        return found

    def upload(self, key: str) -> Upload:
        """An image that was searched by.

        Raises:
            InputError: it is not kept any more.
        """
        found = self.uploads.get(key)
        if found is None:
            raise InputError("This picture is not kept any more: only the last ones are, until the server ends.")
        return found

    def query(self, asked: Asked) -> Query:
        """What was searched by.

        Raises:
            InputError: an id that is not there.
        """
        if asked.id:
            row = self.searcher.row_of(asked.id)
            values = self.columns.values(row, self.columns.names)
            texts = [(name, cell_text(value)) for name, value in values.items() if name != "id"]
            facts = [(name, text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…") for name, text in texts]
            clusters = self.clusters.of_row(row) if self.clusters else []
            return Query(asked.id, row=row, facts=[fact for fact in facts if fact[1]], clusters=clusters)
        return Query("Your picture", upload=asked.image) if asked.image else Query(asked.text)

    def _label(self, asked: Asked) -> object:
        """The label of the image that is searched by; None where there is none."""
        if not asked.id or self.label_column is None:
            return None
        row = self.searcher.row_of(asked.id)
        return self.columns.values(row, [self.label_column])[self.label_column]

    def browse(self, asked: Asked) -> Browsed:
        """A page of images that meet the condition, of a cluster or of all.

        Raises:
            InputError: a condition that cannot be evaluated, or no such cluster.
        """
        where = self.condition(asked)
        card, rows = None, np.arange(len(self.searcher))
        if asked.cluster:
            number = int(asked.cluster) if re.fullmatch("[0-9]{1,9}", asked.cluster) else -1
            if self.clusters is None or not self.clusters.has(number):
                raise InputError(f"There is no cluster {asked.cluster!r}.")
            card, rows = self.clusters.card(number), self.clusters.rows(number)
        if where is not None:
            rows = rows[self.columns.passing(where)[rows]]
        first = BROWSED * (asked.page - 1)
        images = [
            (row, self.searcher.ids[row], self.columns.values(row, self.shown))
            for row in rows[first : first + BROWSED].tolist()
        ]
        return Browsed(images, len(rows), len(rows) > first + BROWSED, card)
