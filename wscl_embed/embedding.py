"""Images into an embedding file, batch by batch, by one process or many, from where an interrupted job stopped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from wscl_embed.captions import encode_captions, read_captions
from wscl_embed.distributed import check_alike, gather, on_first, own_part, rank, world_size
from wscl_embed.errors import InputError
from wscl_embed.features import iterate_encoded
from wscl_embed.quarantine import BadRow, Quarantine
from wscl_embed.store import EmbeddingStore
from wscl_embed.store.container import finish
from wscl_embed.store.partial import Partial, check_same
from wscl_embed.store.rows import RowFiles, hash_rows
from wscl_embed.updating import MADE_BY, copy_kept, everything, kept_clusters, plan_update, stamp

if TYPE_CHECKING:
    import datasets

    from wscl_embed.encoder import Encoder

COPY_ROWS = 16_384
SAME = (*MADE_BY, "dataset_fingerprint", "captions_fingerprint")  # what a file and a job resumed agree in


class EmbedOptions(TypedDict, total=False):
    """How `write_embeddings` goes about it."""

    resume: bool
    """Continue with the rows of an interrupted job."""
    update: bool
    """Keep the rows of the present file, but for those of images that changed."""
    batch_size: int
    """Images through the encoder at once."""
    workers: int | None
    """Processes that decode."""


def write_embeddings(
    encoder: Encoder,
    dataset: datasets.Dataset,
    partial: Partial,
    attributes: Mapping[str, Any],
    *,
    dtype: str,
    max_bad_share: float,
    **options: Unpack[EmbedOptions],
) -> Quarantine | None:
    """Write the embeddings of all images that decode to ``partial.output``, whose lock is held.

    Each of several processes writes its part of the rows to files of its own, and the first joins them.

    Args:
        encoder: any.
        dataset: with ``id`` and undecoded ``image``.
        partial: where the rows grow.
        attributes: root attributes of the file; a ``caption_column`` among them has the captions embedded as well.
        dtype: of the embeddings.
        max_bad_share: of the dataset's images that do not decode.
        options: `EmbedOptions`.

    Returns:
        The images that do not decode, of which an update keeps what the file had; None when there was nothing to do.

    Raises:
        InputError: more bad images than ``max_bad_share``, or nothing to resume or update that fits. Rows that were
            embedded stay where they are, for ``resume``.
    """
    output, resume, update = partial.output, options.get("resume", False), options.get("update", False)
    facts = {**{key: attributes.get(key) for key in SAME}, "dtype": dtype, "processes": world_size()}
    check_alike([facts[key] for key in SAME], "the images, or the encoder's weights,")
    facts["updates"] = on_first(lambda: stamp(output)) if update else None
    if resume and not update and on_first(lambda: is_finished(partial, facts)):
        return None
    plan = on_first(lambda: plan_update(output, dataset, facts) if update else everything(dataset))
    if not plan.todo:
        return None
    on_first(lambda: begin(partial, facts, resume=resume))
    column = attributes.get("caption_column")
    rows = RowFiles(partial.folder / f"part-{rank()}", encoder.embed_dim, dtype, hashed=True, texts=column is not None)
    try:
        if rank() == 0:
            copy_kept(output, plan.kept[len(rows) :], rows)
        part = [plan.todo[number] for number in own_part(len(plan.todo))]
        quarantine = quarantined(gather(embed_rows(encoder, dataset, part, rows, column, options)))
        check_share(quarantine, dataset, max_bad_share)
        if rank() == 0:  # what the file had of images that cannot be read any more stays in it
            copy_kept(output, [plan.stale[row.id] for row in quarantine if row.id in plan.stale], rows)
    finally:
        rows.close()
    kept = on_first(lambda: kept_clusters(output)) if update else ({}, None)
    on_first(lambda: finish(join(partial, rows), output, {**attributes, **kept[0]}, kept[1]))
    return quarantine


def is_finished(partial: Partial, facts: Mapping[str, Any]) -> bool:
    """Whether the output is there, complete, and nothing is on the way.

    Raises:
        InputError: it is there, but made from something else.
    """
    if partial.has_rows or not partial.output.exists():
        return False
    with EmbeddingStore(partial.output) as store:
        found = {**store.attributes, "dtype": store.embeddings.dtype.name}
    check_same(partial.output, found, {key: facts[key] for key in SAME})
    return True


def begin(partial: Partial, facts: Mapping[str, Any], *, resume: bool) -> None:
    """`Partial.begin`; what is left of an update of another state of the file is of no use to anyone."""
    if facts["updates"] and partial.started and partial.facts()["updates"] != facts["updates"]:
        partial.clear()
    partial.begin(facts, resume=resume)


def embed_rows(
    encoder: Encoder,
    dataset: datasets.Dataset,
    part: Sequence[int],
    rows: RowFiles,
    caption_column: str | None,
    options: EmbedOptions,
) -> list[BadRow]:
    """Embed those rows ``part`` of the dataset that are not among ``rows`` yet; the ones that do not decode."""
    ids = dataset["id"][:]
    done = {image_id.decode() for block in rows.read_ids() for image_id in block}
    left = [row for row in part if ids[row] not in done]
    bad: list[BadRow] = []
    for batch in iterate_encoded(
        encoder,
        dataset,
        part=left,
        hashed=True,
        batch_size=options.get("batch_size", 64),
        workers=options.get("workers"),
    ):
        texts = None
        if caption_column is not None:
            texts = encode_captions(encoder, read_captions(dataset, batch.rows, caption_column))
        rows.append([ids[row] for row in batch.rows], batch.values[:, 0], hash_rows(batch.hashes), texts)
        bad.extend(batch.bad)
    return bad


def quarantined(bad: Sequence[Sequence[BadRow]]) -> Quarantine:
    """Those of all processes."""
    quarantine = Quarantine()
    for row in (row for found in bad for row in found):
        quarantine.add(row.id, row.path, row.reason)
    return quarantine


def check_share(quarantine: Quarantine, dataset: datasets.Dataset, max_bad_share: float) -> None:
    """`Quarantine.check_share`, which also says that the good ones need not be embedded again."""
    try:
        quarantine.check_share(len(dataset), max_bad_share)
    except InputError as error:
        raise InputError(f"{error} The other images are embedded and wait for --resume.") from error


def join(partial: Partial, rows: RowFiles) -> RowFiles:
    """The rows of all processes, in the order of ranks."""
    if world_size() == 1:
        return rows

    def files(name: str) -> RowFiles:
        dtype, texts = rows.vectors.dtype.name, rows.text is not None
        return RowFiles(partial.folder / name, rows.dim, dtype, hashed=True, texts=texts)

    files("joined").remove()  # of a join that was interrupted
    joined = files("joined")
    for number in range(world_size()):
        part = files(f"part-{number}")
        part.close()
        ids = [image_id.decode() for block in part.read_ids() for image_id in block]
        vectors, hashes, texts = part.read_vectors(), part.read_hashes(), part.read_texts()
        assert hashes is not None
        for start in range(0, len(part), COPY_ROWS):
            block = slice(start, start + COPY_ROWS)
            some = None if texts is None else texts.of(block)
            joined.copy(ids[block], vectors[block], hashes[block], some)
    return joined
