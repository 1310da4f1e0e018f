"""How far the guard goes from the frozen to the tuned map, chosen on the validation split as `fit` chooses it."""

from __future__ import annotations

import torch

from benchmarks.paper.setting import Setting
from wscl_embed.guard import ALPHAS, candidate, choose


def choose_alpha(setting: Setting, weight: torch.Tensor) -> float:
    """The share of the way to a (D, D) map that ``--wise-ft auto`` would go."""
    identity = torch.eye(len(weight))
    scores = {
        alpha: setting.score(torch.lerp(identity, weight, alpha), "val", probes=False).per_query for alpha in ALPHAS
    }
    return choose([candidate(alpha, scores[0.0], found) for alpha, found in scores.items()])
