"""`cluster`: signals to clusters, without training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.adapter import Adapter
from wscl_embed.cache import cache_at
from wscl_embed.clusters import Clusters
from wscl_embed.config import FitConfig, make_config
from wscl_embed.errors import InputError, nearest
from wscl_embed.files import write_text
from wscl_embed.limits import MAX_REPEATS
from wscl_embed.pipeline.places import check_file
from wscl_embed.progress import say
from wscl_embed.registry import as_adapters, make_adapter

if TYPE_CHECKING:
    import datasets

    from wscl_embed.diagnostics import Diagnostics

ENCODER_OPTIONS = ("model", "pretrained", "image_size", "device", "workers", "cache_dir", "max_bad_share")
NAMED = 5  # bad images


@dataclass(frozen=True)
class ClusterResult:
    """What `run_cluster` made.

    =============== =======================================
    ``clusters``    `Clusters` of all adapters side by side
    ``diagnostics`` what is said of those of each adapter
    =============== =======================================
    """

    clusters: Clusters
    diagnostics: Diagnostics


def cluster(
    data: str | Path | datasets.Dataset,
    adapter: str | Adapter | Sequence[str | Adapter],
    output: str | Path | None = None,
    *,
    stability: int = 3,
    **options: Any,
) -> Clusters:
    """Turn signals into `Clusters` and say what they are, without training.

    Args:
        data: what `wscl_embed.load_dataset` takes, or a `datasets.Dataset`; images are needed only where an adapter
            reads them.
        adapter: as in `fit`.
        output: a Parquet file to write them to.
        stability: clusterings to compare, for ``diagnostics``; not measured without such a file.
        options: the others of `run_cluster`.

    Raises:
        InputError: wrong use or bad input.

    Example::

        clusters = wscl_embed.cluster("photos/", ["hashtags", "captions:column=title"])
        print(clusters.table.sort_values("size").tail())
    """
    repeats = stability if options.get("diagnostics") is not None else 0
    return run_cluster(data, adapter, output, stability=repeats, **options).clusters


def run_cluster(
    data: str | Path | datasets.Dataset,
    adapter: str | Adapter | Sequence[str | Adapter],
    output: str | Path | None = None,
    *,
    adapter_weight: Sequence[float] = (),
    split: str | None = None,
    label_column: str | None = None,
    stability: int = 3,
    diagnostics: str | Path | None = None,
    plot: str | Path | None = None,
    overwrite: bool = False,
    batch_size: int = 512,
    **encoder_options: Any,
) -> ClusterResult:
    """`cluster`, with what `wscl_embed.diagnostics.diagnose` finds.

    Args:
        data, adapter, output: as in `cluster`.
        adapter_weight: one weight an adapter. Default: all 1.
        split: cluster the rows of this split only.
        label_column: column of labels to hold the clusters against; adapters never see it as such.
        stability: clusterings of each kind to compare (`wscl_embed.diagnostics.measure_stability`); 0 for none.
        diagnostics: a JSON file to write them to.
        plot: a PNG for the information plane; needs ``label_column``.
        overwrite: replace these files.
        batch_size: for the expected number of positives in a batch.
        encoder_options: `ENCODER_OPTIONS` as in `wscl_embed.config.FitConfig`, for adapters that look at the images.

    Raises:
        InputError: wrong use or bad input; nothing was written then.
    """
    from wscl_embed import stages
    from wscl_embed.diagnostics import diagnose
    from wscl_embed.distributed import on_first, processes

    for name in encoder_options:
        if name not in ENCODER_OPTIONS:
            raise InputError(f"unknown option {name!r}. {nearest(name, ENCODER_OPTIONS)}")
    config = make_config({"data": "-", "adapter": ["-"], "output": "-", **encoder_options})
    with processes(), cache_at(config.cache_dir):
        places = [Path(path) for path in (output, diagnostics, plot) if path is not None]
        on_first(lambda: _check(places, overwrite, plot, label_column, stability))
        given = as_adapters(adapter)
        adapters = stages.named([make_adapter(one) for one in given])
        stages.check_weights(list(adapters.values()), adapter_weight)
        dataset, parts = _cluster(data, adapters, split, label_column, config, batch_size)
        labels = None if label_column is None else stages.read_labels(dataset, label_column)
        measured = on_first(lambda: stages.measure_parts(adapters, dataset, stability) if stability else {})
        found = on_first(lambda: diagnose(parts, labels=labels, batch_size=batch_size, stability=measured))
        result = ClusterResult(stages.combine(parts, adapter_weight), found)
        on_first(lambda: _write(result, output, diagnostics, plot))
        return result


def _check(
    places: Sequence[Path], overwrite: bool, plot: str | Path | None, label_column: str | None, stability: int
) -> None:
    """Refuse, before any work, places that are taken and options that do not go together."""
    from wscl_embed.diagnostics.plot import load_matplotlib

    for path in places:
        check_file(path, overwrite)
    if len({path.resolve() for path in places}) < len(places):
        raise InputError("--output, --diagnostics and --plot must be different files.")
    if stability and not 2 <= stability <= MAX_REPEATS:
        raise InputError(f"--stability compares clusterings: 0, or 2 to {MAX_REPEATS}; got {stability}.")
    if plot is None:
        return
    if label_column is None:
        raise InputError("--plot shows the clusters against labels: name their column with --label-column.")
    load_matplotlib()


def _cluster(
    data: str | Path | datasets.Dataset,
    adapters: Mapping[str, Adapter],
    split: str | None,
    label_column: str | None,
    config: FitConfig,
    batch_size: int,
) -> tuple[datasets.Dataset, dict[str, Clusters]]:
    """The rows to cluster, with image features where an adapter reads them, and the clusters by adapter."""
    from wscl_embed import stages
    from wscl_embed.distributed import on_first

    reads_images = any(one.needs_image_features for one in adapters.values())
    dataset = stages.open_split(data, split, images=reads_images)
    if reads_images:
        stages.check_images(dataset)
    stages.check_column(dataset, "label_column", label_column)
    signals = on_first(lambda: stages.assign_signals(adapters, dataset, batch_size))
    if not reads_images:
        return dataset, signals
    found, good, quarantine = stages.frozen_features(stages.open_encoder(config), dataset, config)
    quarantine.check_share(len(dataset), config.max_bad_share)
    if len(quarantine):
        named = ", ".join(f"{row.id}: {row.reason}" for row in islice(quarantine, NAMED))
        say(f"bad images left out: {len(quarantine)} ({named}{', ...' * (len(quarantine) > NAMED)})", "yellow")
    good = stages.with_features(good, found.values[:, 0])
    return good, on_first(lambda: stages.assign_others(adapters, signals, good, batch_size))


def _write(
    result: ClusterResult, output: str | Path | None, diagnostics: str | Path | None, plot: str | Path | None
) -> None:
    from wscl_embed.diagnostics import plot_information_plane

    if output is not None:
        result.clusters.save(output)
    if diagnostics is not None:
        write_text(Path(diagnostics), json.dumps(result.diagnostics.to_dict(), indent=2, ensure_ascii=False) + "\n")
    if plot is not None:
        plot_information_plane(result.diagnostics.planes, plot)
