"""The jobs of the toolkit, end to end: `fit`, `cluster`, `embed`, `evaluate`. The command line mirrors them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.adapter import Adapter
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig, make_config
from wscl_embed.errors import InputError
from wscl_embed.progress import console
from wscl_embed.registry import adapter_spec, make_adapter
from wscl_embed.run import Run, check_place

if TYPE_CHECKING:
    import datasets
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class FitResult:
    """What `fit` made.

    ============ ==================================================================
    ``run``      the run directory
    ``metrics``  what ``metrics.json`` holds
    ``clusters`` `Clusters` of the images trained on
    ``dataset``  the n images that decode, all splits
    ``before``   (n, D) outputs of the frozen encoder for them, not normalised
    ``after``    (n, D) outputs of the tuned encoder, not normalised
    ``held_out`` the rows that were scored; empty without a label column
    ============ ==================================================================
    """

    run: Run
    metrics: dict[str, Any]
    clusters: Clusters
    dataset: datasets.Dataset
    before: NDArray[np.floating]
    after: NDArray[np.floating]
    held_out: NDArray[np.int64]


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
        data: what `wscl_embed.load_dataset` takes, or such a dataset.
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
    adapters = [adapter] if isinstance(adapter, (str, Adapter)) else list(adapter)
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
    from wscl_embed.distributed import processes

    with processes():
        return _run_fit(config.resolved(), config.data if data is None else data, adapters, overwrite, resume)


def _run_fit(
    config: FitConfig,
    data: str | Path | datasets.Dataset,
    adapters: Sequence[str | Adapter],
    overwrite: bool,
    resume: bool,
) -> FitResult:
    """On several processes all do everything; what writes is done by the first alone."""
    from wscl_embed import stages
    from wscl_embed.distributed import on_first

    run = Run(Path(config.output))
    on_first(lambda: run.check(config, overwrite=overwrite, resume=resume))
    seconds: dict[str, float] = {}
    made = [make_adapter(one) for one in adapters or config.adapter]
    with _timed(seconds, "load"):
        dataset = stages.open_dataset(data, config)
        encoder = stages.open_encoder(config)
    with _timed(seconds, "features and clusters"):
        material = stages.prepare(dataset, encoder, made, config, known=run.clusters if resume else None)
    held_out = stages.held_out_rows(material.dataset, config)
    on_first(lambda: stages.begin(run, material, config, overwrite=overwrite))
    with _timed(seconds, "training"):
        tuned, history = stages.tune(encoder, material, config, run)
    with _timed(seconds, "writing"):
        on_first(lambda: stages.write_results(encoder, material, tuned, config, run))
    metrics = {
        **stages.score(material, tuned, held_out, config),
        "clusters": material.summary,
        "images": len(material.dataset),
        "quarantined": len(material.quarantine),
        "training": history,
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    on_first(lambda: run.write_metrics(metrics))
    return FitResult(run, metrics, material.clusters, material.dataset, material.frozen, tuned, held_out)


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
        data: what `wscl_embed.load_dataset` takes, or such a dataset.
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
            on_first(lambda: _check_file(Path(output), overwrite))
        names = [adapter] if isinstance(adapter, (str, Adapter)) else list(adapter)
        adapters = [make_adapter(one) for one in names]
        dataset = stages.open_split(data, split)
        config = make_config({"data": "-", "adapter": ["-"], "output": "-", **encoder_options})
        if any(one.needs_image_features for one in adapters):
            features, good, quarantine = stages.frozen_features(stages.open_encoder(config), dataset, config)
            quarantine.check_share(len(dataset), config.max_bad_share)
            dataset = stages.with_features(good, features)
        clusters = on_first(lambda: stages.assign(adapters, dataset, list(adapter_weight), batch_size))
        if output is not None:
            on_first(lambda: clusters.save(output))
        return clusters


def embed(
    data: str | Path | datasets.Dataset,
    model: str,
    output: str | Path,
    *,
    pretrained: str | None = None,
    image_size: int | None = None,
    split: str | None = None,
    dtype: str = "float32",
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    max_bad_share: float = 0.05,
    overwrite: bool = False,
) -> Path:
    """Embed images into an HDF5 file, batch by batch, in bounded memory; under ``torchrun`` each process its part.

    Args:
        data: what `wscl_embed.load_dataset` takes, or such a dataset.
        model: a run, its ``model/``, or anything else `wscl_embed.load_encoder` takes.
        output: the HDF5 file; images left out are named in ``<output>.quarantine.csv``.

    Returns:
        The path of the file.

    Raises:
        InputError: wrong use or bad input, or more bad images than ``max_bad_share``; no file is written then.
    """
    from wscl_embed import stages
    from wscl_embed.distributed import on_first, processes
    from wscl_embed.embedding import write_embeddings
    from wscl_embed.encoder_sources import load_encoder

    path = Path(output)
    chosen = {"image_size": image_size, "dtype": dtype, "workers": workers, "max_bad_share": max_bad_share}
    make_config({"data": "-", "adapter": ["-"], "output": "-", **chosen})  # refuses values outside their limits
    with processes():
        on_first(lambda: _check_file(path, overwrite))
        dataset = stages.open_split(data, split)
        encoder = load_encoder(model, pretrained, image_size=image_size, device=device)
        quarantine = write_embeddings(
            encoder,
            dataset,
            path,
            dtype=dtype,
            attributes=stages.store_attributes(encoder, dataset, adapters=[]),
            batch_size=batch_size,
            workers=workers,
            max_bad_share=max_bad_share,
        )
        on_first(lambda: quarantine.write(path.with_name(f"{path.name}.quarantine.csv")))
    return path


def evaluate(
    embeddings: str | Path,
    data: str | Path | datasets.Dataset,
    label_column: str,
    *,
    split: str | None = "test",
    before: str | Path | None = None,
) -> dict[str, Any]:
    """Score an embedding file by image-to-image retrieval, alone or against another file over the same images.

    Args:
        embeddings: an HDF5 file, or a run.
        data: the images it was made from, for their labels.
        label_column: the column of labels.
        split: score this split only; None: all images.
        before: the embedding file to compare with.

    Returns:
        As in ``metrics.json``: ``split``, ``label_column``, ``n_queries``, ``after`` and, with ``before``, ``before``,
        ``change`` and ``verdict``.

    Raises:
        InputError: wrong use or bad input.
    """
    from wscl_embed import stages

    dataset = stages.open_split(data, split)
    stages.check_label_column(dataset, label_column)
    after_ids, after = _read_embeddings(Path(embeddings))
    before_ids, frozen = _read_embeddings(Path(before)) if before is not None else (after_ids, None)
    labels = dict(zip(dataset["id"], dataset[label_column], strict=True))
    rows = {image_id: row for row, image_id in enumerate(after_ids)}
    rows_before = {image_id: row for row, image_id in enumerate(before_ids)}
    ids = [image_id for image_id in after_ids if image_id in labels and image_id in rows_before]
    if not ids:
        raise InputError(f"{embeddings} holds none of the {len(dataset)} images of {data} to evaluate.")
    return {
        "split": split,
        "label_column": label_column,
        **stages.compare_embeddings(
            None if frozen is None else frozen[[rows_before[one] for one in ids]],
            after[[rows[one] for one in ids]],
            [labels[one] for one in ids],
        ),
    }


def search(run: str | Path, image: str | Path, *, k: int = 10) -> list[tuple[str, float]]:
    """The k images of a run most like one image, with the run's own encoder.

    Args:
        run: the directory `fit` wrote.
        image: an image file.

    Returns:
        (id, cosine similarity), most similar first.

    Raises:
        InputError: no such run, or an image that cannot be decoded.
    """
    import torch

    from wscl_embed.encoder_sources import load_encoder
    from wscl_embed.images import BadImageError, decode_image
    from wscl_embed.store import EmbeddingStore

    folder = Path(run)
    try:
        query = decode_image(Path(image))
    except BadImageError as error:
        raise InputError(f"{image}: {error.reason}.") from error
    with EmbeddingStore(folder / "embeddings.h5") as store:
        encoder = load_encoder(str(folder / "model"), device="cpu")
        if encoder.weights_hash() != store.attributes["weights_hash"]:
            raise InputError(f"{folder}: embeddings.h5 was not made by the encoder in model/; embed the images again.")
        with torch.inference_mode():
            vector = encoder.encode(encoder.preprocess(query)[None])[0].numpy()
        return store.search(vector, k)


def _read_embeddings(path: Path) -> tuple[list[str], NDArray[np.floating]]:
    from wscl_embed.store import EmbeddingStore

    with EmbeddingStore(path / "embeddings.h5" if path.is_dir() else path) as store:
        return store.ids, store.embeddings[:]


def _check_file(path: Path, overwrite: bool) -> None:
    """Whether the file ``path`` may be written; changes nothing."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file to write.")
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists. Give --overwrite to replace it.")
    check_place(path)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
    console().print(f"[dim]{stage}: {seconds[stage]:.1f} s[/dim]")
