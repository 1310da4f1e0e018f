"""What a job starts from: the dataset, its split, the encoder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from wscl_embed.config import FitConfig
from wscl_embed.dataset import assign_splits, load_dataset, rows_of_split
from wscl_embed.errors import InputError

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder


def open_dataset(data: str | Path | datasets.Dataset, config: FitConfig) -> datasets.Dataset:
    """The dataset with a ``split`` column, held out here when it has none and labels are there to score by."""
    dataset = load_dataset(data) if isinstance(data, (str, Path)) else data
    check_images(dataset)
    if config.label_column is None:
        return dataset
    check_label_column(dataset, config.label_column)
    dataset = assign_splits(dataset, holdout=config.holdout)
    # An unknown split, or one in which nothing can be scored, is said now and not after training.
    labels = rows_of_split(dataset, config.eval_split)[config.label_column]
    if max(Counter(str(label) for label in labels if label is not None).values(), default=0) < 2:
        raise InputError(
            f"--label-column {config.label_column!r}: no label occurs twice among the {len(labels)} images of the "
            f"split {config.eval_split}, so nothing can be retrieved there. Name another column or --eval-split."
        )
    return dataset


def open_split(data: str | Path | datasets.Dataset, split: str | None, *, images: bool = True) -> datasets.Dataset:
    """The rows of ``split``, or all of them. Without ``images``, a dataset of signals alone will do."""
    dataset = load_dataset(data, images=images) if isinstance(data, (str, Path)) else data
    return dataset if split is None else rows_of_split(dataset, split)


def check_images(dataset: datasets.Dataset) -> None:
    """Refuse a dataset without images, where they are needed."""
    if "image" not in dataset.column_names:
        raise InputError(
            f"the dataset has no column 'image' with its images, but {', '.join(dataset.column_names)} alone. "
            "wscl_embed.load_dataset gives it one from files; without images only `cluster` works, and with "
            "adapters that read no images."
        )


def check_label_column(dataset: datasets.Dataset, column: str) -> None:
    """Refuse a label column that is not there, naming those that are."""
    if column not in dataset.column_names:
        known = [name for name in dataset.column_names if name not in ("id", "image")]
        raise InputError(f"--label-column {column!r}: no such column. The dataset has: {', '.join(known)}.")


def open_encoder(config: FitConfig) -> Encoder:
    """The encoder ``config`` names."""
    from wscl_embed.encoder_sources import load_encoder

    return load_encoder(config.model, config.pretrained, image_size=config.image_size, device=config.device)
