"""`evaluate`: how good the embeddings in a file are, alone or against those in another."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.captions import known_captions
from wscl_embed.config import make_config
from wscl_embed.errors import InputError
from wscl_embed.store import EmbeddingStore, TextRows

if TYPE_CHECKING:
    import datasets

BANK_SPLIT = "train"
READ_ROWS = 65_536


def evaluate(
    embeddings: str | Path,
    data: str | Path | datasets.Dataset,
    label_column: str | None = None,
    *,
    caption_column: str | None = None,
    split: str | None = "test",
    before: str | Path | None = None,
    max_queries: int | None = None,
) -> dict[str, Any]:
    """Score an embedding file by labels, captions or both, alone or against another file over the same images.

    Args:
        embeddings: an HDF5 file, or a run.
        data: the images it was made from, for their labels and captions.
        label_column: the column of labels: image-to-image retrieval, and, where the file holds a split ``train``
            besides, what nearest neighbours and a linear classifier learn from its labels.
        caption_column: the column of captions: their embeddings in the file, where it has those of the same captions,
            else what the text tower of the run ``embeddings`` makes of them.
        split: score this split only; None: all images. Where the data has no column ``split``, the test split of a
            run is the one `fit` held out by a hash of the ids.
        before: the embedding file to compare with.
        max_queries: so many images query, drawn at random, and all are searched: exact search takes time with the
            square of the images otherwise.

    Returns:
        As in ``metrics.json``: ``split``, ``label_column``, ``caption_column``, ``n_queries``, ``n_skipped``, ``after``
        and, with ``before``, ``before``, ``change`` and ``verdict``.

    Raises:
        InputError: wrong use or bad input.

    Example::

        scores = wscl_embed.evaluate("runs/photos", "photos/", "category")
        print(scores["after"]["recall@1"], scores["n_queries"])
    """
    from wscl_embed import stages

    if label_column is None and caption_column is None:
        raise InputError("nothing to score by: name a --label-column or a --caption-column.")
    if max_queries is not None and max_queries < 1:
        raise InputError(f"--max-queries must be at least 1, got {max_queries}.")
    dataset = stages.open_split(data, None, images=False)
    if split is not None:
        dataset = _with_splits(dataset, Path(embeddings))
    stages.check_column(dataset, "label_column", label_column)
    stages.check_column(dataset, "caption_column", caption_column)
    files = [Path(embeddings), *([] if before is None else [Path(before)])]
    held = set.intersection(*(_ids_in(path) for path in files))
    dataset, rows, bank = _scored_and_bank(dataset, split, held)
    _check_any(rows, files, held, split)
    scored = stages.evaluation_set(
        lambda captions: _encode(Path(embeddings), captions),
        dataset,
        rows,
        label_column=label_column,
        caption_column=caption_column,
        bank=bank,
        most=max_queries,
    )
    ids = dataset["id"][:]
    after, *frozen = (_read_rows(path, ids) for path in files)
    return {
        "split": split,
        "label_column": label_column,
        "caption_column": caption_column,
        "max_queries": max_queries,
        **stages.compare_embeddings(scored, frozen[0] if frozen else None, after),
    }


def _check_any(rows: NDArray[np.int64], files: Sequence[Path], held: Set[str], split: str | None) -> None:
    """Refuse embeddings of other images than those to score, showing the ids they have."""
    if len(rows):
        return
    both = " and ".join(str(path) for path in files)
    known = f"its ids are {', '.join(map(repr, sorted(held)[:3]))}, ..." if held else "they share no id"
    where = "the dataset" if split is None else f"the split {split} of the dataset"
    raise InputError(f"{both}: no embedding of any image of {where} ({known}). Name the data they were made from.")


def _with_splits(dataset: datasets.Dataset, embeddings: Path) -> datasets.Dataset:
    """``dataset`` with a column ``split``: its own, or what the run held out."""
    from wscl_embed.dataset import assign_splits
    from wscl_embed.run import Run

    if "split" in dataset.column_names:
        return dataset
    run = Run(embeddings)
    if not run.config.is_file():
        raise InputError("the dataset has no column 'split'; --split all scores every image.")
    config = make_config({}, run.config)
    if not config.scored:
        raise InputError(f"{embeddings} was trained on all images, none held out; --split all scores every image.")
    return assign_splits(dataset, holdout=config.holdout)


def _encode(path: Path, captions: list[str]) -> NDArray[np.floating]:
    """(m, D) embeddings of captions: those in the embedding file, or by the text tower of the run."""
    from wscl_embed.encoder_sources import load_encoder

    with EmbeddingStore(path) as store:
        text, hashes = store.text_embeddings, store.text_hashes
        found = None if text is None or hashes is None else known_captions(TextRows(text[:], hashes), captions)
    if found is not None:
        return found
    if not path.is_dir():
        raise InputError(
            f"--caption-column: {path} is a file without embeddings of all of these captions; name the run, whose text "
            "tower embeds them."
        )
    encoder = load_encoder(str(path))
    return encoder.encode_texts(captions)


def _scored_and_bank(
    dataset: datasets.Dataset, split: str | None, held: Set[str]
) -> tuple[datasets.Dataset, NDArray[np.int64], NDArray[np.int64]]:
    """The images that are scored or learned from and whose embeddings are held, and which of them are which."""
    from wscl_embed.dataset import split_rows

    scored = set(range(len(dataset)) if split is None else split_rows(dataset, split))
    splits = dataset["split"][:] if split is not None else []
    bank = {row for row, name in enumerate(splits) if name == BANK_SPLIT} - scored
    ids = dataset["id"][:]
    kept = [row for row in sorted(scored | bank) if ids[row] in held]
    is_scored = np.asarray([row in scored for row in kept], dtype=bool)
    return dataset.select(kept), np.flatnonzero(is_scored), np.flatnonzero(~is_scored)


def _ids_in(path: Path) -> set[str]:
    with EmbeddingStore(path) as store:
        return set(store.ids)


def _read_rows(path: Path, ids: Sequence[str]) -> NDArray[np.float32]:
    """(n, D) float32, a row an id; the file is read in pieces."""
    place = {image_id: row for row, image_id in enumerate(ids)}
    with EmbeddingStore(path) as store:
        stored = store.ids
        values = np.empty((len(ids), store.embeddings.shape[1]), dtype=np.float32)
        for start in range(0, len(stored), READ_ROWS):
            piece = stored[start : start + READ_ROWS]
            known = [row for row, image_id in enumerate(piece) if image_id in place]
            values[[place[piece[row]] for row in known]] = store.embeddings[start : start + READ_ROWS][known]
    return values
