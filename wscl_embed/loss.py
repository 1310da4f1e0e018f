r"""Cl-InfoNCE over a membership matrix, in O(B d) memory.

Tsai et al., "Learning Weakly-supervised Contrastive Representations", ICLR 2022 (arXiv 2202.06670). With hard clusters
it equals SupCon's L_out (Khosla et al., 2020, arXiv 2004.11362), whose expectation over one drawn positive is the
paper's Cl-InfoNCE; with no clusters it is NT-Xent (Chen et al., 2020, arXiv 2002.05709).

With w_ij the weight of the pair of rows i, j, W_i its sum over j and s_ij = <z_i, z_j>::

    L = mean over i with W_i > 0 of   logsumexp_{a != i}(s_ia / t)  -  (1 / W_i) sum_j w_ij s_ij / t

The weights are never formed: with M the membership matrix, sum_j w_ij z_j = m_i (M^T Z) up to the row's own image. Only
the log-sum-exp is quadratic, and it is computed in tiles whose logits are never stored, forward and backward.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

if TYPE_CHECKING:
    from scipy import sparse

TILE = 1024  # rows and columns of a tile: 4 MB of float32 logits, which stay in a core's cache


def cl_infonce(z: Tensor, membership: Tensor | sparse.csr_array, temperature: float | Tensor = 0.1) -> Tensor:
    """The Cl-InfoNCE loss of one batch.

    Two rows of the same image attract with weight 1; rows of images b and c with weight <m_b, m_c>. An image without
    memberships (noise) attracts its own other views only.

    Args:
        z: (B, V, P) float, L2-normalised along P: V views of each of B images.
        membership: (B,) LongTensor of cluster ids with -1 for noise; or (B, K) non-negative memberships as a torch
            sparse CSR tensor or a SciPy CSR array.
        temperature: float, or a scalar tensor that may require a gradient; > 0.

    Returns:
        scalar of the dtype of ``z``; 0 (with a zero gradient) when no row has a positive.

    Raises:
        ValueError: shapes that do not fit.

    >>> z = torch.nn.functional.normalize(torch.tensor([[[1., 0.], [1., .1]], [[0., 1.], [.1, 1.]]]), dim=-1)
    >>> round(cl_infonce(z, torch.tensor([-1, -1])).item(), 4)
    0.0003
    >>> cl_infonce(z, torch.tensor([0, 0])) > cl_infonce(z, torch.tensor([0, 1]))
    tensor(True)
    """
    if z.ndim != 3:
        raise ValueError(f"z must be (B, V, P): B images, V views, P dimensions; got {tuple(z.shape)}.")
    entries = _entries(membership, len(z), z.device)
    # One scale on both sides divides every similarity by the temperature, and lets a learned one have its gradient.
    scaled = z / torch.as_tensor(temperature, dtype=z.dtype, device=z.device).sqrt()
    positive, weight = _positives(scaled, entries)  # (B, V) each
    has_positive = weight > 0
    denominator = RowLogSumExp.apply(scaled.flatten(0, 1)).view_as(positive)
    # A lone row has an empty denominator (-inf); it has no positive either, so it is masked, not multiplied.
    per_row = torch.where(has_positive, denominator - positive / weight.clamp_min(1e-30), 0.0)
    return per_row.sum() / has_positive.sum().clamp_min(1)


class _Entries(NamedTuple):
    """The non-zeros of a (B, K) membership matrix, columns renumbered to those present."""

    rows: Tensor  # (nnz,) int64
    columns: Tensor  # (nnz,) int64 in [0, n_columns)
    values: Tensor  # (nnz,) float64
    n_columns: int


def _entries(membership: Any, n_images: int, device: torch.device) -> _Entries:
    if isinstance(membership, Tensor) and membership.layout == torch.strided:
        if membership.shape != (n_images,):
            raise ValueError(
                f"membership must be ({n_images},) cluster ids or ({n_images}, K) sparse CSR; "
                f"got a dense tensor of shape {tuple(membership.shape)}."
            )
        labels = membership.to(device)
        rows = (labels >= 0).nonzero().squeeze(1)
        columns, values = labels[rows], torch.ones(len(rows), dtype=torch.float64, device=device)
    else:
        if isinstance(membership, Tensor):
            indptr, columns = membership.crow_indices(), membership.col_indices()
            values = membership.values()
        else:
            indptr, columns = torch.as_tensor(membership.indptr), torch.as_tensor(membership.indices)
            values = torch.as_tensor(membership.data)
        if len(indptr) != n_images + 1:
            raise ValueError(f"membership has {len(indptr) - 1} rows for {n_images} images.")
        counts = indptr.long().diff()
        rows = torch.repeat_interleave(torch.arange(n_images, device=counts.device), counts).to(device)
        columns, values = columns.to(device), values.to(device, torch.float64)
    present, columns = torch.unique(columns, return_inverse=True)
    return _Entries(rows, columns, values, len(present))


def _positives(z: Tensor, entries: _Entries) -> tuple[Tensor, Tensor]:
    """sum_j w_ij <z_i, z_j> and W_i = sum_j w_ij, both (B, V), without a pair matrix."""
    n_images, n_views, _ = z.shape
    rows, columns, values, n_columns = entries
    image_sum = z.sum(1)  # (B, P)
    # Weights in float64: W_i is a difference of sums and must be exactly 0 for a cluster of one image.
    column_sum = values.new_zeros(n_columns).index_add(0, columns, values)
    square = values.new_zeros(n_images).index_add(0, rows, values * values)
    others = values.new_zeros(n_images).index_add(0, rows, values * column_sum[columns]) - square
    others = torch.where(others > 1e-9 * square, others, 0.0)
    weight = (n_views - 1 + n_views * others).to(z.dtype)

    values = values.to(z.dtype)
    centre = z.new_zeros(n_columns, z.shape[2]).index_add(0, columns, values[:, None] * image_sum.index_select(0, rows))
    pull = z.new_zeros(n_images, z.shape[2]).index_add(0, rows, values[:, None] * centre.index_select(0, columns))
    pull = pull + (1 - square.to(z.dtype))[:, None] * image_sum
    positive = (z * pull[:, None]).sum(-1) - (z * z).sum(-1)
    return positive, weight[:, None].expand_as(positive)


class RowLogSumExp(torch.autograd.Function):
    """(R, P) -> (R,) logsumexp over a != i of <z_i, z_a>, in tiles; the backward recomputes them."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        z = z.contiguous()
        lse = torch.empty(len(z), dtype=z.dtype, device=z.device)
        for start in range(0, len(z), TILE):
            running = z.new_full((len(z[start : start + TILE]),), -torch.inf)
            for column in range(0, len(z), TILE):
                running = torch.logaddexp(running, _logits(z, start, column).logsumexp(1))
            lse[start : start + TILE] = running
        # A lone row has no other: its -inf would turn into NaN in the backward, the lowest number does not.
        ctx.save_for_backward(z, lse.clamp_min(torch.finfo(z.dtype).min))
        return lse

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        z, lse = ctx.saved_tensors
        out = torch.zeros_like(z)
        for start in range(0, len(z), TILE):
            rows = slice(start, start + TILE)
            # The logits are symmetric: a tile (rows, columns) above the diagonal serves (columns, rows) as well.
            for column in range(start, len(z), TILE):
                columns = slice(column, column + TILE)
                logits = _logits(z, start, column)
                pull = (logits - lse[rows, None]).exp() * grad[rows, None]
                pull += (logits - lse[None, columns]).exp() * grad[None, columns]
                out[rows] += pull @ z[columns]
                if column != start:
                    out[columns] += pull.T @ z[rows]
        return out


def _logits(z: Tensor, start: int, column: int) -> Tensor:
    tile = z[start : start + TILE] @ z[column : column + TILE].T
    if start == column:
        tile.fill_diagonal_(-torch.inf)
    return tile
