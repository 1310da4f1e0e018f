"""The Triton kernels: under Triton's interpreter wherever Triton is, and compiled where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from wscl_embed.loss import cl_infonce

pytest.importorskip("triton", reason="Triton is not installed: its kernels are NOT tested here")


def test_under_the_interpreter() -> None:
    older = "Triton before 3.3 imports kernels only where there is a GPU: they are NOT tested here"
    pytest.importorskip("triton", minversion="3.3", reason=older)
    cases = Path(__file__).with_name("loss_triton_interpreted.py")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(cases)],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=cases.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: the compiled kernels are NOT tested here")
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-3), (torch.float16, 1e-2), (torch.bfloat16, 3e-2)], ids=str
)
@pytest.mark.parametrize("cross_view_only", [False, True], ids=["all views", "cross view"])
def test_the_compiled_kernels_give_the_loss(dtype: torch.dtype, tolerance: float, cross_view_only: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    z = normalize(torch.randn(777, 2, 100, generator=generator), dim=-1).to("cuda", dtype).requires_grad_()
    exact = z.detach().double().requires_grad_()
    labels = torch.arange(777, device="cuda") % 50
    loss, expected = (cl_infonce(rows, labels, cross_view_only=cross_view_only) for rows in (z, exact))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    gradient, exact_gradient = torch.autograd.grad(loss, z)[0], torch.autograd.grad(expected, exact)[0]
    assert (gradient - exact_gradient).norm() <= tolerance * exact_gradient.norm()
