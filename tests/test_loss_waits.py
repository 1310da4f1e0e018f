"""No step waits for the GPU: what the loss does there, with the kernels left out, asks for no number of a tensor."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wscl_embed.loss import cl_infonce, objective, passes

# Their result, or its size, has to be known to the process that calls them.
WAITING = ("_local_scalar_dense", "nonzero", "unique", "masked_select", "equal", "index.Tensor", "repeat_interleave")


class Operations(TorchDispatchMode):
    """Notes what is called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation: Any, _: Any, arguments: Any = (), named: Any = None) -> Any:
        self.names.append(str(operation))
        return operation(*arguments, **(named or {}))


def step(monkeypatch: pytest.MonkeyPatch, temperature: float | torch.Tensor) -> list[str]:
    """The operations of forward and backward once the memberships are counted, which is done on the CPU."""
    operations, apply = Operations(), objective._MeanRowLoss.apply

    def noted(*arguments: Any) -> Any:
        with operations:
            return apply(*arguments)

    monkeypatch.setattr(objective._MeanRowLoss, "apply", noted)
    z = torch.randn(64, 2, 16, dtype=torch.bfloat16, requires_grad=True)
    loss = cl_infonce(z, torch.arange(64) // 4, temperature)
    with operations:
        loss.backward()  # type: ignore[no-untyped-call]
    return [name for name in operations.names if any(waiting in name for waiting in WAITING)]


@pytest.mark.parametrize("temperature", [0.1, torch.tensor(0.1, requires_grad=True)], ids=["fixed", "learned"])
def test_no_step_waits(monkeypatch: pytest.MonkeyPatch, temperature: float | torch.Tensor) -> None:
    assert step(monkeypatch, temperature), "on the CPU, where there are no kernels, the tiles do ask"
    monkeypatch.undo()
    kernels = SimpleNamespace(
        row_logsumexp=lambda z, own, *_: z.new_zeros(z[own].shape[:2], dtype=torch.float32),
        forces=lambda z, own, *_: z.new_zeros(z[own].shape, dtype=torch.float32),
    )
    monkeypatch.setattr(passes, "_kernels", lambda _: kernels)
    assert not step(monkeypatch, temperature)
