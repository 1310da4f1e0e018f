"""`Searcher`: a run or an embedding file, opened once and searched many times."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wscl_embed.config import read_config
from wscl_embed.errors import InputError
from wscl_embed.progress import say
from wscl_embed.run import Run
from wscl_embed.searching.columns import ImageColumns
from wscl_embed.searching.index_file import StaleIndexError, VectorIndex
from wscl_embed.searching.queries import QueryEncoder
from wscl_embed.store import EmbeddingStore
from wscl_embed.store.exact import check_k, nearest
from wscl_embed.store.unit import unit_query

if TYPE_CHECKING:
    import datasets
    from PIL.Image import Image

    from wscl_embed.encoder import Encoder


@dataclass(frozen=True)
class Hit:
    """An image that was found.

    ============ =============================================
    ``id``       its id
    ``score``    cosine similarity to the query
    ``row``      its row in the embedding file
    ``metadata`` its values of the columns that were asked for
    ============ =============================================
    """

    id: str
    score: float
    row: int
    metadata: dict[str, Any]


class Searcher:
    """Finds images by image, by text, or by another's id.

    Opened once; encoder, dataset and ids are loaded when they are first needed. Several threads may search at once.
    Queries with a condition look at every row that meets it; others go through the index `wscl_embed.pipeline.index`
    built, where there is one and it belongs to these embeddings.

    Example::

        with Searcher("runs/photos") as searcher:
            for hit in searcher.by_text("red dress", 5, where="label == 'Dresses'"):
                print(f"{hit.score:.3f}", hit.id, hit.metadata)
    """

    def __init__(
        self,
        source: str | Path,
        *,
        model: str | Encoder | None = None,
        pretrained: str | None = None,
        data: str | Path | datasets.Dataset | None = None,
        device: str = "cpu",
        exact: bool = False,
    ) -> None:
        """Open a run, or an embedding file.

        Args:
            source: the run's folder, or the file.
            model, pretrained: what the file was made with, as `wscl_embed.load_encoder` takes it, or that encoder.
                Default: the run's.
            data: the dataset with the images and their columns. Default: the one the run's config names.
            device: for the encoder; one query takes longer to a GPU and back than on the CPU.
            exact: look at every row, also where there is an index.

        Raises:
            InputError: no such run or file.
        """
        self.source = Path(source)
        if not self.source.exists():
            raise InputError(f"{source}: there is no such run or embedding file.")
        run = Run(self.source) if self.source.is_dir() else None
        if run is not None and not run.embeddings.is_file():
            raise InputError(f"{source}: there is no embeddings.h5 in this folder, so no run to search.")
        self.config = read_config(run.config) if run is not None and run.config.is_file() else {}
        self.store = EmbeddingStore(run.embeddings if run is not None else self.source)
        self.queries = QueryEncoder(self.store, model or (None if run is None else str(run.model)), pretrained, device)
        self.index = None if exact else self._open_index()
        self._data = self.config.get("data") if data is None else data
        self._moved = "" if data is not None else " The run was made from there; --data says where it is now."
        self._lock = RLock()

    def __enter__(self) -> Searcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.store)

    def close(self) -> None:
        """Close the embedding file."""
        self.store.close()

    def by_image(
        self,
        image: bytes | str | Path | Image,
        k: int = 10,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The images most like one.

        Args:
            image: a file, its content, or a decoded image.
            k: how many; fewer where there are no more.
            where: an SQL condition on the dataset's columns: only images that meet it.
            columns: whose values come with each hit. Default: `default_columns`.

        Returns:
            Most similar first.

        Raises:
            InputError: an image that cannot be decoded, a column that is not there, a condition that does not parse, no
                dataset to take columns from, or an encoder that did not make the embeddings.
        """
        self.check(where, columns)
        return self.by_vector(self.queries.image(image), k, where=where, columns=columns)

    def by_text(
        self, text: str, k: int = 10, *, where: str | None = None, columns: Sequence[str] | None = None
    ) -> list[Hit]:
        """The images a text describes best, as `by_image`.

        Raises:
            InputError: as `by_image`; an empty text, or a model without a text tower.
        """
        self.check(where, columns)
        return self.by_vector(self.queries.texts([text])[0], k, where=where, columns=columns)

    def by_id(
        self, image_id: str, k: int = 10, *, where: str | None = None, columns: Sequence[str] | None = None
    ) -> list[Hit]:
        """The images most like one of the embedded images, without itself, as `by_image`. Needs no encoder.

        Raises:
            InputError: as `by_image`; an id that is not there.
        """
        check_k(k)
        row = self.row_of(image_id)
        vector = np.asarray(self.store.embeddings[row])
        found = self.by_vector(vector, k + 1, where=where, columns=columns)
        return [hit for hit in found if hit.row != row][:k]

    def by_vector(
        self,
        vector: ArrayLike,
        k: int = 10,
        *,
        where: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> list[Hit]:
        """The images nearest to an embedding (D,), as `by_image`.

        Raises:
            InputError: as `by_image`; a vector of another dimension or one that is not finite, or ``k`` below 1.
        """
        query = unit_query(vector, self.store.embeddings.shape[1], self.store.path)
        check_k(k)
        self.check(where, columns)
        shown = self.default_columns if columns is None else columns
        found = self._nearest(query[None], k, where)
        ids = self.store.ids_of([row for _, row in found])
        return [
            Hit(image_id, score, row, self.columns.values(row, shown) if shown else {})
            for image_id, (score, row) in zip(ids, found, strict=True)
        ]

    def check(self, where: str | None = None, columns: Sequence[str] | None = None) -> None:
        """See that a condition can be evaluated and columns are there, before anything slow.

        Raises:
            InputError: as `by_image`.
        """
        if where is not None:
            self.columns.passing(where)
        if columns:
            self.columns.check(columns)

    def _nearest(self, query: NDArray[np.float32], k: int, where: str | None) -> list[tuple[float, int]]:
        """Scores and rows."""
        if self.index is not None and where is None:
            scores, rows = self.index.search(query, min(k, len(self)))
            if (rows >= 0).all():
                return list(zip(scores[0].tolist(), rows[0].tolist(), strict=True))
        passing = None if where is None else self.columns.passing(where)
        scores, rows = nearest(query, self.store.embeddings, k, passing=passing)
        return list(zip(scores[0].tolist(), rows[0].tolist(), strict=True))

    def find_row(self, image_id: str) -> int | None:
        """The row of an id; None where it is not there."""
        with self._lock:
            return self._row_of.get(image_id)

    def row_of(self, image_id: str) -> int:
        """The row of an id.

        Raises:
            InputError: it is not there (names the nearest, where comparing with all takes no time).
        """
        row = self.find_row(image_id)
        if row is None:
            close = difflib.get_close_matches(image_id, self.ids, n=1) if len(self) <= 10_000 else []
            guess = f" Did you mean {close[0]!r}?" if close else ""
            raise InputError(f"{self.store.path} has no image {image_id!r}.{guess}")
        return row

    @property
    def ids(self) -> list[str]:
        """The N ids."""
        with self._lock:
            return self._ids

    @property
    def columns(self) -> ImageColumns:
        """What the dataset knows about the images.

        Raises:
            InputError: no dataset is named, or it cannot be opened.
        """
        with self._lock:
            return self._columns

    @property
    def default_columns(self) -> list[str]:
        """The column the run was scored by, where its dataset still has it."""
        with self._lock:
            return self._default_columns

    @cached_property
    def _ids(self) -> list[str]:
        return self.store.ids

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {image_id: row for row, image_id in enumerate(self.ids)}

    @cached_property
    def _columns(self) -> ImageColumns:
        from wscl_embed.dataset import as_dataset

        if self._data is None:
            raise InputError(f"{self.source}: --data must say where the images and their columns are.")
        if not isinstance(self._data, (str, Path)):
            return ImageColumns(as_dataset(self._data), self.ids, "the dataset")
        try:
            return ImageColumns(as_dataset(self._data), self.ids, str(self._data))
        except InputError as error:
            raise InputError(f"{error}{self._moved}") from error

    @cached_property
    def _default_columns(self) -> list[str]:
        label = self.config.get("label_column")
        if label is None:
            return []
        try:
            return [label] if label in self.columns.names else []
        except InputError as error:  # nobody asked for it
            say(f"the column {label} is not shown: {error}", "yellow")
            return []

    def _open_index(self) -> VectorIndex | None:
        try:
            return VectorIndex.open(self.store)
        except StaleIndexError as error:
            advice = f"Searching exactly; `wscl-embed index {self.source}` builds it anew."
            say(f"{error} {advice}", "yellow")
            return None
