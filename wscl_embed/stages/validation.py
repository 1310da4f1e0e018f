"""The images a mixture of frozen and tuned weights is chosen on: neither trained on nor scored."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wscl_embed.captions import captions_of
from wscl_embed.config import FitConfig
from wscl_embed.dataset import hold_out, rows_of_split
from wscl_embed.errors import InputError
from wscl_embed.stages.inputs import most_common, read_labels

if TYPE_CHECKING:
    import datasets

HELD_OUT = "held out"
"""The split made here, where the dataset has none."""

SHARE = 0.1  # of the split train
ENOUGH = 100  # images with a label or a caption, before they decide unasked


def with_validation(dataset: datasets.Dataset, config: FitConfig) -> datasets.Dataset:
    """``dataset`` with a split to choose the mixture on, where one is to be chosen: a tenth of train, if it has none.

    Raises:
        InputError: the mixture is to be chosen, by order, on images that tell nothing.
    """
    if not config.scored and config.wise_ft == "auto":
        raise InputError(
            "--wise-ft auto chooses on validation images, by their labels or captions: give --label-column or "
            "--caption-column, or a number in place of auto."
        )
    if not config.scored or config.alpha is not None or validation_split(dataset, config) is not None:
        return dataset
    held_out = hold_out(dataset, HELD_OUT, SHARE)
    if validation_split(held_out, config) is not None:
        return held_out
    if config.wise_ft == "auto":
        raise InputError(
            "--wise-ft auto: there is no split val beside the one that is scored, and a tenth of the split train holds "
            "no two images of one label to choose on. Give a number in place of auto, or more images."
        )
    return dataset


def validation_split(dataset: datasets.Dataset, config: FitConfig) -> str | None:
    """The split a mixture can be chosen on, with the labels and captions it takes; None where there is none."""
    if "split" not in dataset.column_names or not config.scored:
        return None
    scored = {config.eval_split, *config.eval_split.split("+")}
    splits = set(dataset["split"][:]) - scored
    for name in (HELD_OUT, "val", "validation"):
        if name in splits:
            return name if tells(rows_of_split(dataset, name), config) else None
    return None


def tells(dataset: datasets.Dataset, config: FitConfig) -> bool:
    """Whether these images can be scored by the columns named; unasked, few of them are not relied on."""
    needed = 1 if config.wise_ft == "auto" else ENOUGH
    if config.label_column is not None:
        labels = read_labels(dataset, config.label_column)
        if most_common(labels) < 2 or sum(label is not None for label in labels) < needed:
            return False
    if config.caption_column is not None:
        ids, captions = dataset["id"][:], dataset[config.caption_column][:]
        return sum(bool(captions_of(*one)) for one in zip(captions, ids, strict=True)) >= needed
    return True
