"""Rows of a dataset as tensors: decoded, transformed, batched, and the bad ones named."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wscl_embed.dataset import image_source
from wscl_embed.images import BadImageError, decode_image
from wscl_embed.quarantine import BadRow

if TYPE_CHECKING:
    import datasets
    from PIL import Image

Transform = Callable[["Image.Image"], Tensor]


class ImageRows(torch.utils.data.Dataset[Any]):
    """Row number -> (row, (V, 3, H, W) float32) or (row, `BadRow`).

    Random transforms are seeded by (seed, epoch, row) alone, so views do not depend on batches or workers.

    Args:
        dataset: with ``id`` and undecoded ``image``.
        transforms: V of them, each applied to the same decoded image.
        draft_size: JPEGs may be decoded at a reduced scale with a short side not under this.
        seed: of random transforms.
    """

    def __init__(
        self, dataset: datasets.Dataset, transforms: Sequence[Transform], draft_size: int | None, seed: int = 0
    ) -> None:
        self.dataset = dataset.select_columns(["id", "image"])
        self.transforms = transforms
        self.draft_size = draft_size
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[int, Tensor | BadRow]:
        record = self.dataset[row]
        try:
            image = decode_image(image_source(record["image"]), draft_size=self.draft_size)
        except BadImageError as error:
            return row, BadRow(record["id"], (record["image"] or {}).get("path") or "", error.reason)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence([self.seed, self.epoch, row]).generate_state(1)[0]))
            return row, torch.stack([transform(image) for transform in self.transforms])


@dataclass(frozen=True)
class Batch:
    """Decoded images: ``rows`` (B,), ``images`` (B, V, 3, H, W), and the rows that could not be decoded."""

    rows: list[int]
    images: Tensor
    bad: list[BadRow]


def collate(items: list[tuple[int, Tensor | BadRow]]) -> Batch:
    """Join what `ImageRows` gives."""
    good = [(row, value) for row, value in items if isinstance(value, Tensor)]
    images = torch.stack([value for _, value in good]) if good else torch.empty(0)
    return Batch([row for row, _ in good], images, [value for _, value in items if isinstance(value, BadRow)])


def image_loader(
    rows: torch.utils.data.Dataset[Any], workers: int | None, device: torch.device, **options: Any
) -> DataLoader[Any]:
    """A DataLoader of `Batch`; ``workers`` None: one process less than there are cores, up to 8."""
    if workers is None:
        workers = min(8, max(1, available_cores() - 1)) if len(cast(Any, rows)) >= 256 else 0
    return DataLoader(rows, collate_fn=collate, num_workers=workers, pin_memory=device.type == "cuda", **options)


def available_cores() -> int:
    """The cores this process may use; those of the machine where the system does not tell (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
