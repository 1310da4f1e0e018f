"""The forgetting guard: how far to go from the frozen weights to the tuned ones (WiSE-FT).

Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022, arXiv 2109.01903: the weights
(1 - alpha) frozen + alpha tuned often retrieve better than either end, and lose less of what the encoder knew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wscl_embed.evaluation.bootstrap import Change, PerQuery, change_of, resample_changes

ALPHAS = tuple(step / 10 for step in range(11))
BLIND_ALPHA = 0.3
"""Where there is nothing to choose on: of what was tried, the best trade (benchmarks/LOG.md)."""

TOLERANCE = 0.005
"""What a metric may lose on the validation images, half a point."""

GUARDED = ("recall@1", "map@r", "text_to_image_recall@10")
"""What must not be lost, where it can be measured."""


@dataclass(frozen=True)
class Candidate:
    """A mixture as the validation images see it, against the frozen encoder.

    ============== ===============================================================================
    ``alpha``      0 is the frozen encoder, 1 the tuned one
    ``means``      guarded metric -> mean
    ``changes``    guarded metric -> `Change` from the frozen encoder
    ``gain``       mean of the changes over the metrics
    ``error``      standard error of ``gain``, from the same resamples for all metrics of a query
    ============== ===============================================================================
    """

    alpha: float
    means: dict[str, float]
    changes: dict[str, Change]
    gain: float
    error: float

    @property
    def admissible(self) -> bool:
        """Whether no metric loses more than `TOLERANCE`."""
        return all(change.mean >= -TOLERANCE for change in self.changes.values())

    def as_dict(self) -> dict[str, Any]:
        """For ``metrics.json``."""
        changes = {name: {"mean": c.mean, "low": c.low, "high": c.high} for name, c in self.changes.items()}
        return {"alpha": self.alpha, **self.means, "change": changes, "admissible": self.admissible}


def candidate(alpha: float, frozen: PerQuery, mixed: PerQuery) -> Candidate:
    """What the mixture ``alpha`` gains.

    Args:
        frozen: metric name -> one value a query, of the frozen encoder.
        mixed: the same of the mixture.
    """
    names = [name for name in GUARDED if name in frozen]
    draws = resample_changes({name: frozen[name] for name in names}, {name: mixed[name] for name in names})
    changes = {name: change_of(mixed[name] - frozen[name], draws[name]) for name in names}
    means = {name: float(mixed[name].mean()) for name in names}
    gain = float(np.mean([change.mean for change in changes.values()]))
    return Candidate(alpha, means, changes, gain, float(np.mean([draws[name] for name in names], axis=0).std()))


def choose(sweep: list[Candidate]) -> float:
    """The alpha that gains most among the admissible; 0 where that is no more than one standard error.

    >>> sweep = [Candidate(a, {}, {}, gain, 0.01) for a, gain in ((0.0, 0.0), (0.1, 0.02), (0.2, 0.06), (0.3, 0.05))]
    >>> choose(sweep), choose(sweep[:1])
    (0.2, 0.0)
    """
    best = max((one for one in sweep if one.admissible), key=lambda one: one.gain)
    return best.alpha if best.gain > best.error else 0.0


def describe(report: Mapping[str, Any]) -> str:
    """How far it went and why, in one line, from ``guard`` of ``metrics.json``.

    >>> describe({"alpha": 0.3, "chosen_on": None, "given": False}).split(", ")[1]
    'the default where too few validation images have labels or captions to choose it by'
    >>> describe({"alpha": 1.0, "chosen_on": None, "given": False})
    'the weights written are the tuned ones, for random ones know nothing to be kept'
    >>> describe({"alpha": 0.5, "chosen_on": None, "given": True})
    'the weights written are 0.5 of the way from the frozen to the tuned ones'
    """
    alpha, split = report["alpha"], report["chosen_on"]
    if split is not None and alpha == 0:
        return (
            f"the frozen encoder is kept: on the {report['images']} images of the split {split} no mixture with the "
            "tuned weights gained more than its standard error without a loss"
        )
    chosen = "" if split is None else f", chosen on the {report['images']} images of the split {split}"
    if split is None and not report.get("given", True):
        few = ", the default where too few validation images have labels or captions to choose it by"
        chosen = ", for random ones know nothing to be kept" if alpha == 1 else few
    if alpha == 1:
        return f"the weights written are the tuned ones{chosen}"
    return f"the weights written are {alpha:g} of the way from the frozen to the tuned ones{chosen}"


def mix(frozen: Mapping[str, Tensor], tuned: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """The weights (1 - alpha) frozen + alpha tuned, exact at both ends.

    Batch norms' running statistics are mixed as well, which is an approximation: the mixture's own would have to be
    measured on images. Counters and other integers are the tuned model's.

    Args:
        frozen: state dict of the frozen model.
        tuned: of the tuned one.
        alpha: 0 to 1.

    >>> mix({"w": torch.tensor([1.0]), "n": torch.tensor(3)}, {"w": torch.tensor([3.0]), "n": torch.tensor(7)}, 0.25)
    {'w': tensor([1.5000]), 'n': tensor(7)}
    """
    if alpha in (0, 1):
        return dict(tuned if alpha == 1 else frozen)
    return {
        name: torch.lerp(frozen[name].to(weight), weight, alpha) if weight.is_floating_point() else weight
        for name, weight in tuned.items()
    }
