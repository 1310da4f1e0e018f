"""`fit`: the whole job, from signals to a run directory."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed import interruption
from wscl_embed.adapter import Adapter
from wscl_embed.cache import cache_at
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig, make_config
from wscl_embed.progress import console
from wscl_embed.registry import adapter_spec, as_adapters, make_adapter
from wscl_embed.run import Run

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray

    from wscl_embed.encoder import Encoder
    from wscl_embed.stages import Material, Tuned


@dataclass(frozen=True)
class FitResult:
    """What `fit` made.

    ============ ==================================================================
    ``run``      the run directory
    ``metrics``  what ``metrics.json`` holds
    ``clusters`` `Clusters` of the images trained on
    ``dataset``  the n images that decode, all splits
    ``before``   (n, D) outputs of the frozen encoder for them, not normalised
    ``after``    (n, D) outputs of the encoder that is written, not normalised
    ``held_out`` the rows that were scored; empty without a column to score by
    ============ ==================================================================
    """

    run: Run
    metrics: dict[str, Any] = field(repr=False)
    clusters: Clusters
    dataset: datasets.Dataset = field(repr=False)
    before: NDArray[np.floating] = field(repr=False)
    after: NDArray[np.floating] = field(repr=False)
    held_out: NDArray[np.int64] = field(repr=False)


def fit(
    data: str | Path | datasets.Dataset,
    adapter: str | Adapter | Sequence[str | Adapter],
    output: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    **options: Any,
) -> FitResult:
    """Cluster by the signals, fine-tune an encoder on the clusters, write the run directory, compare before and after.

    Args:
        data: what `wscl_embed.load_dataset` takes, or a `datasets.Dataset` with a column of images.
        adapter: ``name:option=value,...`` or an `Adapter`, or several.
        output: the run directory.
        overwrite: replace a run that is there.
        resume: continue a run that was interrupted, with the same options.
        options: the fields of `wscl_embed.config.FitConfig`.

    Returns:
        `FitResult`; everything is in ``output`` as well.

    Raises:
        InputError: wrong use or bad input; nothing was written then.

    Example::

        result = wscl_embed.fit("photos/", "hashtags:column=tags", "runs/photos", label_column="category")
        print(result.metrics["after"]["recall@1"])
    """
    adapters = as_adapters(adapter)
    config = make_config(
        {
            "data": str(data) if isinstance(data, (str, Path)) else "(a Dataset from Python)",
            "adapter": [adapter_spec(one) for one in adapters],
            "output": str(output),
            **options,
        }
    )
    return run_fit(config, data=data, adapters=adapters, overwrite=overwrite, resume=resume)


def run_fit(
    config: FitConfig,
    *,
    data: str | Path | datasets.Dataset | None = None,
    adapters: Sequence[str | Adapter] = (),
    overwrite: bool = False,
    resume: bool = False,
) -> FitResult:
    """`fit` from a `FitConfig`; ``data`` and ``adapters`` stand in for its names where Python has the objects."""
    from wscl_embed.distributed import on_first, processes
    from wscl_embed.pipeline.places import alone

    config, run = config.resolved(), Run(Path(config.output))
    kept = interruption.keeping(f"The run up to its last checkpoint is in {config.output}.")
    with interruption.handled(), kept, processes(), cache_at(config.cache_dir):
        on_first(lambda: run.check(config, overwrite=overwrite, resume=resume))
        with alone(run.folder):
            return _run_fit(run, config, config.data if data is None else data, adapters, overwrite, resume)


def _run_fit(
    run: Run,
    config: FitConfig,
    data: str | Path | datasets.Dataset,
    adapters: Sequence[str | Adapter],
    overwrite: bool,
    resume: bool,
) -> FitResult:
    """On several processes all do everything; what writes is done by the first alone."""
    from wscl_embed import stages
    from wscl_embed.distributed import on_first

    seconds: dict[str, float] = {}
    cache = stages.cache_dir(config)
    with interruption.keeping(f"Training had not begun; features of all images that were finished are in {cache}."):
        made = [make_adapter(one) for one in adapters or config.adapter]
        encoder, material = _prepare(config, data, made, run if resume else None, seconds)
        held_out = stages.held_out_rows(material.dataset, config)
        on_first(lambda: stages.begin(run, material, config, overwrite=overwrite))
    with _timed(seconds, "training"):
        tuned = stages.tune(encoder, material, made, config, run)
    return _finish(encoder, material.with_clusters(tuned.clusters, config), tuned, held_out, config, run, seconds)


def _prepare(
    config: FitConfig,
    data: str | Path | datasets.Dataset,
    adapters: Sequence[Adapter],
    resumed: Run | None,
    seconds: dict[str, float],
) -> tuple[Encoder, Material]:
    """The encoder, and what it is to be tuned on: with the clusters that a ``resumed`` run began with."""
    from wscl_embed import stages
    from wscl_embed.distributed import on_first

    stages.check_reclustering(adapters, config)
    with _timed(seconds, "load"):
        dataset = stages.with_validation(stages.open_dataset(data, config), config)
    with _timed(seconds, "clusters of signals"):  # before the encoder: a wrong column is said before gigabytes load
        known = on_first(lambda: None if resumed is None else _clusters_of(resumed))
        clusters = stages.cluster_signals(dataset, adapters, config) if known is None else known
    with _timed(seconds, "encoder"):
        encoder = stages.open_encoder(config)
    with _timed(seconds, "features and clusters of images"):
        return encoder, stages.prepare(dataset, encoder, adapters, config, clusters)


def _finish(
    encoder: Encoder,
    material: Material,
    tuned: Tuned,
    held_out: NDArray[np.int64],
    config: FitConfig,
    run: Run,
    seconds: dict[str, float],
) -> FitResult:
    """How far to go from the frozen to the tuned weights; then all that a run writes, the scores of ``held_out``."""
    from wscl_embed import stages
    from wscl_embed.captions import encode_all_captions, text_encoder
    from wscl_embed.distributed import on_first

    texts = None
    if config.caption_column is not None:
        with _timed(seconds, "captions"):
            texts = encode_all_captions(encoder, material.dataset, config.caption_column)
    encode_texts = text_encoder(encoder, texts)
    with _timed(seconds, "mixing"):
        outputs, guard = stages.guard(tuned.mixture, encode_texts, material, config)
    with _timed(seconds, "writing"):
        on_first(lambda: stages.write_results(encoder, material, outputs, texts, config, run))
    with _timed(seconds, "scoring"):
        scores = on_first(lambda: stages.score(encode_texts, material, outputs, held_out, config))
    metrics = {
        **scores,
        "guard": guard,
        "clusters": material.summary,
        "images": len(material.dataset),
        "quarantined": len(material.quarantine),
        "training": tuned.history,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    on_first(lambda: stages.write_card(encoder, material, metrics, config, run))
    on_first(lambda: run.write_metrics(metrics))
    with _timed({}, "report"):
        on_first(lambda: stages.write_report(run, material, outputs, metrics, config))
    return FitResult(run, metrics, material.clusters, material.dataset, material.frozen, outputs, held_out)


def _clusters_of(run: Run) -> Clusters | None:
    """Those an interrupted run began with."""
    return Clusters.load(run.clusters) if run.clusters.is_file() else None


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
    console().print(f"[dim]{stage}: {seconds[stage]:.1f} s[/dim]")
