"""Batches beyond memory: the gradient of the whole batch from micro-batches.

Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021 (arXiv 2101.06983). A
contrastive loss needs every embedding of the batch at once, but only the embeddings: they are computed without a graph,
the loss gives their gradient, and each micro-batch is then computed again with a graph and handed its part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


def backward(embed: nn.Module, inputs: Tensor, loss_of: Callable[[Tensor], Tensor], micro_batch_size: int) -> Tensor:
    """Add the gradient of ``loss_of(embed(inputs))`` to the parameters; the loss, without a graph.

    To those of ``embed``, and of whatever else ``loss_of`` computes with, such as a learned temperature. Equal to one
    pass over the whole batch as long as ``embed`` treats images one by one. Batch norms in training mode do not: they
    then normalise by the micro-batch, and see each image twice for their running statistics. Dropout draws the same in
    both passes.

    Args:
        embed: (b, ...) -> (b, V, P); may be wrapped for data parallelism, whose averaging then happens once.
        inputs: (B, ...), this process's part of the batch.
        loss_of: (B, V, P) -> scalar.
        micro_batch_size: images at a time.

    >>> layer, x = nn.Linear(3, 2), torch.randn(5, 4, 3)
    >>> whole = torch.autograd.grad(layer(x).square().sum(), layer.weight)[0]
    >>> _ = backward(layer, x, lambda z: z.square().sum(), micro_batch_size=2)
    >>> torch.testing.assert_close(layer.weight.grad, whole)
    """
    parts = torch.split(inputs, micro_batch_size)
    states, embedded = [], []
    with torch.no_grad():
        for part in parts:
            states.append(_random_state(inputs.device))
            embedded.append(embed(part))
    z = torch.cat(embedded).requires_grad_()
    loss = loss_of(z)
    torch.autograd.backward(loss)
    assert z.grad is not None
    pulls = torch.split(z.grad, micro_batch_size)
    for number, (part, state, pull) in enumerate(zip(parts, states, pulls, strict=True)):
        last = number == len(parts) - 1
        with _replayed(state, inputs.device), nullcontext() if last else _unsynchronised(embed):
            torch.autograd.backward(embed(part), pull)
    return loss.detach()


def _random_state(device: torch.device) -> list[Tensor]:
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


@contextmanager
def _replayed(states: list[Tensor], device: torch.device) -> Iterator[None]:
    """Random numbers from ``states`` on; the generators go on afterwards as if nothing had been drawn."""
    on_cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if on_cuda else []):
        torch.set_rng_state(states[0])
        if on_cuda:
            torch.cuda.set_rng_state(states[1], device)
        yield


def _unsynchronised(embed: nn.Module) -> AbstractContextManager[None]:
    return embed.no_sync() if isinstance(embed, DistributedDataParallel) else nullcontext()
