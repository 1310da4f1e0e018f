"""What `embed --update` keeps of an embedding file, and what it embeds anew."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wscl_embed.captions import caption_hash, read_captions
from wscl_embed.dataset import image_source
from wscl_embed.errors import InputError
from wscl_embed.image_rows import available_cores
from wscl_embed.images import BadImageError, content_hash, read_source
from wscl_embed.progress import console, track
from wscl_embed.store import EmbeddingStore
from wscl_embed.store.rows import RowFiles, TextRows

if TYPE_CHECKING:
    import datasets

    from wscl_embed.clusters import Clusters

READ_ROWS = 1024
COPY_ROWS = 16_384
MADE_BY = {
    "weights_hash": "encoder or image size",
    "preprocess": "way of preparing images",
    "dtype": "dtype",
    "caption_column": "column of captions",
    "text_weights_hash": "text tower",
}
"""What the rows of one file agree in, and what it is called; of captions None where there are none."""


@dataclass(frozen=True)
class Plan:
    """What an embedding file is to be made of: ``kept`` rows of the present one, then ``todo`` rows of the dataset.

    ``stale`` are the rows of the present one that some of ``todo`` take the place of, by their ids.
    """

    kept: list[int]
    todo: list[int]
    stale: dict[str, int] = field(default_factory=dict)


def everything(dataset: datasets.Dataset) -> Plan:
    """Nothing is kept."""
    return Plan([], list(range(len(dataset))))


def plan_update(path: Path, dataset: datasets.Dataset, facts: Mapping[str, Any]) -> Plan:
    """Embed what is new or changed, by id and content hash of image and captions. Keep the rest, also what the dataset
    does not have.

    Raises:
        InputError: the file is by another encoder, of another dtype or of another column of captions, or has no
            content hashes.
    """
    with EmbeddingStore(path) as store:
        found = {**store.attributes, "dtype": store.embeddings.dtype.name}
        old_ids, hashes, text_hashes = store.ids, store.content_hashes, store.text_hashes
    check_unmixed(path, found, facts)
    if hashes is None:
        raise InputError(f"{path}: has no content hashes to compare images by; write it anew with --overwrite.")
    if (text_hashes is None) != (facts["caption_column"] is None):
        raise InputError(f"{path}: damaged, its caption_column and its /text do not belong to one another.")
    both = hashes if text_hashes is None else np.concatenate([hashes, text_hashes], axis=1)
    old = {image_id: both[row].tobytes() for row, image_id in enumerate(old_ids)}
    ids = dataset["id"][:]
    known = [row for row, image_id in enumerate(ids) if image_id in old]
    digests = hash_rows_of(dataset, known, facts["caption_column"])
    same = {ids[row] for row, digest in zip(known, digests, strict=True) if digest == old[ids[row]]}
    stale = {ids[row] for row in known} - same
    plan = Plan(
        [row for row, image_id in enumerate(old_ids) if image_id not in stale],
        [row for row, image_id in enumerate(ids) if image_id not in same],
        {image_id: row for row, image_id in enumerate(old_ids) if image_id in stale},
    )
    console().print(
        f"{path}: {len(plan.todo) - len(stale)} images are new and {len(stale)} changed; {len(same)} are as they were, "
        f"and {len(old_ids) - len(known)} that the dataset does not have stay.",
        markup=False,
        soft_wrap=True,
    )
    return plan


def check_unmixed(path: Path, found: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """See that new rows are made as those of the file were.

    Raises:
        InputError: names what differs.
    """
    if found.get("caption_column") is None and facts["caption_column"] is not None:
        raise InputError(
            f"{path}: holds no embeddings of captions to --update. Leave --caption-column out, or write the file anew "
            "with --overwrite."
        )
    for key, name in MADE_BY.items():
        was, now = found.get(key), facts[key]
        if was != now:
            values = "" if key.endswith("_hash") else f" ({was!r} -> {now!r})"
            raise InputError(
                f"{path}: --update would mix embeddings: its rows were made with another {name}{values}. Update it "
                "with that, or write it anew with --overwrite."
            )


def hash_rows_of(dataset: datasets.Dataset, rows: Sequence[int], caption_column: str | None) -> Iterator[bytes]:
    """The content hash of each image, and behind it that of its captions; of an image that cannot be read, b""."""
    with track("comparing images", len(rows)) as advance, ThreadPoolExecutor(available_cores()) as threads:
        for start in range(0, len(rows), READ_ROWS):
            part = rows[start : start + READ_ROWS]
            images = threads.map(_hash, dataset.select(part)["image"])
            if caption_column is None:
                yield from images
            else:
                captions = map(caption_hash, read_captions(dataset, part, caption_column))
                yield from (image + caption for image, caption in zip(images, captions, strict=True))
            advance(len(part))


def _hash(image: Mapping[str, Any] | None) -> bytes:
    try:
        return content_hash(read_source(image_source(image)))
    except BadImageError:
        return b""


def copy_kept(path: Path, kept: Sequence[int], rows: RowFiles) -> None:
    """Append the rows ``kept`` of the embedding file ``path``, as they are."""
    if not kept:
        return
    with EmbeddingStore(path) as store:
        ids, hashes = store.ids, store.content_hashes
        text, text_hashes = store.text_embeddings, store.text_hashes
        assert hashes is not None
        for start in range(0, len(kept), COPY_ROWS):
            chosen = np.asarray(kept[start : start + COPY_ROWS])
            texts = None if text is None or text_hashes is None else TextRows(text[chosen], text_hashes[chosen])
            rows.copy([ids[row] for row in chosen], store.embeddings[chosen], hashes[chosen], texts)


def kept_clusters(path: Path) -> tuple[dict[str, Any], Clusters | None]:
    """The clusters of the embedding file ``path``, and the attribute that says what they are from."""
    with EmbeddingStore(path) as store:
        return {"adapters": store.attributes.get("adapters", "[]")}, store.clusters


def stamp(path: Path) -> list[int]:
    """Tells one state of a file from another: its size and when it was last changed."""
    state = path.stat()
    return [state.st_size, state.st_mtime_ns]
