"""The loss of a batch with the options' variants, and the projections it is computed behind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from scipy import sparse
from torch import Tensor, nn
from torch.nn import functional

from wscl_embed import gradcache
from wscl_embed.distributed import agree
from wscl_embed.heads import DualHead, make_projection
from wscl_embed.loss import cl_infonce, dual_head_cl_infonce
from wscl_embed.train.options import TrainOptions


class BatchLoss(Protocol):
    """What training minimises: (b, V, P) outputs, not yet normalised, of b of the n rows; (n, K) -> scalar."""

    def __call__(self, z: Tensor, *, rows: list[int], membership: sparse.csr_array) -> Tensor: ...


def make_heads(options: TrainOptions, dim: int) -> nn.Module:
    """The projection the options ask for, with a head of its own for an instance term."""
    if options.instance_weight > 0:
        return DualHead(options.projection, dim)
    return make_projection(options.projection, dim)


def batch_loss(z: Tensor, membership: sparse.csr_array, options: TrainOptions) -> Tensor:
    """The loss of (b, V, P) outputs, not yet normalised, with the options' variants."""
    variants: dict[str, Any] = {
        "denominator": options.denominator,
        "cross_view_only": options.cross_view_only,
        "q": options.q,
        "lam": options.lam,
    }
    if options.instance_weight == 0:
        return cl_infonce(functional.normalize(z, dim=-1), membership, options.temperature, **variants)
    cluster_z, instance_z = (functional.normalize(part, dim=-1) for part in DualHead.split(z))
    weight = options.instance_weight
    return dual_head_cl_infonce(
        cluster_z, instance_z, membership, options.temperature, instance_weight=weight, **variants
    )


def cluster_loss(options: TrainOptions) -> BatchLoss:
    """`batch_loss` of the rows' memberships."""

    def loss(z: Tensor, *, rows: list[int], membership: sparse.csr_array) -> Tensor:
        return batch_loss(z, membership[rows], options)

    return loss


def backward(
    embedder: nn.Module, inputs: Tensor, loss_of: Callable[[Tensor], Tensor], micro_batch_size: int | None
) -> Tensor:
    """Give the parameters their gradient; the loss of the batch, on the device and without a graph.

    All processes take the same way, also one whose part of the batch would fit: what they tell each other has an order.
    """
    if micro_batch_size is not None and micro_batch_size < agree([len(inputs)])[0]:
        return gradcache.backward(embedder, inputs, loss_of, micro_batch_size)
    loss = loss_of(embedder(inputs))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach()
