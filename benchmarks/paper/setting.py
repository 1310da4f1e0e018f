"""What all methods share: images, frozen features, labels for scoring, the budget of steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from wscl_embed.cache import default_cache_dir
from wscl_embed.config import make_config
from wscl_embed.dataset import load_dataset, split_rows
from wscl_embed.encoder_sources import load_encoder
from wscl_embed.evaluation.scores import EvaluationSet, Scores
from wscl_embed.features import encode_images
from wscl_embed.stages.material import with_features
from wscl_embed.train import TrainOptions

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Setting:
    """Everything a method may use, and what it is scored on.

    ========== ========================================================================================
    ``train``  the n training images, with the frozen features for the adapters that read them
    ``views``  (n, 1 + V, D) float16, the image as it is and V augmented views of each
    ``frozen`` (N, D) float32 of all images
    ``labels`` N labels: read by the scores and by SupCon alone
    ``rows``   split -> (q,) int64
    ========== ========================================================================================
    """

    train: datasets.Dataset
    views: NDArray[np.floating]
    frozen: NDArray[np.floating]
    labels: list[object]
    rows: Mapping[str, NDArray[np.int64]]

    def score(self, weight: torch.Tensor | None, split: str, *, probes: bool = True) -> Scores:
        """The scores of a (D, D) map of the frozen features on a split; None is the frozen encoder."""
        outputs = self.frozen if weight is None else self.frozen @ weight.numpy().T
        bank = self.rows["train"] if probes else np.zeros(0, dtype=np.int64)
        return EvaluationSet(self.rows[split], self.labels, bank).score(outputs)


def open_setting(data: str, label_column: str, image_size: int, views: int = 4) -> Setting:
    """Read the dataset and encode it once; the features are cached on disk."""
    dataset = load_dataset(data)
    encoder = load_encoder("efficientnet-lite0", image_size=image_size)
    cache: dict[str, Any] = {"cache_dir": Path(default_cache_dir())}
    frozen = encode_images(encoder, dataset, what="encoding images", **cache)
    dataset = dataset.select(frozen.rows)
    rows = {split: np.asarray(split_rows(dataset, split), dtype=np.int64) for split in ("train", "val", "test")}
    train = dataset.select(rows["train"])
    values = frozen.values[:, 0]
    augmented = encode_images(encoder, train, n_views=views, what="encoding views", **cache).values
    plain = values[rows["train"], None].astype(np.float16)
    labels = list(dataset[label_column])
    return Setting(
        with_features(train, values[rows["train"]]), np.concatenate([plain, augmented], axis=1), values, labels, rows
    )


def hold_out(setting: Setting) -> Setting:
    """Three fifths of the training images to train on; the others and the validation images are the split "held-out".

    For comparing variants: four times the queries of the validation split tell differences half as large from chance.
    """
    shuffled = np.random.default_rng(7).permutation(len(setting.train))
    kept, others = (np.sort(part) for part in np.split(shuffled, [round(0.6 * len(shuffled))]))
    train = setting.rows["train"]
    rows = {"train": train[kept], "held-out": np.concatenate([setting.rows["val"], train[others]])}
    return replace(setting, train=setting.train.select(kept), views=setting.views[kept], rows=rows)


def budget(seed: int, **changes: Any) -> TrainOptions:
    """The options of ``wscl-embed fit --tune head``, which every method gets: as many steps, batches as large."""
    config = make_config({"data": "-", "adapter": ["none"], "output": "-", "seed": seed, **changes}).resolved()
    return TrainOptions(**config.model_dump(include=set(TrainOptions.__dataclass_fields__)))
