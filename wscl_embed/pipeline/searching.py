"""`search` and `index`, over runs and embedding files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from wscl_embed.errors import InputError
from wscl_embed.progress import say
from wscl_embed.run import check_place

if TYPE_CHECKING:
    import datasets
    from numpy.typing import NDArray

    from wscl_embed.searching import Hit, Searcher
    from wscl_embed.searching.building import IndexReport

MAX_TEXTS = 1000


def search(
    source: str | Path,
    *,
    image: str | Path | None = None,
    text: str | None = None,
    k: int = 10,
    where: str | None = None,
    columns: Sequence[str] | None = None,
    data: str | Path | datasets.Dataset | None = None,
    model: str | None = None,
    pretrained: str | None = None,
    exact: bool = False,
    sheet: str | Path | None = None,
    overwrite: bool = False,
) -> list[Hit]:
    """The k images most like an image or a text; `wscl_embed.Searcher` opens once what is searched often.

    Args:
        source: the directory `fit` wrote, or an embedding file.
        image, text: the query, one of them.
        k: how many; fewer where no more meet ``where``.
        where: an SQL condition on the dataset's columns.
        columns: those whose values come with each hit. Default: the run's label column.
        data: the dataset. Default: the one the run's config names.
        model, pretrained: what an embedding file was made with.
        exact: look at every row, also where there is an index.
        sheet: write a picture of the hits to this PNG.
        overwrite: replace ``sheet``.

    Returns:
        Most similar first.

    Raises:
        InputError: wrong use or bad input; no picture is written then.
    """
    from wscl_embed.pipeline.places import check_file
    from wscl_embed.searching import Searcher

    if (image is None) == (text is None):
        raise InputError("give --image or --text, one of them.")
    if sheet is not None:
        if Path(sheet).suffix.lower() != ".png":
            raise InputError(f"--sheet {sheet}: it is a PNG; let its name end so.")
        check_file(Path(sheet), overwrite)
    with Searcher(source, model=model, pretrained=pretrained, data=data, exact=exact) as searcher:
        if sheet is not None:
            searcher.columns.check(columns or ())  # opens the dataset: said now, not after the search
        if text is not None:
            hits = searcher.by_text(text, k, where=where, columns=columns)
        else:
            hits = searcher.by_image(Path(str(image)), k, where=where, columns=columns)
        if sheet is not None:
            from wscl_embed.searching.sheet import write_search_sheet

            words = [text or Path(str(image)).name, *([f"where {where}"] if where else [])]
            query = None if image is None else Path(image)
            write_search_sheet(sheet, searcher, "   ".join(words), query, hits)
    return hits


def index(
    source: str | Path,
    *,
    kind: Literal["auto", "hnsw", "ivf"] = "auto",
    recall: float = 0.95,
    caption_column: str | None = None,
    data: str | Path | datasets.Dataset | None = None,
    model: str | None = None,
    pretrained: str | None = None,
) -> IndexReport:
    """Build an approximate index beside an embedding file, for `search`; replaces the one that is there.

    Args:
        source: the directory `fit` wrote, or an embedding file.
        kind: ``hnsw`` is a graph, ``ivf`` inverted lists; ``auto`` chooses by the number of rows, and builds nothing
            (and removes an index) where exact search takes milliseconds.
        recall: the recall@10 against exact search to reach, for all kinds of queries measured.
        caption_column: texts of the dataset to measure text queries with, where the model has a text tower. Default:
            those embedded in the file, or the run's.
        data, model, pretrained: as `search`.

    Returns:
        What was built, and its recall and speed against exact search.

    Raises:
        InputError: wrong use or bad input, or faiss is not installed; an index that was there stays then.
    """
    from wscl_embed.searching import Searcher
    from wscl_embed.searching.building import IndexReport, build, choose_kind, exact_milliseconds
    from wscl_embed.searching.index_file import index_path, remove_index

    if not 0 < recall <= 1:
        raise InputError(f"--recall must lie between 0 and 1, got {recall}.")
    with Searcher(source, model=model, pretrained=pretrained, data=data, exact=True) as searcher:
        chosen = choose_kind(kind, len(searcher))
        if chosen == "exact":
            if remove_index(searcher.store.path):
                say(f"removed {index_path(searcher.store.path)}", "yellow")
            return IndexReport("exact", len(searcher), recall, exact_milliseconds(searcher.store))
        check_place(index_path(searcher.store.path))
        built, report = build(searcher.store, chosen, recall, _texts(searcher, caption_column))
        built.save(searcher.store, report.recall)
        return report


def _texts(searcher: Searcher, caption_column: str | None) -> NDArray[np.float32] | None:
    """(m, D) embeddings of some captions: those in the file, else by the text tower; None where there are none."""
    from wscl_embed.captions import distinct_captions

    store = searcher.store
    if store.text_embeddings is not None and caption_column in (None, store.attributes.get("caption_column")):
        rows = np.flatnonzero(store.has_text)  # type: ignore[arg-type]
        return store.text_embeddings[rows[:: max(1, -(-len(rows) // MAX_TEXTS))]].astype(np.float32)
    column = caption_column or searcher.config.get("caption_column")
    if column is None:
        return None
    searcher.columns.check([column])
    captions, _ = distinct_captions(searcher.columns.dataset, column)
    step = -(-len(captions) // MAX_TEXTS)
    return searcher.queries.texts(captions[::step])
