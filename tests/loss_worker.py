"""What the processes of tests/test_loss_distributed.py run."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import sparse
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize

from wscl_embed.distributed import check_alike, on_first
from wscl_embed.errors import InputError, MissingExtraError
from wscl_embed.loss import cl_infonce
from wscl_embed.train.objective import backward

SIZES = [5, 1, 7, 0]  # images of each rank: the last batch of an epoch is uneven
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "negatives": {"denominator": "negatives"},
    "all": {"denominator": "negatives", "cross_view_only": True, "q": 0.3, "lam": 0.7},
}


def batch(n_images: int) -> tuple[Tensor, dict[str, Any]]:
    """(B, 2, 6) float64 rows before normalisation, and memberships of several kinds."""
    rng = np.random.default_rng(0)
    soft = sparse.random_array((n_images, 9), density=0.2, rng=rng, format="csr")
    labels = torch.tensor(rng.integers(-1, 4, n_images))
    return torch.tensor(rng.normal(size=(n_images, 2, 6))), {"labels": labels, "soft": soft}


def loss_and_gradients(
    rows: Tensor, membership: Any, options: dict[str, Any], group: Any = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss, and its gradient by the rows and by the temperature."""
    rows = rows.detach().requires_grad_()
    temperature = torch.tensor(0.4, dtype=rows.dtype, requires_grad=True)
    loss = cl_infonce(normalize(rows, dim=-1), membership, temperature, group=group, **options)
    return loss.detach(), *torch.autograd.grad(loss, (rows, temperature))


def join(rank: int, n_ranks: int, folder: Path, timeout: float) -> None:
    """Initialise torch.distributed over Gloo."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=n_ranks,
        timeout=timedelta(seconds=timeout),
    )


def compute(rank: int, folder: Path) -> None:
    """Losses and gradients of this rank, over groups of 1, 2 and 4 ranks, into ``folder``/rank.pt."""
    join(rank, 4, folder, timeout=60)
    results: dict[Any, Any] = {}
    for n_ranks in (1, 2, 4):
        group = distributed.new_group(list(range(n_ranks)))
        if rank >= n_ranks:
            continue
        rows, memberships = batch(sum(SIZES[:n_ranks]))
        own = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            for kind, membership in memberships.items():
                for name, options in OPTIONS.items():
                    results[n_ranks, dtype, kind, name] = loss_and_gradients(
                        rows[own].to(dtype), membership[own], options, group
                    )
    rows, memberships = batch(sum(SIZES))
    own = slice(sum(SIZES[:rank]), sum(SIZES[: rank + 1]))
    results["ddp"] = ddp_gradients(rows[own].float(), memberships["labels"][own])
    if rank == 2:
        rows[own] = torch.nan
    results["nan"] = loss_and_gradients(rows[own], memberships["labels"][own], {})[0]
    try:
        cl_infonce(torch.ones(2, 2, 3 + rank), torch.tensor([0, 0]))
    except ValueError as error:
        results["refused"] = str(error)
    results["micro-batches"] = micro_batch_gradients(
        torch.from_numpy(np.arange(24.0).reshape(6, 2, 2)).float()[rank::4]
    )
    results["errors"] = [error_of_the_first(MissingExtraError("faiss-cpu", "faiss", "an index"))]
    results["errors"].append(error_of_the_first(TwoArgumentsError(7, "no such shop")))
    check_alike(["a", "b"], "the ids")
    try:
        check_alike(["a", "b"][: 2 - rank // 3], "the ids")
    except InputError as error:
        results["not alike"] = str(error)
    torch.save(results, folder / f"{rank}.pt")
    distributed.destroy_process_group()


class TwoArgumentsError(Exception):
    """Pickled by its one argument, and not to be made from that alone."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(f"{text} {number}")


def error_of_the_first(error: Exception) -> tuple[str, str]:
    """What this rank gets of an error of the first one's."""

    def job() -> None:
        raise error

    try:
        on_first(job)
    except Exception as raised:
        return type(raised).__name__, str(raised)
    return "", ""


def micro_batch_gradients(rows: Tensor) -> list[Tensor]:
    """Of the second of two steps, in which ranks with two rows take them one by one and the others have but one."""
    torch.manual_seed(0)
    module = nn.parallel.DistributedDataParallel(nn.Linear(2, 3))
    for _ in range(2):  # in the second, data parallelism orders its parameters anew
        module.zero_grad()
        backward(module, rows, squares, micro_batch_size=1)
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def squares(z: Tensor) -> Tensor:
    """The sum over the rows of all ranks, whose gradient is the sum over ranks where it is averaged."""
    total = z.detach().square().sum()
    if distributed.is_initialized():
        distributed.all_reduce(total)
    own = z.square().sum()
    return own * (distributed.get_world_size() if distributed.is_initialized() else 1) + (total - own).detach()


def model() -> nn.Module:
    """A small network with a learned temperature, the same on every rank."""
    torch.manual_seed(0)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(6, 4)
            self.log_temperature = nn.Parameter(torch.tensor(-1.0))

        def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
            return normalize(self.map(rows), dim=-1), self.log_temperature.exp()

    return Model()


def ddp_gradients(rows: Tensor, labels: Tensor) -> list[Tensor]:
    """The parameters' gradients on every rank, after DistributedDataParallel has averaged them."""
    module = nn.parallel.DistributedDataParallel(model())
    z, temperature = module(rows)
    cl_infonce(z, labels, temperature).backward()
    return [parameter.grad for parameter in module.parameters() if parameter.grad is not None]


def lose_a_rank(rank: int, folder: Path, how: str) -> None:
    """Rank 1 of 3 dies, or stops, between two steps."""
    join(rank, 3, folder, timeout=4)
    rows, memberships = batch(4)
    loss_and_gradients(rows, memberships["labels"], {})
    if rank == 1:
        if how == "dies":
            os._exit(9)
        time.sleep(60)
    loss_and_gradients(rows, memberships["labels"], {})
