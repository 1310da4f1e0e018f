"""What training puts behind the encoder: the linear map head mode tunes, and the projections dropped afterwards."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Projection = Literal["none", "linear", "mlp"]

PROJECTION_DIM = 128


class HeadMap(nn.Module):
    """x -> (I + delta) x. Weight decay pulls delta to zero, that is towards the frozen embedding."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(dim, dim))

    def weight(self) -> Tensor:
        """(D, D)"""
        return torch.eye(len(self.delta), device=self.delta.device) + self.delta

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)"""
        return x + x @ self.delta.T


def make_projection(kind: Projection, dim: int) -> nn.Module:
    """The head used only in training (Chen et al., 2020): D -> `PROJECTION_DIM`, or the identity."""
    if kind == "none":
        return nn.Identity()
    if kind == "linear":
        return nn.Linear(dim, PROJECTION_DIM, bias=False)
    return nn.Sequential(nn.Linear(dim, dim), nn.ReLU(inplace=True), nn.Linear(dim, PROJECTION_DIM, bias=False))


class DualHead(nn.Module):
    """x -> the cluster head's output, then the instance head's `PROJECTION_DIM`, side by side.

    The instance head is linear where the cluster head is the identity: it needs room of its own.
    """

    def __init__(self, kind: Projection, dim: int) -> None:
        super().__init__()
        self.cluster = make_projection(kind, dim)
        self.instance = make_projection("linear" if kind == "none" else kind, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., P + `PROJECTION_DIM`)"""
        return torch.cat([self.cluster(x), self.instance(x)], dim=-1)

    @staticmethod
    def split(z: Tensor) -> tuple[Tensor, Tensor]:
        """The outputs of the cluster head and of the instance head."""
        return z[..., :-PROJECTION_DIM], z[..., -PROJECTION_DIM:]
