"""From images to encoder outputs: every image decoded once, bad ones left out and named, results cached on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from wscl_embed.dataset import dataset_fingerprint, image_source
from wscl_embed.encoder import Encoder
from wscl_embed.files import atomic_path
from wscl_embed.images import BadImageError, decode_image
from wscl_embed.progress import track
from wscl_embed.quarantine import BadRow
from wscl_embed.views import AUGMENTATION

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


def image_loader(rows: ImageRows, workers: int | None, device: torch.device, **options: Any) -> DataLoader[Any]:
    """A DataLoader of `Batch`; ``workers`` None: one process less than there are cores, up to 8."""
    if workers is None:
        workers = min(8, max(1, available_cores() - 1)) if len(rows) >= 256 else 0
    return DataLoader(rows, collate_fn=collate, num_workers=workers, pin_memory=device.type == "cuda", **options)


def available_cores() -> int:
    """The cores this process may use; those of the machine where the system does not tell (macOS, Windows)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class ImageFeatures:
    """What an encoder makes of a dataset.

    ============ ==========================================================
    ``values``   (n, V, D) float32 (float16 for cached views), not normalised
    ``rows``     (n,) int64: the rows of the dataset they belong to
    ``bad``      the rows that could not be decoded
    ============ ==========================================================
    """

    values: NDArray[np.floating]
    rows: NDArray[np.int64]
    bad: list[BadRow]


def encode_images(
    encoder: Encoder,
    dataset: datasets.Dataset,
    *,
    n_views: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    workers: int | None = None,
    what: str = "encoding images",
) -> ImageFeatures:
    """Encode every image: as the encoder's own preprocessing shows it (V = 1), or ``n_views`` random views of it."""
    batches = iterate_encoded(
        encoder, dataset, n_views=n_views, seed=seed, batch_size=batch_size, workers=workers, what=what
    )
    values, rows, bad = [], [], []
    for batch_rows, batch_values, batch_bad in batches:
        rows.extend(batch_rows)
        values.append(batch_values if n_views is None else batch_values.astype(np.float16))
        bad.extend(batch_bad)
    empty = np.empty((0, n_views or 1, encoder.embed_dim), dtype=np.float32)
    return ImageFeatures(
        np.concatenate([empty, *values], dtype=values[0].dtype if values else np.float32),
        np.asarray(rows, dtype=np.int64),
        bad,
    )


def iterate_encoded(
    encoder: Encoder,
    dataset: datasets.Dataset,
    *,
    n_views: int | None = None,
    seed: int = 0,
    batch_size: int = 64,
    workers: int | None = None,
    what: str = "encoding images",
) -> Iterator[tuple[list[int], NDArray[np.float32], list[BadRow]]]:
    """`encode_images`, one batch of (rows, (b, V, D) float32, bad rows) at a time and in the order of rows."""
    transforms = [encoder.preprocess] if n_views is None else [encoder.augmentation()] * n_views
    rows = ImageRows(dataset, transforms, draft_size(encoder), seed)
    loader = image_loader(rows, workers, encoder.device, batch_size=max(1, batch_size // len(transforms)))
    encoder.model.eval()
    with track(what, len(dataset)) as advance, torch.inference_mode():
        for batch in loader:
            values = np.empty((0, len(transforms), encoder.embed_dim), dtype=np.float32)
            if batch.rows:
                encoded = encoder.encode(batch.images.flatten(0, 1))
                values = encoded.view(len(batch.rows), len(transforms), -1).cpu().numpy()
            yield batch.rows, values, batch.bad
            advance(len(batch.rows) + len(batch.bad))


def draft_size(encoder: Encoder) -> int:
    """Decoding may shrink a JPEG to no less than twice the encoder's input: the resize that follows hides it."""
    size = encoder.preprocess_cfg["size"]
    return 2 * (max(size) if isinstance(size, (tuple, list)) else int(size))


def cached_features(
    encoder: Encoder,
    dataset: datasets.Dataset,
    *,
    n_views: int | None = None,
    seed: int = 0,
    cache_dir: Path | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    what: str = "encoding images",
) -> ImageFeatures:
    """`encode_images`, read from ``cache_dir`` when the same encoder has met the same images before."""
    folder = cache_dir or default_cache_dir()
    views = "plain" if n_views is None else f"{AUGMENTATION}x{n_views}-seed{seed}"
    parts = (encoder.weights_hash(), encoder.device.type, dataset_fingerprint(dataset), _last_changes(dataset), views)
    path = folder / f"{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:32]}.safetensors"
    if path.is_file():
        return _read(path)
    features = encode_images(
        encoder, dataset, n_views=n_views, seed=seed, batch_size=batch_size, workers=workers, what=what
    )
    _write(path, features)
    return features


def _last_changes(dataset: datasets.Dataset) -> str:
    """A hash of when the image files were last changed: an image edited in place is met anew."""
    digest = hashlib.sha256()
    for image in dataset.select_columns(["image"])["image"]:
        path = Path((image or {}).get("path") or "")
        digest.update(f"{path.stat().st_mtime_ns if path.is_file() else 0};".encode())
    return digest.hexdigest()


def default_cache_dir() -> Path:
    """``$WSCL_EMBED_CACHE``, or ``wscl-embed`` in the user's cache folder."""
    if folder := os.environ.get("WSCL_EMBED_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "wscl-embed"


def _read(path: Path) -> ImageFeatures:
    from safetensors import safe_open

    with safe_open(path, framework="np") as handle:
        bad = [BadRow(**row) for row in json.loads(handle.metadata()["bad"])]
        return ImageFeatures(handle.get_tensor("values"), handle.get_tensor("rows"), bad)


def _write(path: Path, features: ImageFeatures) -> None:
    from safetensors.numpy import save_file

    with atomic_path(path) as temporary:
        tensors = {"values": features.values, "rows": features.rows}
        save_file(cast(Any, tensors), temporary, metadata={"bad": json.dumps([asdict(row) for row in features.bad])})
