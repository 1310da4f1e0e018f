"""The public doors a stranger's input comes through; each returns what a test can compare.

The libraries are imported here, so that they are loaded once, before the cases are forked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import h5py  # noqa: F401
import open_clip  # noqa: F401
import pyarrow.parquet  # noqa: F401
import sentence_transformers  # noqa: F401
import sklearn.cluster
import sklearn.decomposition  # noqa: F401
import threadpoolctl
import timm  # noqa: F401
import torch
import transformers.dynamic_module_utils  # noqa: F401
from PIL import Image  # noqa: F401

from wscl_adapters.sentence_models import load_model
from wscl_embed import Clusters, EmbeddingStore
from wscl_embed.checkpoint import Checkpoints
from wscl_embed.config import make_config
from wscl_embed.dataset import image_source, load_dataset
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.images import BadImageError, allowed_formats, decode_image, read_source
from wscl_embed.registry import make_adapter
from wscl_embed.run import Run
from wscl_embed.searching.index_file import VectorIndex

allowed_formats()
threadpoolctl.threadpool_info()  # 3.1 asks ldconfig where the C library is, once a process
torch.set_num_threads(1)


def dataset(path: Path, **options: Any) -> dict[str, list[Any]]:
    """The columns of a dataset, images apart."""
    loaded = load_dataset(path, **options)
    return {name: list(loaded[name]) for name in loaded.column_names if name != "image"}


def signals(path: Path) -> dict[str, list[Any]]:
    """The columns of a dataset opened without its images."""
    return dataset(path, images=False)


def pictures(path: Path) -> dict[str, Any]:
    """By id the size of each image, or why it cannot be had."""
    return {row["id"]: picture(row["image"]) for row in load_dataset(path)}


def picture(image: Any) -> Any:
    """The size of an image as a dataset holds it, or a path or bytes; or why it cannot be had."""
    try:
        source = image_source(image) if isinstance(image, dict) else image
        read_source(source)
        return decode_image(source).size
    except BadImageError as error:
        return error.reason


def store(path: Path) -> tuple[Any, ...]:
    """All that an embedding file holds."""
    with EmbeddingStore(path) as file:
        texts = None if file.text_embeddings is None else file.text_embeddings[:].sum()
        hashes = file.content_hashes, file.has_text
        return len(file), file.ids, file.labels, *hashes, sorted(file.attributes), file.embeddings[:].sum(), texts


def stored_clusters(path: Path) -> Any:
    """The clusters in an embedding file."""
    with EmbeddingStore(path) as file:
        return None if file.clusters is None else file.clusters.labels.tolist()


def index(path: Path) -> Any:
    """The index beside an embedding file."""
    with EmbeddingStore(path) as file:
        return VectorIndex.open(file)


def clusters(path: Path) -> list[int]:
    """The labels of a clusters file, whatever else is computed from it having been so."""
    loaded = Clusters.load(path)
    loaded.blocks(), loaded.raw_labels, loaded.dropped, loaded.select(loaded.ids[:1])
    return loaded.labels.tolist()


def config(path: Path) -> Any:
    """The configuration in a YAML file."""
    return make_config({}, path)


def metrics(path: Path) -> Any:
    """The metrics of the run that is ``path``."""
    return Run(path).read_metrics()


def encoder(model: str, pretrained: str | None = None) -> int:
    """The dimensions of a model's embeddings."""
    loaded = load_encoder(model, pretrained, image_size=32, device="cpu")
    return loaded.encode(torch.zeros(1, 3, 32, 32)).shape[1]


def adapter(spec: str, records: dict[str, list[Any]]) -> list[int]:
    """The labels an adapter gives a column of values made from ``records``."""
    return make_adapter(spec).assign(datasets.Dataset.from_dict(records)).labels.tolist()


def checkpoint(folder: Path) -> bool:
    """Whether there was a checkpoint to go on from."""
    return Checkpoints(folder).restore({"head": torch.nn.Linear(2, 2)})


def sentence_model(name: str) -> Any:
    """The class of a sentence-transformers model."""
    return type(load_model(name)).__name__
