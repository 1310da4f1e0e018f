"""The Triton kernels under Triton's interpreter, against the passes in PyTorch.

Not collected by itself: tests/test_loss_triton.py runs it in a process of its own, because Triton must see
TRITON_INTERPRET=1 before its first import.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import triton
from torch.nn.functional import normalize
from triton.runtime import interpreter

from benchmarks.loss import ours, peak_bytes
from wscl_embed.loss import cl_infonce, pairs, passes, triton_kernels
from wscl_embed.loss.pairs import Pairs
from wscl_embed.loss.terms import PairTerm
from wscl_embed.loss.weights import Weights, entries_of

pytestmark = pytest.mark.filterwarnings(
    "ignore::RuntimeWarning:triton"
)  # NumPy on log2(0), which a GPU has no word for
FIVE = torch.tensor(5.0)
TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 5e-3}  # the forces are rounded to the dtype


@pytest.fixture(scope="module", params=[16, 64], ids=["some dimensions", "all dimensions"])
def kernels(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The kernels with one small configuration each, of some dimensions or all at a time: there is nothing to time."""
    dot = interpreter.InterpreterBuilder.create_dot

    def widened(operand: Any) -> Any:
        # The interpreter keeps bfloat16 as the upper half of a float32, and its dot would multiply those as integers.
        if operand.dtype.scalar != triton.language.bfloat16:
            return operand
        return interpreter.TensorHandle(
            (operand.data.astype(np.uint32) << 16).view(np.float32), triton.language.float32
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            interpreter.InterpreterBuilder, "create_dot", lambda s, a, b, *c: dot(s, widened(a), widened(b), *c)
        )
        blocks = {"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": request.param}
        patch.setattr(triton_kernels.lse_kernel, "configs", [triton.Config(blocks)])
        patch.setattr(triton_kernels.force_kernel, "configs", [triton.Config(blocks | {"BLOCK_P": 2 * request.param})])
        yield triton_kernels


def rows(n_images: int, n_views: int, dim: int, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return normalize(torch.randn(n_images, n_views, dim, generator=generator), dim=-1).to(dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("cross_view_only", [False, True], ids=["all views", "cross view"])
@pytest.mark.parametrize(
    ("n_images", "n_views", "dim", "own"),
    [
        (16, 2, 32, slice(0, 16)),  # whole blocks
        (23, 1, 40, slice(0, 23)),
        (11, 3, 5, slice(4, 9)),
        (9, 2, 33, slice(9, 9)),  # a rank without images
        (1, 1, 3, slice(0, 1)),  # a row without another
    ],
)
def test_the_kernels_are_the_passes(
    kernels: Any, n_images: int, n_views: int, dim: int, own: slice, cross_view_only: bool, dtype: torch.dtype
) -> None:
    z = rows(n_images, n_views, dim, dtype)
    weights = Weights(entries_of(torch.full((n_images,), -1), n_images), n_images, n_views, cross_view_only)
    of_all, of_own = (Pairs(z, part, FIVE, weights, PairTerm()) for part in (slice(0, n_images), own))
    lse = passes.row_logsumexp(of_all)
    torch.testing.assert_close(kernels.row_logsumexp(z, own, FIVE, cross_view_only), lse[own])
    slope = torch.where(lse.isinf(), 0.0, torch.linspace(0, 1, lse.numel()).view_as(lse))
    forces = kernels.forces(z, own, FIVE, cross_view_only, lse, slope)
    torch.testing.assert_close(forces, passes._forces(of_own, lse, slope), rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("temperature", [0.2, 0.005])
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_the_loss_on_kernels_is_the_loss(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, temperature: float
) -> None:
    z, labels = rows(13, 2, 20, dtype).requires_grad_(), torch.arange(13) % 4
    learned = torch.tensor(temperature, requires_grad=True)

    def loss_and_gradients() -> tuple[torch.Tensor, ...]:
        loss = cl_infonce(z, labels, learned)
        return loss.detach(), *(gradient * temperature for gradient in torch.autograd.grad(loss, (z, learned)))

    expected = loss_and_gradients()
    monkeypatch.setattr(passes, "_kernels", lambda _: kernels)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(loss_and_gradients(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_loss_on_kernels_holds_little_but_the_gradient(
    kernels: Any, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(passes, "_kernels", lambda _: kernels)
    monkeypatch.setattr(pairs, "TILE", 1)  # as of a batch far larger than a tile
    z, labels = rows(16, 2, 256, dtype), torch.arange(16) // 4
    assert peak_bytes(ours, z, labels) < 1.6 * 4 * z.numel()


def test_a_number_that_is_none_stays_none(kernels: Any) -> None:
    z = rows(9, 2, 5, torch.float32)
    z[3, 1, 2] = torch.nan
    assert kernels.row_logsumexp(z, slice(0, 9), FIVE, False).isnan().all()
