"""Images into an embedding file, batch by batch, by one process or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wscl_embed.distributed import gather, on_first, rank, world_size
from wscl_embed.features import iterate_encoded
from wscl_embed.quarantine import BadRow, Quarantine
from wscl_embed.store import EmbeddingStore

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder

COPY_ROWS = 65_536


def write_embeddings(
    encoder: Encoder,
    dataset: datasets.Dataset,
    path: Path,
    *,
    dtype: str,
    attributes: Mapping[str, Any],
    batch_size: int,
    workers: int | None,
    max_bad_share: float,
) -> Quarantine:
    """Write the embeddings of all images that decode to ``path``; the others.

    Each of several processes writes its part of the rows to a file of its own, and the first joins them.

    Raises:
        InputError: more bad images than ``max_bad_share``; nothing is written then.
    """
    parts = [path.with_name(f".{path.name}.part{number}") for number in range(world_size())]
    own = parts[rank()] if world_size() > 1 else path
    ids = list(dataset["id"])
    bad: list[BadRow] = []
    quarantine = Quarantine()
    with EmbeddingStore.create(own, encoder.embed_dim, dtype=dtype, attributes=attributes) as writer:
        for rows, values, unreadable in iterate_encoded(encoder, dataset, batch_size=batch_size, workers=workers):
            writer.append([ids[row] for row in rows], values[:, 0])
            bad.extend(unreadable)
        for row in (row for part in gather(bad) for row in part):
            quarantine.add(row.id, row.path, row.reason)
        quarantine.check_share(len(dataset), max_bad_share)
    if world_size() > 1:
        try:
            on_first(lambda: join_stores(parts, path, encoder.embed_dim, dtype, attributes))
        finally:
            own.unlink()
    return quarantine


def join_stores(parts: Sequence[Path], path: Path, dim: int, dtype: str, attributes: Mapping[str, Any]) -> None:
    """Write the rows of several embedding files into one, in their order."""
    with EmbeddingStore.create(path, dim, dtype=dtype, attributes=attributes) as writer:
        for part in parts:
            with EmbeddingStore(part) as store:
                ids = store.ids
                for start in range(0, len(ids), COPY_ROWS):
                    rows = slice(start, start + COPY_ROWS)
                    writer.append(ids[rows], store.embeddings[rows])
