"""What a job starts from: the dataset, its split, the encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from wscl_embed.captions import distinct_captions
from wscl_embed.config import HOLDOUT, FitConfig
from wscl_embed.dataset import as_dataset, assign_splits, rows_of_split
from wscl_embed.distributed import check_alike, world_size
from wscl_embed.errors import InputError
from wscl_embed.progress import say

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


def open_dataset(data: str | Path | datasets.Dataset, config: FitConfig) -> datasets.Dataset:
    """The dataset with a ``split`` column, held out here when it has none and there is something to score by.

    A wrong column, an unknown split, or one in which nothing can be scored, is said now and not after training.
    """
    dataset = as_dataset(data)
    check_same_rows(dataset)
    check_images(dataset)
    if not config.scored:
        return dataset
    for option in ("label_column", "caption_column"):
        check_column(dataset, option, getattr(config, option))
    if "split" in dataset.column_names and config.holdout != HOLDOUT:
        say("the dataset has a column 'split', which says what is held out: --holdout is not used.", "yellow")
    dataset = assign_splits(dataset, holdout=config.holdout)
    scored = rows_of_split(dataset, config.eval_split)
    if config.label_column is not None:
        check_labels(scored, config.label_column, f"the split {config.eval_split}")
    if config.caption_column is not None:
        distinct_captions(scored, config.caption_column)
    return dataset


def open_split(data: str | Path | datasets.Dataset, split: str | None, *, images: bool = True) -> datasets.Dataset:
    """The rows of ``split``, or all of them. Without ``images``, a dataset of signals alone will do."""
    dataset = as_dataset(data, images=images)
    check_same_rows(dataset)
    return dataset if split is None else rows_of_split(dataset, split)


def check_same_rows(dataset: datasets.Dataset) -> None:
    """See that all processes read the same rows: each encodes its share of them, by their numbers."""
    if world_size() == 1:  # millions of ids need not be read
        return
    columns = [dataset.with_format(None)[name][:] for name in ("id", "split") if name in dataset.column_names]
    check_alike(columns, "the ids of the images, or their splits,")


def check_images(dataset: datasets.Dataset) -> None:
    """Refuse a dataset without images, where they are needed."""
    if "image" not in dataset.column_names:
        raise InputError(
            f"the dataset has no column 'image' with its images, but {', '.join(dataset.column_names)} alone. "
            "wscl_embed.load_dataset gives it one from files, cast_column(NAME, datasets.Image()) from a column of "
            "their names; without images only `cluster` works, and with adapters that read no images."
        )


def check_column(dataset: datasets.Dataset, option: str, column: str | None) -> None:
    """Refuse a column that is not there, naming those that are; None is no column asked for."""
    if column is not None and column not in dataset.column_names:
        known = [name for name in dataset.column_names if name not in ("id", "image")]
        has = f"The dataset has: {', '.join(known)}." if known else "The dataset has images and no other column."
        raise InputError(f"--{option.replace('_', '-')} {column!r}: no such column. {has}")


def check_labels(dataset: datasets.Dataset, column: str, where: str) -> None:
    """Refuse images of which no two have the same label: nothing could be retrieved."""
    labels = read_labels(dataset, column)
    if most_common(labels) < 2:
        raise InputError(
            f"--label-column {column!r}: no label occurs twice among the {len(labels)} images of {where}, so nothing "
            "can be retrieved there. Name another column or --eval-split."
        )


def most_common(labels: Iterable[object]) -> int:
    """How many have the most frequent label; 0 where there are none."""
    return max(Counter(str(label) for label in labels if label is not None).values(), default=0)


def read_labels(dataset: datasets.Dataset, column: str) -> list[object]:
    """The label of each record, None where it has none: a null, NaN, or a blank string."""
    labels = dataset.with_format(None)[column][:]
    return [label if label == label and str(label).strip() else None for label in labels]


def open_encoder(config: FitConfig) -> Encoder:
    """The encoder ``config`` names.

    Raises:
        InputError: as `load_encoder`, and an image-only encoder where captions are to be scored.
    """
    from wscl_embed.encoder_sources import load_encoder

    encoder = load_encoder(config.model, config.pretrained, image_size=config.image_size, device=config.device)
    check_text_tower(encoder, config.caption_column)
    return encoder


def check_text_tower(encoder: Encoder, caption_column: str | None) -> None:
    """Refuse an image-only encoder where there are captions to embed."""
    if caption_column is not None and not encoder.has_text_tower:
        raise InputError(
            f"--caption-column: the model {encoder.name} has no text tower, and cannot be searched by text."
        )
