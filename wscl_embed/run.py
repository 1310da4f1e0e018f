"""The run directory: one place for everything a run makes."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wscl_embed.config import SAME_RESULT, FitConfig, differences, make_config
from wscl_embed.errors import InputError
from wscl_embed.files import clear_leftovers, leftovers, remove, storage_errors, write_text
from wscl_embed.progress import say


@dataclass(frozen=True)
class Run:
    """The paths of a run.

    ==================== ==================================================================
    ``config.yaml``      repeats the run: ``wscl-embed fit --config``
    ``clusters.parquet`` `wscl_embed.Clusters`
    ``checkpoints/``     the last two training states, for ``--resume``
    ``model/``           the tuned model, as open_clip saves and loads it
    ``embeddings.h5``    `wscl_embed.EmbeddingStore` of the tuned model
    ``metrics.json``     before and after, and how training went
    ``quarantine.csv``   images left out, each with its reason
    ``report.html``      the run to look at, in any browser
    ==================== ==================================================================
    """

    folder: Path

    config = property(lambda self: self.folder / "config.yaml")
    clusters = property(lambda self: self.folder / "clusters.parquet")
    checkpoints = property(lambda self: self.folder / "checkpoints")
    model = property(lambda self: self.folder / "model")
    embeddings = property(lambda self: self.folder / "embeddings.h5")
    metrics = property(lambda self: self.folder / "metrics.json")
    quarantine = property(lambda self: self.folder / "quarantine.csv")
    report = property(lambda self: self.folder / "report.html")
    tensorboard = property(lambda self: self.folder / "tensorboard")

    def check(self, config: FitConfig, *, overwrite: bool, resume: bool) -> None:
        """Whether a run with ``config`` may be written here; changes nothing.

        Raises:
            InputError: the folder exists and neither option was given; it is no run, so it is not overwritten; the
                run to resume is not there or has another config (names the difference).
        """
        if overwrite and resume:
            raise InputError("give --overwrite or --resume, not both.")
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"{self.folder} is a file; name another --output.")
        check_place(self.folder)
        there = set(self.folder.iterdir()) if self.folder.is_dir() else set()
        taken = bool(there - set(leftovers(self.folder)))
        if resume and not taken:
            say(f"{self.folder}: there is no run to resume yet, so it begins.")
        elif resume:
            if not self.config.is_file():
                raise InputError(f"{self.folder}: there is no run to resume (no config.yaml).")
            self._check_same(config)
        elif taken and not overwrite:
            raise InputError(f"{self.folder} exists. Give --overwrite to replace it, or --resume to continue its run.")
        elif taken and not self.config.is_file():
            raise InputError(f"{self.folder} is not a run (no config.yaml), so --overwrite leaves it alone.")

    def begin(self, config: FitConfig, *, overwrite: bool) -> None:
        """Make the folder and write the config. `check` comes first."""
        with storage_errors(self.folder):
            place = self.folder.resolve()  # a link stays one: what it leads to may be on a larger disk
            clear_leftovers(place.parent, place.name)
            if overwrite and place.is_dir():
                remove(place)
            place.mkdir(parents=True, exist_ok=True)
            for folder in (self.folder, self.model):
                clear_leftovers(folder)
        write_text(self.config, config.to_yaml())

    def _check_same(self, config: FitConfig) -> None:
        old = make_config({}, self.config).resolved().model_dump(exclude=set(SAME_RESULT))
        new = config.model_dump(exclude=set(SAME_RESULT))
        if old != new:
            raise InputError(
                f"{self.folder}: --resume with other options than the run began with: {differences(old, new)}. Give "
                "the old ones, another --output, or --overwrite to begin anew."
            )

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write ``metrics.json``."""
        write_text(self.metrics, json.dumps(metrics, indent=2) + "\n")

    def read_metrics(self) -> dict[str, Any]:
        """Read ``metrics.json``.

        Raises:
            InputError: the run has none.
        """
        if not self.metrics.is_file():
            raise InputError(f"{self.folder}: no metrics.json, so no finished run.")
        try:
            metrics: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.metrics}: does not parse ({error}); run fit again.") from error
        return metrics


def check_place(path: Path) -> None:
    """See that ``path`` can be made: better said before the work than after.

    Raises:
        InputError: a file where a folder is needed, or a folder nothing may be written into.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise InputError(f"{path}: {folder} is a file, not a folder.")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{path}: nothing may be written into {folder}.")
