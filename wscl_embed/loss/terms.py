"""What a positive pair costs, given its logit and the log-sum-exp of its anchor; and the slopes of that cost."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Denominator = Literal["all", "negatives"]


class PairTerm(NamedTuple):
    r"""The cost phi(x, l) of a positive pair with logit x whose anchor has the log-sum-exp l.

    With D the denominator of the pair, e^l or, for ``"negatives"``, e^x + e^l::

        q = 0:  log D - x                          (InfoNCE; SINCERE with "negatives")
        q > 0:  ((lam D)^q - e^(q x)) / q          (RINCE)

    >>> logit, lse = torch.tensor(0.5), torch.tensor(2.0)
    >>> round(PairTerm().value(logit, lse).item(), 4)
    1.5
    >>> round(PairTerm("negatives").value(logit, lse).item(), 4)
    1.7014
    >>> round(PairTerm("all", q=1e-4).value(logit, lse).item(), 3)
    1.5
    """

    denominator: Denominator = "all"
    q: float = 0.0
    lam: float = 1.0

    @property
    def is_linear(self) -> bool:
        """Whether phi = l - x, so that the sum over positives needs no pass over pairs."""
        return self.denominator == "all" and self.q == 0

    def value(self, x: Tensor, lse: Tensor) -> Tensor:
        """phi, of the broadcast shape of ``x`` and ``lse``."""
        if self.q == 0:
            return lse - x if self.denominator == "all" else -logsigmoid(x - lse)
        # expm1 on both sides keeps the digits that a difference of two numbers near 1 / q would lose as q -> 0.
        return (torch.expm1(self.q * self._log_denominator(x, lse)) - torch.expm1(self.q * x)) / self.q

    def slopes(self, x: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
        """d phi / d x and d phi / d l."""
        # What the pair adds to its own denominator, beyond what l holds of it.
        share = torch.zeros_like(x) if self.denominator == "all" else torch.sigmoid(x - lse)
        if self.q == 0:
            return share - 1, 1 - share
        power = torch.exp(self.q * self._log_denominator(x, lse))
        return power * share - torch.exp(self.q * x), power * (1 - share)

    def _log_denominator(self, x: Tensor, lse: Tensor) -> Tensor:
        return math.log(self.lam) + (lse if self.denominator == "all" else torch.logaddexp(x, lse))
