"""One process or many: what ``torchrun`` started, and how its processes share work and results.

Everything here is a plain call on one process, so that callers need no second path.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
from torch import distributed as dist

from wscl_embed.errors import InputError, LostProcessError, WsclEmbedError
from wscl_embed.progress import console

Result = TypeVar("Result")

TIMEOUT = timedelta(minutes=30)  # a lost process is an error on the others at the latest then
_objects: dist.ProcessGroup | None = None  # a Gloo group: Python objects travel through the CPU, also beside NCCL


def launched() -> bool:
    """Whether ``torchrun`` started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """This process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes ``torchrun`` started, for the duration of a ``with`` block; does nothing on one process.

    NCCL for what is on GPUs, Gloo for the rest. Only the first process speaks.
    """
    global _objects
    if not launched() or dist.is_initialized():
        yield
        return
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        torch.cuda.set_device(local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=TIMEOUT)
    _objects = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=TIMEOUT))
    console().quiet = rank() > 0
    try:
        yield
        dist.barrier(group=_objects)  # no process leaves, and takes its connections along, while others still write
    except RuntimeError as error:
        if not _is_lost_connection(error):
            raise
        raise LostProcessError(
            "another process of this run has died or does not answer. What was saved is kept: start all of them again "
            "with --resume."
        ) from error
    finally:
        _objects = None
        dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """What Gloo and NCCL say when a process at the other end is gone, or silent for `TIMEOUT`."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def rank() -> int:
    """This process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def own_part(n: int) -> range:
    """This process's contiguous share of n rows; the shares follow each other in the order of ranks.

    >>> list(own_part(3))
    [0, 1, 2]
    """
    return range(n * rank() // world_size(), n * (rank() + 1) // world_size())


def gather(value: Result) -> list[Result]:
    """The value of every process, in the order of ranks, on all of them."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value, group=_objects)
    return values


def check_alike(value: Any, what: str) -> None:
    """See that all processes have the same ``value``, of the types JSON has.

    Raises:
        InputError: on all of them; ``what`` says of what it is.

    >>> check_alike(["a", "b"], "the ids")
    """
    if world_size() == 1:
        return
    digests = gather(hashlib.sha256(json.dumps(value, default=str).encode()).hexdigest())
    others = [number for number, digest in enumerate(digests) if digest != digests[0]]
    if others:
        raise InputError(
            f"{what} on process {others[0]} are not those on the first: does its machine have another copy?"
        )


def agree(numbers: list[int]) -> list[int]:
    """The largest value of each number over all processes.

    >>> agree([0, 15])
    [0, 15]
    """
    if world_size() == 1:
        return numbers
    largest = torch.tensor(numbers)
    dist.all_reduce(largest, dist.ReduceOp.MAX, group=_objects)
    return [int(number) for number in largest]


def copy_from_first(module: torch.nn.Module) -> None:
    """Give every process the parameters and buffers of the first.

    Data parallelism keeps parameters equal; batch norms' running statistics are each process's own.
    """
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, src=0)


def on_first(job: Callable[[], Result]) -> Result:
    """Run ``job`` on the first process alone; its result, or its error, is that of all.

    >>> on_first(lambda: "done")
    'done'
    """
    if world_size() == 1:
        return job()
    outcome: list[Any] = [None]
    if rank() == 0:
        try:
            outcome = [(True, job())]
        except Exception as error:
            dist.broadcast_object_list([(False, travelling(error))], src=0, group=_objects)
            raise
    dist.broadcast_object_list(outcome, src=0, group=_objects)
    succeeded, value = outcome[0]
    if not succeeded:
        raise value
    return cast(Result, value)


def travelling(error: Exception) -> Exception:
    """``error``, or its text where a class of its own (a plugin's, a library's) does not reach another process whole.

    >>> travelling(ValueError("no such column"))
    ValueError('no such column')
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return WsclEmbedError(f"{type(error).__name__}: {error}")
    return error
