"""The captions of a dataset: read from a column, told apart by their content, embedded by an encoder's text tower."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.distributed import gather, own_part
from wscl_embed.errors import InputError
from wscl_embed.progress import track
from wscl_embed.store.rows import HASH_BYTES, TextRows, hash_rows

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder

EncodeTexts = Callable[[list[str]], NDArray[np.floating]]
"""m texts to their (m, D) embeddings, of any length."""

BLOCK_ROWS = 1024
NO_CAPTION = bytes(HASH_BYTES)
"""The content hash of an image without captions."""


def captions_of(value: Any, image_id: str) -> list[str]:
    """The distinct captions in a value of a caption column, a string or a list of strings, the blank ones left out.

    Raises:
        InputError: a value that is no text (names the id).

    >>> captions_of([" a cat ", "", "a cat"], "1.jpg")
    ['a cat']
    """
    texts = [value] if value is None or isinstance(value, str) else value
    if not isinstance(texts, list) or not all(text is None or isinstance(text, str) for text in texts):
        raise InputError(
            f"image {image_id}: the caption is a {type(value).__name__} ({value!r:.80}); "
            "a string or a list of strings is needed."
        )
    return list(dict.fromkeys(text.strip() for text in texts if text is not None and text.strip()))


def distinct_captions(dataset: datasets.Dataset, column: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The distinct captions of a dataset, and pairs of a row and the caption it carries.

    Raises:
        InputError: values that are no text (names the id), or not one caption.
    """
    number: dict[str, int] = {}
    pairs = []
    for row, (image_id, value) in enumerate(zip(dataset["id"][:], dataset[column][:], strict=True)):
        for text in captions_of(value, image_id):
            pairs.append((row, number.setdefault(text, len(number))))
    if not pairs:
        raise InputError(f"--caption-column {column!r}: none of the {len(dataset)} images to score has a caption.")
    return list(number), pairs


def caption_hash(captions: Sequence[str]) -> bytes:
    """The content hash of an image's captions: BLAKE2b (128 bit) of them as a JSON list; `NO_CAPTION` without any.

    >>> caption_hash(["a cat"]) == caption_hash(["a cat"]), caption_hash([]) == NO_CAPTION
    (True, True)
    """
    if not captions:
        return NO_CAPTION
    return hashlib.blake2b(json.dumps(list(captions)).encode(), digest_size=HASH_BYTES).digest()


def captions_fingerprint(dataset: datasets.Dataset, column: str) -> str:
    """SHA-256 (hex) over the captions of all rows, in order."""
    digest = hashlib.sha256()
    for batch in dataset.select_columns(["id", column]).iter(batch_size=BLOCK_ROWS):
        for row_id, value in zip(batch["id"], batch[column], strict=True):
            digest.update(caption_hash(captions_of(value, row_id)))
    return digest.hexdigest()


def read_captions(dataset: datasets.Dataset, rows: Sequence[int], column: str) -> list[list[str]]:
    """The captions of some rows."""
    some = dataset.select(rows)
    return [captions_of(value, row_id) for value, row_id in zip(some[column], some["id"], strict=True)]


def encode_captions(encoder: Encoder, captions: Sequence[Sequence[str]]) -> TextRows:
    """What the text tower makes of the captions of b images; of several captions of an image, the mean direction.

    The mean of unit vectors is what CLIP makes of several prompts (Radford et al., "Learning Transferable Visual
    Models From Natural Language Supervision", ICML 2021, section 3.1.4).

    Args:
        encoder: with a text tower.
        captions: the distinct captions of each image; none is a row of zeros.
    """
    number: dict[str, int] = {}
    for text in (text for of_image in captions for text in of_image):
        number.setdefault(text, len(number))
    embedded = encoder.encode_texts(list(number))
    embedded /= np.maximum(np.linalg.norm(embedded, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    values = np.zeros((len(captions), encoder.embed_dim), np.float32)
    for row, of_image in enumerate(captions):
        if of_image:
            values[row] = embedded[[number[text] for text in of_image]].mean(axis=0)
    return TextRows(values, hash_rows(map(caption_hash, captions)))


def encode_all_captions(encoder: Encoder, dataset: datasets.Dataset, column: str) -> TextRows:
    """`encode_captions` for all n rows of a dataset; each process does its part, all of them get the whole."""
    part = own_part(len(dataset))
    blocks = [encode_captions(encoder, [])]
    with track("encoding captions", len(part)) as advance:
        for start in range(part.start, part.stop, BLOCK_ROWS):
            rows = range(start, min(part.stop, start + BLOCK_ROWS))
            blocks.append(encode_captions(encoder, read_captions(dataset, rows, column)))
            advance(len(rows))
    parts = gather(joined(blocks))
    return parts[0] if len(parts) == 1 else joined(parts)


def known_captions(texts: TextRows | None, captions: Sequence[str]) -> NDArray[np.floating] | None:
    """(m, D) embeddings of captions, from images that have them as their only one; None where one is not among them."""
    if texts is None:
        return None
    place = {digest.tobytes(): row for row, digest in enumerate(texts.hashes)}
    rows = [place.get(caption_hash([text]), -1) for text in captions]
    return None if -1 in rows else texts.embeddings[:][rows]


def text_encoder(encoder: Encoder, texts: TextRows | None) -> EncodeTexts:
    """`Encoder.encode_texts`, but for captions that ``texts`` has already."""

    def encode(captions: list[str]) -> NDArray[np.floating]:
        known = known_captions(texts, captions)
        return encoder.encode_texts(captions) if known is None else known

    return encode


def joined(blocks: Sequence[TextRows]) -> TextRows:
    """The rows of one block after those of another."""
    return TextRows(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))
