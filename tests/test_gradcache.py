"""Micro-batches give the gradient of the whole batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from wscl_embed import gradcache
from wscl_embed.loss import cl_infonce

LABELS = torch.tensor([0, 0, 1, 1, 2, -1, 2, 0, 1])


class Tower(nn.Module):
    """(b, V, 3, 8, 8) -> (b, V, 6): convolution, batch norm, dropout, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 6)
        )

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return self.layers(views.flatten(0, 1)).view(*views.shape[:2], -1)


def loss_of(z: torch.Tensor) -> torch.Tensor:
    return cl_infonce(functional.normalize(z, dim=-1), LABELS, 0.2)


def gradients(tower: nn.Module) -> list[torch.Tensor]:
    found = [parameter.grad.clone() for parameter in tower.parameters()]
    tower.zero_grad()
    return found


@pytest.fixture
def views() -> torch.Tensor:
    return torch.rand(len(LABELS), 2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [1, 2, 4, 9, 100])
def test_equals_the_whole_batch_with_batch_norm_in_eval(views: torch.Tensor, size: int) -> None:
    torch.manual_seed(0)
    tower = Tower().double().eval()
    whole = loss_of(tower(views))
    whole.backward()
    expected = gradients(tower)
    loss = gradcache.backward(tower, views, loss_of, size)
    torch.testing.assert_close(loss, whole.detach())
    torch.testing.assert_close(gradients(tower), expected)


def test_dropout_draws_the_same_in_both_passes(views: torch.Tensor) -> None:
    """One micro-batch of everything, in training mode: as one plain pass from the same random state."""
    torch.manual_seed(0)
    tower = Tower().double().train()
    state = torch.get_rng_state()
    loss_of(tower(views)).backward()
    expected = gradients(tower)
    torch.set_rng_state(state)
    gradcache.backward(tower, views, loss_of, 100)
    torch.testing.assert_close(gradients(tower), expected)


def test_the_generator_goes_on_as_after_one_pass(views: torch.Tensor) -> None:
    tower = Tower().double().train()
    torch.manual_seed(3)
    tower(views)
    expected = torch.rand(1)
    torch.manual_seed(3)
    gradcache.backward(tower, views, loss_of, 100)
    assert torch.equal(torch.rand(1), expected)


def test_batch_norm_in_training_mode_is_inexact(views: torch.Tensor) -> None:
    """As its docstring says."""
    tower = Tower().double().train()
    for layer in tower.modules():
        if isinstance(layer, nn.Dropout):
            layer.eval()
    loss_of(tower(views)).backward()
    expected = gradients(tower)
    gradcache.backward(tower, views, loss_of, 2)
    difference = max(float((a - b).abs().max()) for a, b in zip(gradients(tower), expected, strict=True))
    assert np.isfinite(difference)
    assert difference > 1e-6


def test_a_learned_temperature_gets_its_gradient(views: torch.Tensor) -> None:
    tower = Tower().double().eval()
    log_temperature = nn.Parameter(torch.tensor(-1.5, dtype=torch.float64))

    def loss_at_temperature(z: torch.Tensor) -> torch.Tensor:
        return cl_infonce(functional.normalize(z, dim=-1), LABELS, log_temperature.exp())

    loss_at_temperature(tower(views)).backward()
    expected, log_temperature.grad = log_temperature.grad, None
    gradcache.backward(tower, views, loss_at_temperature, 2)
    torch.testing.assert_close(log_temperature.grad, expected)
