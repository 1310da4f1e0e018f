"""From images to encoder outputs: every image decoded once, bad ones left out and named, results cached on disk."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

import numpy as np
import torch
from numpy.typing import NDArray

from wscl_embed.dataset import dataset_fingerprint
from wscl_embed.distributed import agree, gather, on_first, own_part
from wscl_embed.encoder import Encoder
from wscl_embed.errors import StorageError
from wscl_embed.files import atomic_path
from wscl_embed.image_rows import Batch, ImageRows, collate, iterate_images
from wscl_embed.progress import track
from wscl_embed.quarantine import BadRow
from wscl_embed.store.rows import hash_rows
from wscl_embed.threads import at_a_time, in_threads
from wscl_embed.views import AUGMENTATION

if TYPE_CHECKING:
    import datasets

TENSORS = ("values", "rows", "hashes")  # of a file in the cache; one of an older version may lack some
BATCH_ROWS = 256  # of a dataset, read at a time
PLAIN = "plain-hashed"  # no views: the image as the encoder's preprocessing shows it

logger = logging.getLogger("wscl_embed")


@dataclass(frozen=True)
class ImageFeatures:
    """What an encoder makes of a dataset.

    ============ ==========================================================
    ``values``   (n, V, D) float32 (float16 for cached views), not normalised
    ``rows``     (n,) int64: the rows of the dataset they belong to
    ``bad``      the rows that could not be decoded
    ``hashes``   (n, 16) uint8, the images' content hashes; (0, 16) of views
    ============ ==========================================================
    """

    values: NDArray[np.floating]
    rows: NDArray[np.int64]
    bad: list[BadRow]
    hashes: NDArray[np.uint8]


class EncodeOptions(TypedDict, total=False):
    """Options of `encode_images` and `iterate_encoded`."""

    n_views: int | None
    """Random augmented views of each image; None (the default): the image as the encoder's preprocessing shows it."""
    seed: int
    """The random views depend on it."""
    batch_size: int
    """Images and views through the encoder at once; default 64."""
    workers: int | None
    """Processes that decode; default as in `wscl_embed.image_rows.image_loader`."""
    what: str
    """The name of the progress bar."""


def encode_images(
    encoder: Encoder, dataset: datasets.Dataset, *, cache_dir: Path | None = None, **options: Unpack[EncodeOptions]
) -> ImageFeatures:
    """Encode every image, or each of its views.

    Args:
        encoder: any.
        dataset: with ``id`` and undecoded ``image``.
        cache_dir: read the result from there when the same encoder has met the same images before, and write it there
            otherwise. None: no cache.
        options: `EncodeOptions`.

    Returns:
        The outputs for the images that decode, in the order of rows, and which images do not.
    """
    if cache_dir is None:
        return _encode(encoder, dataset, options)
    views = f"{AUGMENTATION}x{options['n_views']}-seed{options.get('seed', 0)}" if options.get("n_views") else PLAIN
    path = _cache_path(encoder, dataset, cache_dir, views)
    if on_first(lambda: _is_whole(path)):
        lacking = agree([not _is_whole(path)])[0]  # on machines whose cache folder is not the first one's
        return on_first(lambda: _read(path)) if lacking else _read(path)
    features = _encode(encoder, dataset, options)
    on_first(lambda: _write(path, features))
    return features


def cached_features(encoder: Encoder, dataset: datasets.Dataset, cache_dir: Path) -> ImageFeatures | None:
    """What `encode_images` left in the cache for these images without views; None where there is nothing."""
    path = _cache_path(encoder, dataset, cache_dir, PLAIN)
    return _read(path) if _is_whole(path) else None


def _cache_path(encoder: Encoder, dataset: datasets.Dataset, cache_dir: Path, views: str) -> Path:
    parts = (encoder.weights_hash(), encoder.device.type, dataset_fingerprint(dataset), _last_changes(dataset), views)
    return cache_dir / f"{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:32]}.safetensors"


def _encode(encoder: Encoder, dataset: datasets.Dataset, options: EncodeOptions) -> ImageFeatures:
    """Each process encodes its part of the rows; all of them get the whole."""
    n_views = options.get("n_views")
    dtype = np.float32 if n_views is None else np.float16
    values, rows, bad, hashes = [np.empty((0, n_views or 1, encoder.embed_dim), dtype)], [], [], []
    for batch in iterate_encoded(encoder, dataset, hashed=n_views is None, **options):
        rows.extend(batch.rows)
        values.append(batch.values.astype(dtype, copy=False))
        bad.extend(batch.bad)
        hashes.extend(batch.hashes)
    own = ImageFeatures(np.concatenate(values), np.asarray(rows, dtype=np.int64), bad, hash_rows(hashes))
    parts = gather(own)
    return ImageFeatures(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.rows for part in parts]),
        [row for part in parts for row in part.bad],
        np.concatenate([part.hashes for part in parts]),
    )


@dataclass(frozen=True)
class EncodedBatch:
    """A batch of `iterate_encoded`: ``rows`` (b,), ``values`` (b, V, D) float32, bad rows, ``hashes`` (b,)."""

    rows: list[int]
    values: NDArray[np.float32]
    bad: list[BadRow]
    hashes: list[bytes]


def iterate_encoded(
    encoder: Encoder,
    dataset: datasets.Dataset,
    *,
    part: Sequence[int] | None = None,
    hashed: bool = False,
    **options: Unpack[EncodeOptions],
) -> Iterator[EncodedBatch]:
    """`encode_images`, one batch at a time and in the order of rows.

    Args:
        encoder: any.
        dataset: with ``id`` and undecoded ``image``.
        part: the rows to encode here. Default: this process's share of them all.
        hashed: give the images' content hashes as well.
        options: `EncodeOptions`.
    """
    n_views = options.get("n_views")
    transforms = [encoder.preprocess] if n_views is None else [encoder.augmentation()] * n_views
    seed = None if n_views is None else options.get("seed", 0)
    rows = ImageRows(dataset, transforms, draft_size(encoder), seed, hashed=hashed)
    part = own_part(len(dataset)) if part is None else part
    encoder.model.eval()
    encoded = _encode_batches(encoder, rows, part, options.get("batch_size", 64) // len(transforms), options)
    with track(options.get("what", "encoding images"), len(part)) as advance:
        for batch in encoded:
            yield batch
            advance(len(batch.rows) + len(batch.bad))


def _encode_batches(
    encoder: Encoder, rows: ImageRows, part: Sequence[int], batch_size: int, options: EncodeOptions
) -> Iterator[EncodedBatch]:
    """The batches of `iterate_encoded`. On a CPU they are encoded several at a time, together as many images as one.

    Images that are not drawn at random are decoded in the same threads, so that no core waits for another.
    """
    workers, on_cpu = options.get("workers"), encoder.device.type == "cpu"
    size = max(1, batch_size // (at_a_time() if on_cpu else 1))
    if on_cpu and at_a_time() > 1 and workers is None and rows.seed is None:
        batches = [list(part[start : start + size]) for start in range(0, len(part), size)]
        yield from in_threads(lambda batch: _encode_batch(encoder, collate(rows.__getitems__(batch)), 1), batches)
        return
    loader = iterate_images(torch.utils.data.Subset(rows, part), workers, encoder.device, batch_size=size)
    run = in_threads if on_cpu else map
    yield from run(lambda batch: _encode_batch(encoder, batch, len(rows.transforms)), loader)


@torch.inference_mode()
def _encode_batch(encoder: Encoder, batch: Batch, n_views: int) -> EncodedBatch:
    values = np.empty((0, n_views, encoder.embed_dim), dtype=np.float32)
    if batch.rows:
        encoded = encoder.encode(batch.images.flatten(0, 1))
        values = encoded.view(len(batch.rows), n_views, -1).cpu().numpy()
    return EncodedBatch(batch.rows, values, batch.bad, batch.hashes)


def draft_size(encoder: Encoder) -> int:
    """Decoding may shrink a JPEG to no less than twice the encoder's input: the resize that follows hides it."""
    size = encoder.preprocess_cfg["size"]
    return 2 * (max(size) if isinstance(size, (tuple, list)) else int(size))


def _last_changes(dataset: datasets.Dataset) -> str:
    """A hash of when the image files were last changed: an image edited in place is met anew."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(["image"]).iter(batch_size=BATCH_ROWS):
        for image in batch["image"]:
            path = Path((image or {}).get("path") or "")
            digest.update(f"{path.stat().st_mtime_ns if path.is_file() else 0};".encode())
    return digest.hexdigest()


def _is_whole(path: Path) -> bool:
    """Whether features are cached there; a file that was cut off is removed."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="np") as handle:
            return "bad" in handle.metadata() and set(TENSORS).issubset(handle.keys())
    except SafetensorError as error:
        logger.warning("%s is damaged (%s): removed; the images are encoded anew.", path, error)
        path.unlink(missing_ok=True)
        return False


def _read(path: Path) -> ImageFeatures:
    from safetensors import safe_open

    with safe_open(path, framework="np") as handle:
        bad = [BadRow(**row) for row in json.loads(handle.metadata()["bad"])]
        values, rows, hashes = (handle.get_tensor(name) for name in TENSORS)
        return ImageFeatures(values, rows, bad, hashes)


def _write(path: Path, features: ImageFeatures) -> None:
    """Without a cache a run is slow, not wrong: a disk that refuses is said, and the run goes on."""
    from safetensors.numpy import save_file

    tensors = {"values": features.values, "rows": features.rows, "hashes": features.hashes}
    bad = json.dumps([asdict(row) for row in features.bad])
    try:
        with atomic_path(path) as temporary:
            save_file(cast(Any, tensors), temporary, metadata={"bad": bad})
    except StorageError as error:
        logger.warning("%s Nothing is cached.", error)
