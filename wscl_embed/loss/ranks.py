"""The images of one process among those of all processes of a torch.distributed group."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch import distributed as dist

from wscl_embed.loss.weights import Entries


class Shard(NamedTuple):
    """How many images each rank of a group has, and which are this rank's.

    >>> Shard(group=None, counts=[3, 2], rank=1).own
    slice(3, 5, None)
    """

    group: dist.ProcessGroup | None  # None: one process, nothing is sent
    counts: list[int]
    rank: int

    @property
    def n_images(self) -> int:
        """B, of all ranks."""
        return sum(self.counts)

    @property
    def own(self) -> slice:
        """This rank's images among the B."""
        stop = sum(self.counts[: self.rank + 1])
        return slice(stop - self.counts[self.rank], stop)

    def gather(self, rows: Tensor) -> Tensor:
        """(b, ...) of each rank -> (B, ...), the same on every rank. Carries no gradient."""
        return _gather(rows, self.counts, self.group)


def gather_entries(entries: Entries, z: Tensor, group: dist.ProcessGroup | None) -> tuple[Entries, Shard]:
    """The entries of all ranks' images, rank after rank, and where this rank's stand.

    Args:
        entries: of this rank's images; the columns mean the same clusters on every rank.
        z: (b, V, P), this rank's rows. b may differ between ranks, V and P may not.
        group: None takes the default group where torch.distributed is initialised, and is one process elsewhere.

    Raises:
        ValueError: V or P differ; on every rank.
    """
    if group is None and dist.is_available() and dist.is_initialized():
        group = dist.group.WORLD
    if group is None or dist.get_world_size(group) == 1:
        return entries, Shard(None, [len(z)], 0)
    # What is counted on the CPU waits for no GPU; a group of NCCL alone has no way for it but the GPU.
    device = torch.device("cpu") if "cpu:" in dist.get_backend_config(group) else z.device
    header = torch.tensor([[*z.shape, len(entries.rows)]], device=device)
    n_ranks = dist.get_world_size(group)
    headers = _gather(header, [1] * n_ranks, group).tolist()
    if any(other[1:3] != headers[0][1:3] for other in headers):
        raise ValueError(f"the ranks' z must agree in views and dimensions; got {[tuple(h[:3]) for h in headers]}.")
    shard = Shard(group, [b for b, *_ in headers], dist.get_rank(group))
    counts = [nnz for *_, nnz in headers]
    parts = (entries.rows + shard.own.start, entries.columns, entries.values)
    return Entries(*(_gather(part.to(device), counts, group) for part in parts)), shard


def _gather(rows: Tensor, counts: list[int], group: dist.ProcessGroup | None) -> Tensor:
    """(counts[rank], ...) of each rank -> (sum of counts, ...)."""
    if group is None:
        return rows
    # Gathered as bytes, for backends that lack a dtype, and padded, for those that need equal sizes.
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    dist.all_gather([part.view(torch.uint8) for part in parts], padded.view(torch.uint8), group=group)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
