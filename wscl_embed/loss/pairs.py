"""The logits of all pairs of rows, one tile at a time, of which nothing is kept.

The logits are symmetric, x_ij = scale <z_i, z_j>, so a tile serves its rows and, mirrored, its columns: every tile is
computed once a pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from wscl_embed.loss.terms import PairTerm
from wscl_embed.loss.weights import Positives, Weights

TILE = 2048  # images a side: 16 MiB of float32 logits, a compromise told in benchmarks/LOG.md
MIN_SLAB = 32  # dimensions: half a cache line of half precisions
SAFE_LOGIT = 60.0  # e^60 times the number of rows, and its inverse, are still far from the limits of float32


class Tile(NamedTuple):
    """Logits of some rows (images of one view) with some columns."""

    rows: tuple[slice, int]  # into (b, V), the rows of this rank
    columns: tuple[slice, int]  # into (B, V), the rows of every rank
    mirror: tuple[slice, int] | None  # the columns as rows of this rank, where they must be served from this tile
    is_diagonal: bool  # rows and columns are the same
    positives: Positives | None  # None where not asked for


@dataclass
class Pairs:
    """All pairs of a rank's rows with every rank's rows.

    Args:
        given: (B, V, P) float, the rows of every rank.
        own: the images of this rank.
        scale: scalar, 1 / temperature.
        weights: of all B images.
        term: the cost of a positive pair.
    """

    given: Tensor
    own: slice
    scale: Tensor
    weights: Weights
    term: PairTerm

    def __post_init__(self) -> None:
        # A tile's list of positives may be several times the size of its logits.
        self._side = TILE if self.term.is_linear else -(-TILE // 2)

    @property
    def dtype(self) -> torch.dtype:
        """Of the arithmetic: float32 for half precisions."""
        return self.given.dtype if self.given.dtype == torch.float64 else torch.float32

    @cached_property
    def z(self) -> Tensor:
        """(B, V, P) the rows in `dtype`."""
        return self.given.to(self.dtype)

    def slabs(self) -> Iterator[tuple[slice, Tensor]]:
        """Some dimensions of all rows at a time, about a tile's size: which, and (B, V, number of them) in `dtype`."""
        n_images, n_views, dim = self.given.shape
        step = max(MIN_SLAB, TILE**2 // max(1, n_images * n_views))
        for dims in _cut(0, dim, step):
            yield dims, self.given[..., dims].to(self.dtype)

    @cached_property
    def _alpha(self) -> float:
        return self.scale.item()  # waits for the GPU if it is there

    @cached_property
    def is_bounded(self) -> bool:
        """Whether e^x needs no shift. By Cauchy-Schwarz, |x_ij| <= scale max |z|^2."""
        longest = torch.linalg.vector_norm(self.z, dim=-1).amax() if self.z.numel() else 0.0
        return bool(self._alpha * longest**2 <= SAFE_LOGIT)

    def new_buffer(self) -> Tensor:
        """Room for any tile."""
        return self.z.new_empty(min(self._side, len(self.given)) ** 2)

    @cached_property
    def _buffer(self) -> Tensor:
        return self.new_buffer()

    def tiles(self, with_positives: bool) -> Iterator[Tile]:
        """Each pair of a row of this rank with another row of any rank, in exactly one tile (or its mirror)."""
        start, n_views = self.own.start, self.given.shape[1]
        own = _cut(start, self.own.stop, self._side)
        others = _cut(0, start, self._side) + _cut(self.own.stop, len(self.given), self._side)
        for number, a in enumerate(own):
            for b in own[number:] + others:
                is_own = start <= b.start < self.own.stop
                positives = self.weights.positives(a, b, self.dtype) if with_positives else None
                for v in range(n_views):
                    # On the diagonal, views (u, v) are the mirror of (v, u).
                    for u in range(v if a == b else 0, n_views):
                        if self.weights.cross_view_only and u == v:
                            continue
                        is_diagonal = a == b and u == v
                        mirrored = is_own and not is_diagonal
                        yield Tile(
                            rows=(_shift(a, -start), v),
                            columns=(b, u),
                            mirror=(_shift(b, -start), u) if mirrored else None,
                            is_diagonal=is_diagonal,
                            positives=positives.without_diagonal() if positives and is_diagonal else positives,
                        )

    def logits(self, tile: Tile) -> Tensor:
        """(rows, columns), -inf for a row with itself; overwritten by the next call."""
        rows, columns = self.z[self.own][tile.rows], self.z[tile.columns]
        out = self._buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
        torch.addmm(out, rows, columns.T, beta=0, alpha=self._alpha, out=out)
        return out.fill_diagonal_(-torch.inf) if tile.is_diagonal else out


def _cut(start: int, stop: int, side: int) -> list[slice]:
    return [slice(at, min(at + side, stop)) for at in range(start, stop, side)]


def _shift(images: slice, by: int) -> slice:
    return slice(images.start + by, images.stop + by)
