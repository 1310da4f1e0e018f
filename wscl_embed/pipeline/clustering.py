"""`cluster`: signals to clusters, without training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.adapter import Adapter
from wscl_embed.cache import cache_at
from wscl_embed.clusters import Clusters
from wscl_embed.config import make_config
from wscl_embed.pipeline.places import check_file
from wscl_embed.registry import make_adapter

if TYPE_CHECKING:
    import datasets


def cluster(
    data: str | Path | datasets.Dataset,
    adapter: str | Adapter | Sequence[str | Adapter],
    output: str | Path | None = None,
    *,
    adapter_weight: Sequence[float] = (),
    split: str | None = None,
    overwrite: bool = False,
    batch_size: int = 512,
    **encoder_options: Any,
) -> Clusters:
    """Turn signals into `Clusters` and say what they are, without training.

    Args:
        data: what `wscl_embed.load_dataset` takes, or such a dataset; no images are needed, unless by an adapter.
        adapter: as in `fit`.
        output: a Parquet file to write them to.
        adapter_weight: one weight an adapter. Default: all 1.
        split: cluster the rows of this split only.
        overwrite: replace ``output``.
        batch_size: for the expected number of positives in a batch.
        encoder_options: ``model``, ``pretrained``, ``image_size``, ``device``, ``workers``, ``cache_dir`` as in
            `wscl_embed.config.FitConfig`, for adapters that look at the images.

    Raises:
        InputError: wrong use or bad input.
    """
    from wscl_embed import stages
    from wscl_embed.distributed import on_first, processes

    with processes():
        if output is not None:
            on_first(lambda: check_file(Path(output), overwrite))
        names = [adapter] if isinstance(adapter, (str, Adapter)) else list(adapter)
        adapters = [make_adapter(one) for one in names]
        reads_images = any(one.needs_image_features for one in adapters)
        dataset = stages.open_split(data, split, images=reads_images)
        config = make_config({"data": "-", "adapter": ["-"], "output": "-", **encoder_options})
        if reads_images:
            stages.check_images(dataset)
            features, good, quarantine = stages.frozen_features(stages.open_encoder(config), dataset, config)
            quarantine.check_share(len(dataset), config.max_bad_share)
            dataset = stages.with_features(good, features)
        with cache_at(config.cache_dir):
            clusters = on_first(lambda: stages.assign(adapters, dataset, list(adapter_weight), batch_size))
        if output is not None:
            on_first(lambda: clusters.save(output))
        return clusters
