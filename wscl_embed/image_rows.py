"""Rows of a dataset as tensors: decoded, transformed, batched, and the bad ones named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from wscl_embed.dataset import image_source
from wscl_embed.errors import LostProcessError
from wscl_embed.images import BadImageError, content_hash, decode_image, read_source
from wscl_embed.quarantine import BadRow

if TYPE_CHECKING:
    import datasets
    from PIL import Image

TIMEOUT = 300  # seconds for a batch; a disk that answers at all is quicker
Transform = Callable[["Image.Image"], Tensor]


class ImageRows(torch.utils.data.Dataset[Any]):
    """Row number -> (row, (V, 3, H, W) float32, content hash) or (row, `BadRow`, b"").

    Random transforms are seeded by (seed, epoch, row) alone, so views do not depend on batches or workers. They draw
    from torch's generator, of which there is one a process: not for several threads, unless ``seed`` is None.

    Args:
        dataset: with ``id`` and undecoded ``image``.
        transforms: V of them, each applied to the same decoded image.
        draft_size: JPEGs may be decoded at a reduced scale with a short side not under this.
        seed: of random transforms; None where nothing is random.
        hashed: give each image's content hash, which reads the whole file; else it is b"".
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        transforms: Sequence[Transform],
        draft_size: int | None,
        seed: int | None = 0,
        *,
        hashed: bool = False,
    ) -> None:
        self.dataset = dataset.select_columns(["id", "image"])
        self.transforms = transforms
        self.draft_size = draft_size
        self.seed = seed
        self.hashed = hashed
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> tuple[int, Tensor | BadRow, bytes]:
        return self._item(row, self.dataset[row])

    def __getitems__(self, rows: list[int]) -> list[tuple[int, Tensor | BadRow, bytes]]:
        """Many rows at once, as DataLoader asks for them: a dataset gives them in little more time than one."""
        columns = self.dataset[rows]
        records = zip(columns["id"], columns["image"], strict=True)
        return [self._item(row, {"id": id, "image": image}) for row, (id, image) in zip(rows, records, strict=True)]

    def _item(self, row: int, record: dict[str, Any]) -> tuple[int, Tensor | BadRow, bytes]:
        try:
            source = image_source(record["image"])
            content = read_source(source) if self.hashed else source
            image = decode_image(content, draft_size=self.draft_size)
        except BadImageError as error:
            return row, BadRow(record["id"], (record["image"] or {}).get("path") or "", error.reason), b""
        with nullcontext() if self.seed is None else self._seeded(self.seed, row):
            views = torch.stack([transform(image) for transform in self.transforms])
        return row, views, content_hash(content) if isinstance(content, bytes) and self.hashed else b""

    @contextmanager
    def _seeded(self, seed: int, row: int) -> Iterator[None]:
        """Draws of torch's on the CPU come from (seed, epoch, row), for the duration of a ``with`` block."""
        state = torch.get_rng_state()
        # Not torch.manual_seed: it notes every call, with its traceback, for GPUs that may be used one day.
        torch.default_generator.manual_seed(int(np.random.SeedSequence([seed, self.epoch, row]).generate_state(1)[0]))
        try:
            yield
        finally:
            torch.set_rng_state(state)


@dataclass(frozen=True)
class Batch:
    """Decoded images, and the rows that could not be decoded.

    ========== ==============================================================
    ``rows``   (B,), their rows in the dataset
    ``images`` (B, V, 3, H, W)
    ``bad``    the rows that could not be decoded
    ``hashes`` (B,) content hashes, where `ImageRows` was asked for them
    ========== ==============================================================
    """

    rows: list[int]
    images: Tensor
    bad: list[BadRow]
    hashes: list[bytes]


def collate(items: list[tuple[int, Tensor | BadRow, bytes]]) -> Batch:
    """Join what `ImageRows` gives."""
    good = [(row, value, digest) for row, value, digest in items if isinstance(value, Tensor)]
    images = torch.stack([value for _, value, _ in good]) if good else torch.empty(0)
    bad = [value for _, value, _ in items if isinstance(value, BadRow)]
    return Batch([row for row, _, _ in good], images, bad, [digest for _, _, digest in good])


def image_loader(
    rows: torch.utils.data.Dataset[Any], workers: int | None, device: torch.device, **options: Any
) -> DataLoader[Any]:
    """A DataLoader of `Batch`; ``workers`` None: one process less than there are cores, up to 8."""
    if workers is None:
        workers = min(8, max(1, available_cores() - 1)) if len(cast(Any, rows)) >= 256 else 0
    if workers:
        options |= {"timeout": TIMEOUT, "worker_init_fn": _leave_signals_to_the_parent}
    return DataLoader(rows, collate_fn=collate, num_workers=workers, pin_memory=device.type == "cuda", **options)


def iterate_images(
    rows: torch.utils.data.Dataset[Any], workers: int | None, device: torch.device, **options: Any
) -> Iterator[Batch]:
    """The batches of `image_loader`.

    Raises:
        LostProcessError: a process that decodes died, or gave nothing for `TIMEOUT` seconds.
    """
    count = 0
    loader = image_loader(rows, workers, device, **options)
    try:
        for batch in loader:
            yield batch
            count += 1
    except RuntimeError as error:
        said = str(error)
        if "DataLoader" not in said:
            raise
        what = f"gave nothing for {TIMEOUT} seconds" if "timed out" in said else "died"
        raise LostProcessError(
            f"a process that decodes images {what}, near {_ids_of_batch(loader, count)} ({said.splitlines()[0]}). "
            "A disk that hangs, too little memory, or --shm-size of a container? --workers 0 decodes without processes."
        ) from error


def _ids_of_batch(loader: DataLoader[Any], number: int) -> str:
    """Whom a batch is of: the first ids."""
    rows: Any = loader.dataset
    chosen: list[int] = next(islice(cast(Any, loader.batch_sampler), number, None), [])
    if isinstance(rows, torch.utils.data.Subset):
        rows, chosen = rows.dataset, [rows.indices[one] for one in chosen]
    ids = list(rows.dataset.select(chosen[:3])["id"])
    return f"the images {', '.join(ids)}, ..." if ids else "the end"


def _leave_signals_to_the_parent(worker: int) -> None:
    """A signal to the group (Ctrl-C, torchrun) is the parent's to answer: it needs these until its step is done."""
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()


def available_cores() -> int:
    """The cores this process may use; those of the machine where the system does not tell (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
