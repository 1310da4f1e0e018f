"""The two quadratic passes of InfoNCE as Triton kernels, for CUDA tensors on Ampere GPUs and newer.

A program holds a block of this rank's rows and streams the rows of every rank past them; the logits of two blocks live
in registers only. The backward makes them again and, as x_ij = x_ji, adds the force of both rows' denominators at once:
no atomics, so the same inputs give the same bits. Products accumulate in float32.

`wscl_embed.loss.passes` is the same in PyTorch, and what these are tested against.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

LOG2_E = tl.constexpr(math.log2(math.e))  # exp2 is the GPU's own exponential: logits are in base 2 throughout
LOWEST = -1e30  # instead of -inf where a difference with another -inf would be NaN
# Of float32 rows: on tensor cores, in three products of parts of ten bits. Half precisions are not affected.
PRECISION = tl.constexpr("tf32x3")


def _config(num_warps: int, num_stages: int, **blocks: int) -> triton.Config:
    return triton.Config({f"BLOCK_{name}": size for name, size in blocks.items()}, num_warps, num_stages)


# Chosen by what the compiler makes of them (benchmarks.kernels), for want of a GPU: none spills registers. Float32
# takes 32 dimensions at a time, half precisions 64; blocks of all dimensions are read once and stay in shared memory.
FORWARD_CONFIGS = [
    _config(4, 3, M=64, N=64, K=32),
    _config(8, 3, M=128, N=64, K=32),
    _config(8, 3, M=128, N=128, K=32),
    _config(4, 3, M=64, N=128, K=64),
    _config(8, 3, M=128, N=128, K=64),
    _config(8, 3, M=128, N=256, K=64),
    _config(8, 2, M=128, N=128, K=128),
    _config(8, 2, M=128, N=64, K=256),
    _config(4, 2, M=64, N=64, K=512),
]
# The force on P dimensions accumulates in registers; the logits are made again for every P of them.
BACKWARD_CONFIGS = [
    _config(4, 2, M=64, N=32, K=32, P=64),
    _config(8, 2, M=64, N=32, K=32, P=128),
    _config(8, 2, M=128, N=32, K=32, P=128),
    _config(8, 2, M=128, N=64, K=64, P=64),
    _config(8, 2, M=128, N=64, K=64, P=128),
    _config(8, 2, M=64, N=64, K=64, P=256),
    _config(4, 2, M=64, N=64, K=128, P=128),
    _config(8, 2, M=128, N=64, K=128, P=128),
    _config(8, 2, M=128, N=128, K=128, P=128),
    _config(8, 2, M=64, N=64, K=256, P=256),
    _config(8, 2, M=128, N=64, K=256, P=256),
    _config(8, 3, M=64, N=32, K=512, P=512),
    _config(8, 2, M=64, N=64, K=512, P=512),
]


def suited(configs: list[triton.Config], arguments: dict[str, Any], **constants: Any) -> list[triton.Config]:
    """The configurations worth a try for rows of this dtype and width."""
    width = max(64, triton.next_power_of_2(constants["DIM"]))
    steps = {32} if arguments["z"].dtype == torch.float32 else {64, width}
    return [c for c in configs if c.kwargs["BLOCK_K"] in steps and c.kwargs.get("BLOCK_P", 0) <= width]


def row_logsumexp(z: Tensor, own: slice, scale: Tensor, cross_view_only: bool) -> Tensor:
    """(b, V) float32 log-sum-exp of each of a rank's rows over all other rows; -inf where there are none.

    Args:
        z: (B, V, P) float32, float16 or bfloat16, the rows of every rank.
        own: the images of this rank.
        scale: float32 scalar, 1 / temperature, on any device.
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
            scale.to(z.device, non_blocking=True),
            n_views,
            DIM=dim,
            CROSS_VIEW_ONLY=cross_view_only,
        )
    return lse.div_(LOG2_E.value)


def forces(z: Tensor, own: slice, scale: Tensor, cross_view_only: bool, lse: Tensor, slope: Tensor) -> Tensor:
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
            (lse * LOG2_E.value).clamp_min(LOWEST).contiguous(),
            slope.contiguous(),
            out,
            own.start * n_views,
            n_own * n_views,
            len(z) * n_views,
            scale.to(z.device, non_blocking=True),
            n_views,
            DIM=dim,
            CROSS_VIEW_ONLY=cross_view_only,
        )
    return out


@triton.jit
def _load(z, rows, dims, n_rows, DIM: tl.constexpr) -> Any:
    """(M, K) the dimensions ``dims`` (K,) of ``rows`` (M,), 0 beyond the last of either."""
    at = rows.to(tl.int64)[:, None] * DIM + dims[None]
    return tl.load(z + at, (rows[:, None] < n_rows) & (dims[None] < DIM), other=0.0)


@triton.jit
def _products(
    z,
    rows,  # (M,) into the rows of every rank
    columns,  # (N,) the same
    n_rows,
    DIM: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> Any:
    """(M, N) <z_i, z_j>, BLOCK_K dimensions at a time."""
    product = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, DIM, BLOCK_K):
        dims = start + tl.arange(0, BLOCK_K)
        a, b = _load(z, rows, dims, n_rows, DIM), _load(z, columns, dims, n_rows, DIM)
        product = tl.dot(a, tl.trans(b), product, input_precision=PRECISION)
    return product


@triton.jit
def _logits(product, rows, columns, n_rows, factor, n_views, CROSS_VIEW_ONLY: tl.constexpr) -> Any:
    """(M, N) factor <z_i, z_j>, -inf where i and j are no pair."""
    is_pair = (rows[:, None] != columns[None]) & (rows[:, None] < n_rows) & (columns[None] < n_rows)
    if CROSS_VIEW_ONLY:
        is_pair = is_pair & (rows[:, None] % n_views != columns[None] % n_views)
    return tl.where(is_pair, product * factor, float("-inf"))


@triton.autotune(FORWARD_CONFIGS, key=["DIM"], prune_configs_by={"early_config_prune": suited})
@triton.jit
def lse_kernel(
    z,  # (R, DIM)
    lse,  # (n_own,) out, in base 2
    first,  # of the own rows
    n_own,
    n_rows,
    scale,  # scalar
    n_views,
    DIM: tl.constexpr,
    CROSS_VIEW_ONLY: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
) -> None:
    """Log-sum-exp of BLOCK_M rows, with a running maximum."""
    own = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    rows = first + own
    factor = tl.load(scale) * LOG2_E
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for start in range(0, n_rows, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        product = _products(z, rows, columns, n_rows, DIM, BLOCK_M, BLOCK_N, BLOCK_K)
        x = _logits(product, rows, columns, n_rows, factor, n_views, CROSS_VIEW_ONLY)
        top_now = tl.maximum(top, tl.max(x, 1))
        shift = tl.where(top_now == float("-inf"), 0.0, top_now)  # a row may have met no pair yet
        total = total * tl.exp2(top - shift) + tl.sum(tl.exp2(x - shift[:, None]), 1)
        top = top_now
    tl.store(lse + own, top + tl.log2(total), own < n_own)


@triton.autotune(BACKWARD_CONFIGS, key=["DIM"], prune_configs_by={"early_config_prune": suited})
@triton.jit
def force_kernel(
    z,  # (R, DIM)
    lse,  # (R,) in base 2, finite
    slope,  # (R,)
    out,  # (n_own, DIM)
    first,
    n_own,
    n_rows,
    scale,  # scalar
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
    factor = tl.load(scale) * LOG2_E
    row_lse = tl.load(lse + rows, rows < n_rows, other=0.0)
    row_slope = tl.load(slope + rows, rows < n_rows, other=0.0)
    near = _load(z, rows, dims, n_rows, DIM)
    total = tl.zeros((BLOCK_M, BLOCK_P), tl.float32)
    for start in range(0, n_rows, BLOCK_N):
        columns = start + tl.arange(0, BLOCK_N)
        far = _load(z, columns, dims, n_rows, DIM)
        if BLOCK_K >= DIM and BLOCK_P >= DIM:  # the rows are read once, for their logits and their pull
            product = tl.dot(near, tl.trans(far), input_precision=PRECISION)
        else:
            product = _products(z, rows, columns, n_rows, DIM, BLOCK_M, BLOCK_N, BLOCK_K)
        x = _logits(product, rows, columns, n_rows, factor, n_views, CROSS_VIEW_ONLY)
        column_lse = tl.load(lse + columns, columns < n_rows, other=0.0)
        column_slope = tl.load(slope + columns, columns < n_rows, other=0.0)
        force = tl.exp2(x - row_lse[:, None]) * row_slope[:, None]
        force += tl.exp2(x - column_lse[None]) * column_slope[None]
        total = tl.dot(force.to(far.dtype), far, total, input_precision=PRECISION)
    at = out + own.to(tl.int64)[:, None] * DIM + dims[None]
    tl.store(at, total, (own[:, None] < n_own) & (dims[None] < DIM))
