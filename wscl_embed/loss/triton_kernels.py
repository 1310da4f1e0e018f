"""The two quadratic passes of InfoNCE as Triton kernels, for CUDA tensors.

A program holds a block of this rank's rows and streams the rows of every rank past them; the logits of two blocks live
in registers only. The backward makes them again and, as x_ij = x_ji, adds the force of both rows' denominators at once:
no atomics, so the same inputs give the same bits. Products of half-precision rows accumulate in float32.

`wscl_embed.loss.passes` is the same in PyTorch, and what these are tested against.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = 1.4426950408889634  # exp2 is the GPU's own exponential: logits are in base 2 throughout
LOWEST = -1e30  # instead of -inf where a difference with another -inf would be NaN

FORWARD_CONFIGS = [
    triton.Config({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK_M": 64, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=3),
    triton.Config({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=3),
    triton.Config({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=3),
]
# The force on BLOCK_P dimensions accumulates in registers; the logits are made again for every BLOCK_P of them.
BACKWARD_CONFIGS = [
    triton.Config({"BLOCK_M": 64, "BLOCK_N": 32, "BLOCK_K": 32, "BLOCK_P": 64}, num_warps=4, num_stages=2),
    triton.Config({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32, "BLOCK_P": 128}, num_warps=4, num_stages=2),
    triton.Config({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64, "BLOCK_P": 256}, num_warps=8, num_stages=2),
    triton.Config({"BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 64, "BLOCK_P": 128}, num_warps=8, num_stages=2),
]


def row_logsumexp(z: Tensor, own: slice, scale: float, cross_view_only: bool) -> Tensor:
    """(b, V) float32 log-sum-exp of each of a rank's rows over all other rows; -inf where there are none.

    Args:
        z: (B, V, P) float32, float16 or bfloat16, the rows of every rank.
        own: the images of this rank.
        scale: 1 / temperature.
        cross_view_only: leave out the rows of the anchor's view.
    """
    n_own, n_views, dim = z[own].shape
    if not n_own:
        return z.new_empty(0, n_views, dtype=torch.float32)
    lse = torch.empty(n_own, n_views, dtype=torch.float32, device=z.device)
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        lse_kernel[lambda meta: (triton.cdiv(n_own * n_views, meta["BLOCK_M"]),)](
            z.contiguous(),
            lse,
            own.start * n_views,
            n_own * n_views,
            len(z) * n_views,
            scale * LOG2_E,
            n_views,
            DIM=dim,
            CROSS_VIEW_ONLY=cross_view_only,
        )
    return lse.div_(LOG2_E)


def forces(z: Tensor, own: slice, scale: float, cross_view_only: bool, lse: Tensor, slope: Tensor) -> Tensor:
    """(b, V, P) float32: sum_j (slope_i softmax_i(x)_j + slope_j softmax_j(x)_i) z_j for each of a rank's rows i.

    Args:
        lse: (B, V) float32 of every rank's rows.
        slope: (B, V) float32, the gradient by ``lse``; others as for `row_logsumexp`.
    """
    n_own, n_views, dim = z[own].shape
    if not n_own:
        return z.new_empty(0, n_views, dim, dtype=torch.float32)
    out = torch.empty(n_own, n_views, dim, dtype=torch.float32, device=z.device)
    with torch.cuda.device_of(z):  # type: ignore[no-untyped-call]
        force_kernel[lambda meta: (triton.cdiv(n_own * n_views, meta["BLOCK_M"]), triton.cdiv(dim, meta["BLOCK_P"]))](
            z.contiguous(),
            (lse * LOG2_E).clamp_min(LOWEST).contiguous(),
            slope.contiguous(),
            out,
            own.start * n_views,
            n_own * n_views,
            len(z) * n_views,
            scale * LOG2_E,
            n_views,
            DIM=dim,
            CROSS_VIEW_ONLY=cross_view_only,
        )
    return out


@triton.jit
def _logits(
    z,
    rows,  # (M,) into the rows of every rank
    columns,  # (N,) the same
    n_rows,
    scale,
    n_views,
    DIM: tl.constexpr,
    CROSS_VIEW_ONLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> Any:
    """(M, N) scale <z_i, z_j>, -inf where i and j are no pair."""
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for k in range(0, DIM, BLOCK_K):
        at = k + tl.arange(0, BLOCK_K)
        a = tl.load(
            z + rows.to(tl.int64)[:, None] * DIM + at[None], (rows[:, None] < n_rows) & (at[None] < DIM), other=0.0
        )
        b = tl.load(
            z + columns.to(tl.int64)[None] * DIM + at[:, None],
            (columns[None] < n_rows) & (at[:, None] < DIM),
            other=0.0,
        )
        # tf32 would keep ten bits of a float32; half precisions are not affected.
        product = tl.dot(a, b, product, input_precision="ieee")
    is_pair = (rows[:, None] != columns[None]) & (rows[:, None] < n_rows) & (columns[None] < n_rows)
    if CROSS_VIEW_ONLY:
        is_pair = is_pair & (rows[:, None] % n_views != columns[None] % n_views)
    return tl.where(is_pair, product * scale, float("-inf"))


@triton.autotune(FORWARD_CONFIGS, key=["DIM"])
@triton.jit
def lse_kernel(
    z,  # (R, DIM)
    lse,  # (n_own,) out, in base 2
    first,  # of the own rows
    n_own,
    n_rows,
    scale,
    n_views,
    DIM: tl.constexpr,
    CROSS_VIEW_ONLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Log-sum-exp of BLOCK_M rows, with a running maximum."""
    own = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, n_rows, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        x = _logits(z, first + own, columns, n_rows, scale, n_views, DIM, CROSS_VIEW_ONLY, BLOCK_M, BLOCK_N, BLOCK_K)
        top_now = tl.maximum(top, tl.max(x, 1))
        shift = tl.where(top_now == float("-inf"), 0.0, top_now)  # a row may have met no pair yet
        total = total * tl.exp2(top - shift) + tl.sum(tl.exp2(x - shift[:, None]), 1)
        top = top_now
    tl.store(lse + own, top + tl.log2(total), own < n_own)


@triton.autotune(BACKWARD_CONFIGS, key=["DIM"])
@triton.jit
def force_kernel(
    z,  # (R, DIM)
    lse,  # (R,) in base 2, finite
    slope,  # (R,)
    out,  # (n_own, DIM)
    first,
    n_own,
    n_rows,
    scale,
    n_views,
    DIM: tl.constexpr,
    CROSS_VIEW_ONLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_P: tl.constexpr,
) -> None:
    """The forces on BLOCK_P dimensions of BLOCK_M rows."""
    own = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    dims = tl.program_id(1) * BLOCK_P + tl.arange(0, BLOCK_P)
    rows = first + own
    row_lse = tl.load(lse + rows, rows < n_rows, other=0.0)
    row_slope = tl.load(slope + rows, rows < n_rows, other=0.0)
    total = tl.zeros((BLOCK_M, BLOCK_P), tl.float32)
    for start in range(0, n_rows, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        x = _logits(z, rows, columns, n_rows, scale, n_views, DIM, CROSS_VIEW_ONLY, BLOCK_M, BLOCK_N, BLOCK_K)
        column_lse = tl.load(lse + columns, columns < n_rows, other=0.0)
        column_slope = tl.load(slope + columns, columns < n_rows, other=0.0)
        force = tl.exp2(x - row_lse[:, None]) * row_slope[:, None]
        force += tl.exp2(x - column_lse[None]) * column_slope[None]
        towards = tl.load(
            z + columns.to(tl.int64)[:, None] * DIM + dims[None],
            (columns[:, None] < n_rows) & (dims[None] < DIM),
            other=0.0,
        )
        total = tl.dot(force.to(towards.dtype), towards, total, input_precision="ieee")
    at = out + own.to(tl.int64)[:, None] * DIM + dims[None]
    tl.store(at, total, (own[:, None] < n_own) & (dims[None] < DIM))
