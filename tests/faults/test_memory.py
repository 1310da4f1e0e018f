"""Out of memory: half as many images at once, to the same gradient, or a line that says why not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor, nn

from wscl_embed.errors import MemoryLimitError
from wscl_embed.train import TrainOptions, batch_loss
from wscl_embed.train.memory import FittingSteps

OPTIONS = TrainOptions(1, 16, 4, 0.1, 0.0, 0.2, "none")
MEMBERSHIP = sparse.csr_array(np.kron(np.eye(4, dtype=np.float32), np.ones((4, 1), np.float32)))
LOSS = partial(batch_loss, membership=MEMBERSHIP, options=OPTIONS)
INPUTS = torch.randn(16, 2, 6, generator=torch.Generator().manual_seed(0))


class Tower(nn.Module):
    """(b, 2, 6) -> (b, 2, 5) with dropout, on a machine that has room for so many images."""

    def __init__(self, room: int, error: type[RuntimeError] = torch.OutOfMemoryError) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.dropout = nn.Linear(6, 5), nn.Dropout(0.2)
        self.room, self.error, self.tried = room, error, list[int]()

    def forward(self, views: Tensor) -> Tensor:
        self.tried.append(len(views))
        if len(views) > self.room:
            raise self.error("DefaultCPUAllocator: not enough memory: you tried to allocate 80000000000 bytes.")
        out: Tensor = self.dropout(self.layer(views))
        return out


def test_the_micro_batch_is_halved_until_it_fits_and_stays_so(capsys: pytest.CaptureFixture[str]) -> None:
    tower = Tower(room=5)
    steps = FittingSteps(tower, OPTIONS)
    loss = steps(INPUTS, LOSS, seed=7)
    assert tower.tried == [16, 8, *[4] * 8]  # each micro-batch without a graph, then with one
    assert steps.options.micro_batch_size == 4
    said = capsys.readouterr().err
    assert "out of memory with 8 images through the encoder at once: 4 from here on (--micro-batch-size 4)" in said
    roomy = Tower(room=16)
    given = FittingSteps(roomy, replace(OPTIONS, micro_batch_size=4))
    assert torch.equal(given(INPUTS, LOSS, seed=7), loss)  # the tries that failed left no trace
    assert tower.layer.weight.grad is not None
    assert roomy.layer.weight.grad is not None
    assert torch.equal(tower.layer.weight.grad, roomy.layer.weight.grad)
    steps(INPUTS, LOSS, seed=8)
    assert tower.tried[10:] == [4] * 8


def test_memory_beside_the_gpu_counts_as_well() -> None:
    steps = FittingSteps(Tower(room=8, error=RuntimeError), OPTIONS)
    steps(INPUTS, LOSS, seed=0)
    assert steps.options.micro_batch_size == 8


def test_one_image_that_does_not_fit_ends_the_run() -> None:
    with pytest.raises(
        MemoryLimitError, match=r"out of memory with 1 images .* lower --batch-size or --image-size"
    ) as no:
        FittingSteps(Tower(room=0), OPTIONS)(INPUTS, LOSS, seed=0)
    assert no.value.exit_code == 4


def test_batch_norms_that_are_tuned_are_not_cut_behind_your_back() -> None:
    tower = Tower(room=8)
    tower.norm = nn.BatchNorm1d(5)
    with pytest.raises(
        MemoryLimitError, match=r"Its batch norms are tuned.* --micro-batch-size 8; .*--unlocked-groups"
    ):
        FittingSteps(tower, OPTIONS)(INPUTS, LOSS, seed=0)
    tower.norm.eval()  # locked, as with --unlocked-groups
    FittingSteps(tower, OPTIONS)(INPUTS, LOSS, seed=0)


def test_another_error_is_not_taken_for_it() -> None:
    tower = Tower(room=16)
    tower.dropout.forward = None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        FittingSteps(tower, OPTIONS)(INPUTS, LOSS, seed=0)
    assert tower.tried == [16]
