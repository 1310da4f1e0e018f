"""What the loss needs of all pairs of rows: their log-sum-exps, their losses and their forces on each other.

When the logits are known to be small enough, exp needs no shift by a running maximum and serves both sides of a tile;
otherwise each side has its own shift.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

from wscl_embed.loss.pairs import Pairs, Tile


def row_logsumexp(pairs: Pairs) -> Tensor:
    """(b, V) log-sum-exp of the logits in the denominator of each row of this rank; -inf where there are none."""
    kernels = _kernels(pairs)
    if kernels is not None:
        lse: Tensor = kernels.row_logsumexp(pairs.given, pairs.own, pairs.scale, pairs.weights.cross_view_only)
        return lse
    only_negatives = pairs.term.denominator == "negatives"
    out = pairs.z.new_full(pairs.z[pairs.own].shape[:2], 0.0 if pairs.is_bounded else -torch.inf)
    for tile in pairs.tiles(with_positives=only_negatives):
        logits = pairs.logits(tile)
        if tile.positives is not None:
            logits[tile.positives.rows, tile.positives.columns] = -torch.inf
        sides = [(tile.rows, 1)] if tile.mirror is None else [(tile.rows, 1), (tile.mirror, 0)]
        if pairs.is_bounded:
            logits.exp_()
        for rows, dim in sides:
            if pairs.is_bounded:
                out[rows] += logits.sum(dim)
            else:
                out[rows] = torch.logaddexp(out[rows], logits.logsumexp(dim))
    return out.log_() if pairs.is_bounded else out


def row_terms(pairs: Pairs, lse: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of each row of this rank and its slope in the row's log-sum-exp ``lse``, all (b, V).

    sum_j w_ij phi(x_ij, lse_i) / W_i; NaN or anything where W_i = 0.
    """
    total = pairs.weights.total[pairs.own, None].to(lse.dtype)
    if pairs.term.is_linear:
        positive = torch.zeros_like(lse)
        for _, z in pairs.slabs():
            positive += (z[pairs.own] * pairs.weights.pull(z)[pairs.own]).sum(-1)
        return lse - pairs.scale * positive / total, torch.ones_like(lse)
    value, slope = torch.zeros_like(lse), torch.zeros_like(lse)
    for tile in pairs.tiles(with_positives=True):
        assert tile.positives is not None
        at_row, at_column, weights = tile.positives
        logits = pairs.logits(tile)[at_row, at_column]
        sides = [(tile.rows, at_row)] if tile.mirror is None else [(tile.rows, at_row), (tile.mirror, at_column)]
        for rows, at in sides:
            row_lse = lse[rows][at]
            value[rows].index_add_(0, at, weights * pairs.term.value(logits, row_lse))
            slope[rows].index_add_(0, at, weights * pairs.term.slopes(logits, row_lse)[1])
    return value / total, slope / total


def pull(pairs: Pairs, lse: Tensor, slope: Tensor) -> Tensor:
    """(b, V, P): the gradient of the sum of every rank's row losses by this rank's rows, divided by ``scale``.

    Args:
        lse: (B, V) of every rank's rows.
        slope: (B, V) of each row's loss in its ``lse``; 0 for a row without a positive.
    """
    kernels = _kernels(pairs)
    if kernels is not None:
        cross_view_only = pairs.weights.cross_view_only
        out: Tensor = kernels.forces(pairs.given, pairs.own, pairs.scale, cross_view_only, lse, slope)
    else:
        out = _forces(pairs, lse, slope)
    if pairs.term.is_linear:
        share = _share(pairs)[..., None]
        for dims, z in pairs.slabs():
            out[..., dims] -= share[pairs.own] * pairs.weights.pull(z)[pairs.own]
            out[..., dims] -= pairs.weights.pull(share * z)[pairs.own]
    return out


def _forces(pairs: Pairs, lse: Tensor, slope: Tensor) -> Tensor:
    """(b, V, P) what `pull` is, except that the positives do not attract where their cost is linear."""
    z, own, term = pairs.z, pairs.own, pairs.term
    out = torch.zeros_like(z[own])
    softmax = _Softmax(pairs, lse, slope)
    for tile in pairs.tiles(with_positives=not term.is_linear):
        logits = pairs.logits(tile)
        if tile.positives is None:
            force = softmax.force(logits, tile)
        else:
            at_row, at_column, weights = tile.positives
            attraction = weights * _attraction(pairs, logits[at_row, at_column], tile, lse)
            if term.denominator == "negatives":
                logits[at_row, at_column] = -torch.inf
            force = softmax.force(logits, tile)
            force[at_row, at_column] += attraction
        out[tile.rows].addmm_(force, z[tile.columns])
        if tile.mirror is not None:
            out[tile.mirror].addmm_(force.T, z[own][tile.rows])
    return out


def _kernels(pairs: Pairs) -> ModuleType | None:
    """The Triton kernels where they can do what is asked."""
    z = pairs.given
    if not (z.is_cuda and z.dtype != torch.float64 and pairs.term.is_linear and _compiles_kernels(z.device)):
        return None
    return import_module("wscl_embed.loss.triton_kernels")


@cache
def _compiles_kernels(device: torch.device) -> bool:
    """Whether Triton makes good ones for this GPU: it has no tensor cores before Ampere, no `PRECISION` for AMD's."""
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < (8, 0) or not find_spec("triton"):
        return False
    version: str = import_module("triton").__version__
    return tuple(map(int, version.split(".")[:2])) >= (3, 3)  # 3.2 aborts the process at some configurations


def _share(pairs: Pairs) -> Tensor:
    """(B, V) 1 / W_i, of every rank's rows; 0 without a positive."""
    total = pairs.weights.total
    return torch.where(total > 0, 1 / total, 0.0).to(pairs.dtype)[:, None].expand(pairs.given.shape[:2])


class _Softmax:
    """slope_i softmax_i(x)_j + slope_j softmax_j(x)_i, the force between the rows of a pair from their denominators."""

    def __init__(self, pairs: Pairs, lse: Tensor, slope: Tensor) -> None:
        self.is_bounded, self.own = pairs.is_bounded, pairs.own
        # A row alone in its denominator has -inf: its NaN is kept out here, and by a finite lse below.
        self.lse, self.slope = lse.clamp_min(torch.finfo(lse.dtype).min), slope
        self.factor = torch.where(slope == 0, 0.0, slope * torch.exp(-self.lse))
        self._buffer = pairs.new_buffer()

    def force(self, logits: Tensor, tile: Tile) -> Tensor:
        """(rows, columns), in the place of ``logits``."""
        other = self._buffer[: logits.numel()].view_as(logits)
        if self.is_bounded:
            torch.add(self.factor[self.own][tile.rows][:, None], self.factor[tile.columns][None], out=other)
            return logits.exp_().mul_(other)
        torch.sub(logits, self.lse[tile.columns][None], out=other).exp_().mul_(self.slope[tile.columns][None])
        logits.sub_(self.lse[self.own][tile.rows][:, None]).exp_().mul_(self.slope[self.own][tile.rows][:, None])
        return logits.add_(other)


def _attraction(pairs: Pairs, logits: Tensor, tile: Tile, lse: Tensor) -> Tensor:
    """(n,) phi'(x_ij, l_i) / W_i + phi'(x_ij, l_j) / W_j of the positive pairs of a tile, whose ``logits`` are (n,)."""
    assert tile.positives is not None
    at_row, at_column, _ = tile.positives
    own, slopes, share = pairs.own, pairs.term.slopes, _share(pairs)
    from_rows = slopes(logits, lse[own][tile.rows][at_row])[0] * share[own][tile.rows][at_row]
    from_columns = slopes(logits, lse[tile.columns][at_column])[0] * share[tile.columns][at_column]
    return from_rows + from_columns
