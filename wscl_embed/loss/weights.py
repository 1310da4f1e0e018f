"""Pair weights from memberships: sums over all positives at low rank, or the positives of one tile at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy import sparse


class Entries(NamedTuple):
    """The stored entries of a (B, K) membership matrix, in any order."""

    rows: Tensor  # (nnz,) int64 in [0, B)
    columns: Tensor  # (nnz,) int64
    values: Tensor  # (nnz,) float64


class Positives(NamedTuple):
    """The pairs of a tile with a weight above 0."""

    rows: Tensor  # (n,) int64, within the tile
    columns: Tensor  # (n,) int64
    weights: Tensor  # (n,)

    def without_diagonal(self) -> Positives:
        """Those of a row with another."""
        other = self.rows != self.columns
        return Positives(self.rows[other], self.columns[other], self.weights[other])


def entries_of(membership: Tensor | sparse.sparray | sparse.spmatrix | NDArray[np.integer], n_images: int) -> Entries:
    """The entries of a membership of any kind, on its device: on the CPU, counting them waits for no GPU.

    Raises:
        ValueError: it is not one row for each of ``n_images`` images, ids are no integers, or a membership is negative
            or not finite.

    >>> entries_of(torch.tensor([7, -1, 2]), 3).rows
    tensor([0, 2])
    """
    if hasattr(membership, "tocsr") or (isinstance(membership, Tensor) and membership.layout != torch.strided):
        return _sparse_entries(membership, n_images)
    ids = torch.as_tensor(membership)
    is_integer = not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)
    if ids.shape != (n_images,) or not is_integer:
        raise ValueError(
            f"membership must be ({n_images},) integer cluster ids or ({n_images}, K) sparse CSR; "
            f"got a dense array of shape {tuple(ids.shape)} and {ids.dtype}."
        )
    rows = (ids >= 0).nonzero().squeeze(1)
    return Entries(rows, ids[rows].long(), torch.ones(len(rows), dtype=torch.float64, device=rows.device))


def _sparse_entries(membership: Any, n_images: int) -> Entries:
    indptr, columns, values = _csr_parts(membership)
    if len(indptr) != n_images + 1:
        raise ValueError(f"membership has {len(indptr) - 1} rows for {n_images} images.")
    if not ((values >= 0) & (values < torch.inf)).all():  # NaN is neither
        raise ValueError("memberships must be finite and not negative.")
    counts = indptr.long().diff()
    rows = torch.repeat_interleave(torch.arange(n_images, device=counts.device), counts)
    return Entries(rows, columns.long(), values.to(torch.float64))


def _csr_parts(membership: Any) -> tuple[Tensor, Tensor, Tensor]:
    if isinstance(membership, Tensor):
        if membership.layout != torch.sparse_csr:
            raise ValueError(f"membership must be sparse CSR; got {membership.layout}: call its to_sparse_csr().")
        return membership.crow_indices(), membership.col_indices(), membership.values()
    rows = membership.tocsr()  # the index arrays of SciPy's CSC look the same and mean something else
    return torch.as_tensor(rows.indptr), torch.as_tensor(rows.indices), torch.as_tensor(rows.data)


class Weights:
    """The pair weights of (B, V) rows: w = 1 for two views of one image, <m_b, m_c> for images b and c.

    A row's weight with itself is 0; with ``cross_view_only``, so is that of any two rows of the same view.

    Attributes:
        total: (B,) float64, W_i = sum_j w_ij, the same for each view of an image; exactly 0 without a positive.

    >>> entries = entries_of(torch.tensor([0, 0, -1]), 3)
    >>> Weights(entries, n_images=3, n_views=2).total
    tensor([3., 3., 1.], dtype=torch.float64)
    >>> Weights(entries, n_images=3, n_views=2, cross_view_only=True).total
    tensor([2., 2., 1.], dtype=torch.float64)
    """

    def __init__(
        self,
        entries: Entries,
        n_images: int,
        n_views: int,
        cross_view_only: bool = False,
        device: torch.device | None = None,
    ) -> None:
        """Sort and count where ``entries`` are; what the loss works with goes to ``device`` (default: the same)."""
        self.cross_view_only = cross_view_only
        present, columns = torch.unique(entries.columns, return_inverse=True)
        shape = (n_images, len(present))
        # Coalesced: sorted by row, and an entry stored twice is the sum of both.
        matrix = _sparse(entries.rows, columns, entries.values, shape).coalesce()
        rows, values = matrix.indices()[0], matrix.values()
        square = values.new_zeros(n_images).index_add(0, rows, values * values)  # (B,) <m_b, m_b>
        total = n_views - 1 + (n_views - cross_view_only) * _others(matrix)
        self._matrix, self._square, self.total = (part.to(device or values.device) for part in (matrix, square, total))

    def pull(self, z: Tensor) -> Tensor:
        """(B, V, P) -> (B, V, P): sum_j w_ij z_j for every row i, as m_i (M^T Z) up to the row's own image."""
        towards = z.sum(1, keepdim=True)
        if self.cross_view_only:
            towards = towards - z
        matrix = self._matrix.to(z.dtype)
        pulled: Tensor = (matrix @ (matrix.t() @ towards.flatten(1))).view_as(towards)
        pulled += (1 - self._square).to(z.dtype)[:, None, None] * towards
        return pulled.expand_as(z) if self.cross_view_only else pulled - z

    def positives(self, a: slice, b: slice, dtype: torch.dtype) -> Positives:
        """Which images of the slice ``a`` share something with which of ``b``; an image does with itself, weight 1."""
        rows, columns, values = self._slice(a)
        present, local = torch.unique(columns, return_inverse=True)
        other_rows, other_columns, other_values = self._slice(b)
        met = torch.isin(other_columns, present)
        opposite = torch.zeros(len(present), b.stop - b.start, dtype=dtype, device=values.device)
        opposite[torch.searchsorted(present, other_columns[met]), other_rows[met]] = other_values[met].to(dtype)
        weights = _sparse(rows, local, values.to(dtype), (a.stop - a.start, len(present))) @ opposite
        if a == b:
            weights.fill_diagonal_(1)
        rows, columns = weights.nonzero(as_tuple=True)
        return Positives(rows, columns, weights[rows, columns])

    def _slice(self, images: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Rows (from 0), columns and values of the entries of some images."""
        rows = self._matrix.indices()[0]
        within = slice(
            *torch.searchsorted(rows, torch.tensor([images.start, images.stop], device=rows.device)).tolist()
        )
        return rows[within] - images.start, self._matrix.indices()[1][within], self._matrix.values()[within]


def _others(matrix: Tensor) -> Tensor:
    """(B,) sum over the other images c of <m_b, m_c>, of the coalesced (B, K) memberships."""
    rows, columns, values = *matrix.indices(), matrix.values()
    column_sum = values.new_zeros(matrix.shape[1]).index_add(0, columns, values)
    # Entry by entry, and not sum_k m_bk s_k - <m_b, m_b>: for a cluster of one image this is 0 without rounding.
    return values.new_zeros(len(matrix)).index_add(0, rows, values * (column_sum[columns] - values))


def _sparse(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    # The indices are our own. Saying so also keeps newer torch from warning that it does not check them.
    return torch.sparse_coo_tensor(torch.stack([rows, columns]), values, shape, check_invariants=False)
