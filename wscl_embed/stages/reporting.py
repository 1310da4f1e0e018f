"""The report of a run, written when everything else is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.config import FitConfig
from wscl_embed.errors import WsclEmbedError
from wscl_embed.progress import say
from wscl_embed.run import Run
from wscl_embed.stages.material import Material


def write_report(
    run: Run, material: Material, tuned: NDArray[np.floating], metrics: dict[str, Any], config: FitConfig
) -> None:
    """Write ``report.html``, or say in one line why there is none: the run is complete without it, and not lost."""
    from wscl_embed import report

    given = report.ReportInput(
        name=run.folder.absolute().name,
        config=config.model_dump(),
        metrics=metrics,
        dataset=material.dataset,
        embeddings=tuned,
        clusters=material.clusters,
        quarantine=material.quarantine,
        label_column=config.label_column,
    )
    try:
        report.write_report(run.report, given, seed=config.seed)
    except Exception as error:  # whatever it was, hours of training must not end in its traceback
        problem = str(error) if isinstance(error, WsclEmbedError) else f"{type(error).__name__}: {error}"
        line = f"no report.html, the run is complete without it: {problem}"
        say(line, "yellow")
