"""`QueryEncoder`: from what somebody looks for to a point among the embeddings."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError
from wscl_embed.images import BadImageError, decode_image
from wscl_embed.store import EmbeddingStore

if TYPE_CHECKING:
    from PIL.Image import Image

    from wscl_embed.encoder import Encoder


class QueryEncoder:
    """The encoder an embedding file was made by, loaded with the first query. Threads take their turns.

    Args:
        store: the file.
        model, pretrained: what `wscl_embed.load_encoder` takes, or an encoder; None where nothing says.
        device: where to run it.
    """

    def __init__(self, store: EmbeddingStore, model: str | Encoder | None, pretrained: str | None, device: str) -> None:
        self._store, self._model, self._pretrained, self._device = store, model, pretrained, device
        self._lock = RLock()

    def image(self, image: bytes | str | Path | Image) -> NDArray[np.float32]:
        """(D,) embedding of a file, of its content, or of a decoded image; not normalised.

        Raises:
            InputError: an image that cannot be decoded, or an encoder that did not make the embeddings.
        """
        import torch

        if isinstance(image, (bytes, str, Path)):
            try:
                image = decode_image(image)
            except BadImageError as error:
                name = "the image" if isinstance(image, bytes) else image
                raise InputError(f"{name}: {error.reason}.") from error
        with self._lock, torch.inference_mode():
            vector: NDArray[np.float32] = self.encoder.encode(self.encoder.preprocess(image)[None])[0].cpu().numpy()
        return vector

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """(m, D) embeddings of texts, not normalised.

        Raises:
            InputError: an empty text, a model without a text tower, or an encoder that did not make the embeddings.
        """
        if not all(text.strip() for text in texts):
            raise InputError("the text to search by is empty.")
        with self._lock:
            if not self.encoder.has_text_tower:
                raise InputError(f"the model {self.encoder.name} has no text tower: it is searched by image only.")
            return self.encoder.encode_texts(texts)

    @property
    def encoder(self) -> Encoder:
        """The encoder.

        Raises:
            InputError: none is named, or it did not make the embeddings.
        """
        with self._lock:
            return self._encoder

    @cached_property
    def _encoder(self) -> Encoder:
        from wscl_embed.encoder_sources import load_encoder

        if self._model is None:
            made_by = self._store.attributes.get("encoder")
            told = f" The file says: {made_by}." if made_by else ""
            raise InputError(f"{self._store.path}: --model must say what it was embedded with, a run or a model.{told}")
        if isinstance(self._model, str):
            encoder = load_encoder(self._model, self._pretrained, image_size=self._image_size(), device=self._device)
        else:
            encoder = self._model
        if encoder.weights_hash() != self._store.attributes.get("weights_hash"):
            raise InputError(f"{self._store.path} was not made by the encoder {encoder.name}; embed the images again.")
        return encoder

    def _image_size(self) -> int | None:
        """The pixels a side the images were embedded at; None where the model brings its own size."""
        if Path(str(self._model)).is_dir():
            return None
        try:
            size = json.loads(self._store.attributes.get("preprocess", "{}")).get("size")
            pixels = size[0] if isinstance(size, list) else size
            return None if pixels is None else int(pixels)
        except (ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
            raise InputError(f"{self._store.path}: the attribute preprocess does not parse ({error}).") from error
