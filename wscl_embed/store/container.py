"""Rows on disk to an HDF5 file around them, without moving them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError, WsclEmbedError
from wscl_embed.files import clear_leftovers, storage_errors, sync, sync_folder, temporary_path
from wscl_embed.store.hdf5_file import hdf5_file
from wscl_embed.store.rows import HEAD, RowFiles, TextRows
from wscl_embed.store.trial import remember
from wscl_embed.store.unit import UNIT

if TYPE_CHECKING:
    import h5py

    from wscl_embed.clusters import Clusters

FORMAT = "wscl-embed/embeddings"
FORMAT_VERSION = 2
COPY_ROWS = 16_384


def finish(rows: RowFiles, path: Path, attributes: Mapping[str, Any], clusters: Clusters | None = None) -> None:
    """Make ``rows`` the embedding file ``path``.

    May be killed at any moment and called again: it changes only what lies before and behind the vectors, which
    opening the `RowFiles` again cuts off.

    Raises:
        StorageError: the disk is full, or refuses for another reason.
    """
    rows.close()
    with storage_errors(path):
        rows.check_synced()
        _fill(rows, attributes, clusters)
        rows.vectors.path.replace(path)
        remember(path)
        sync_folder(path.parent)
        rows.remove()


def _fill(rows: RowFiles, attributes: Mapping[str, Any], clusters: Clusters | None) -> None:
    """All that is beside the vectors, around them."""
    _enclose(rows)
    with hdf5_file(rows.vectors.path, "r+", alignment_threshold=HEAD, alignment_interval=HEAD) as file:
        file.attrs.update({**attributes, "format": FORMAT, "format_version": FORMAT_VERSION})
        file.attrs["complete"] = False
        file["embeddings"].attrs["normalised"] = True
        _write_ids(file, rows)
        if (hashes := rows.read_hashes()) is not None:
            file["content_hash"] = hashes
        if (texts := rows.read_texts()) is not None:
            _write_texts(file, texts)
        if clusters is not None:
            _write_clusters(file, clusters, [image_id.decode() for block in rows.read_ids() for image_id in block])
        file.attrs["complete"] = True
    sync(rows.vectors.path)


def _enclose(rows: RowFiles) -> None:
    """Write the header of an HDF5 file with the contiguous dataset ``/embeddings`` before the vectors.

    The HDF5 library makes that header: for a sparse file of the same shape, whose data it is told to put where the
    vectors lie.
    """
    import h5py

    shape = (len(rows), rows.dim)
    model = rows.vectors.path.with_suffix(".head")
    try:
        with hdf5_file(model, "w") as file:
            file.create_dataset("embeddings", shape, rows.vectors.dtype, fill_time="never")
        with hdf5_file(model, "r+", alignment_threshold=1, alignment_interval=HEAD) as file:
            if len(rows):
                file["embeddings"][0, 0] = 0  # allocates
                if file["embeddings"].id.get_offset() != HEAD:
                    raise WsclEmbedError(f"HDF5 {h5py.version.hdf5_version} lays files out in a way not known here.")
        with model.open("rb") as source, rows.vectors.path.open("r+b") as target:
            target.write(source.read(HEAD))
            target.truncate(model.stat().st_size)
    finally:
        model.unlink(missing_ok=True)


def _write_ids(file: h5py.File, rows: RowFiles) -> None:
    """``/ids``: strings of one length, padded with NUL; half the size and a third of the time of HDF5's others."""
    import h5py

    dtype = h5py.string_dtype("utf-8", max(1, rows.longest))
    dataset = file.create_dataset("ids", (len(rows),), dtype)
    start = 0
    for block in rows.read_ids():
        if block:
            dataset[start : start + len(block)] = np.array(block, dtype)
            start += len(block)


def _write_texts(file: h5py.File, texts: TextRows) -> None:
    """``/text``, copied block by block."""
    group = file.create_group("text")
    vectors = group.create_dataset("embeddings", texts.embeddings.shape, texts.embeddings.dtype, fill_time="never")
    vectors.attrs["normalised"] = True
    for start in range(0, len(texts.embeddings), COPY_ROWS):
        block = slice(start, start + COPY_ROWS)
        vectors[block] = texts.embeddings[block]
    group["content_hash"] = texts.hashes


def _write_clusters(file: h5py.File, clusters: Clusters, ids: list[str]) -> None:
    """``/clusters`` for the rows of the file; an id the clusters lack gets no membership."""
    import h5py
    from scipy import sparse

    position = {image_id: row for row, image_id in enumerate(clusters.ids)}
    found = np.array([position.get(image_id, -1) for image_id in ids], dtype=np.int64)
    known = np.flatnonzero(found >= 0)
    # A selection matrix copies the known rows and leaves the others empty.
    pick = sparse.csr_array((np.ones(len(known), np.float32), (known, found[known])), (len(ids), len(clusters)))
    membership = sparse.csr_array(pick @ clusters.membership)
    labels = np.full(len(ids), -1, dtype=np.int64)
    labels[known] = clusters.labels[found[known]]
    group = file.create_group("clusters")
    group["labels"] = labels
    group["indptr"], group["indices"] = membership.indptr.astype(np.int64), membership.indices.astype(np.int64)
    group["weights"] = membership.data.astype(np.float32)
    names = [name.encode() for name in clusters.table["name"]]
    dtype = h5py.string_dtype("utf-8", max([1, *map(len, names)]))
    group.create_dataset("names", (len(names),), dtype)[...] = np.array(names, dtype)


class StoreWriter:
    """Appends rows to a new embedding file; made by `wscl_embed.EmbeddingStore.create`."""

    def __init__(self, rows: RowFiles) -> None:
        self._rows = rows
        self._id_hashes: list[NDArray[np.int64]] = []
        self.clusters: Clusters | None = None

    def append(
        self,
        ids: Sequence[str],
        embeddings: NDArray[np.floating],
        hashes: NDArray[np.uint8] | None = None,
        texts: TextRows | None = None,
    ) -> None:
        """Append (b, D) rows, scaled to unit length, as are those of ``texts``; ``hashes`` (b, 16).

        Raises:
            InputError: as many ids as rows were not given, a row that is not finite, or an id that cannot be one.
            StorageError: the disk is full, or does not take the rows for another reason.
        """
        self._rows.append(ids, embeddings, hashes, texts)
        self._id_hashes.append(np.fromiter(map(hash, ids), np.int64, len(ids)))

    def set_clusters(self, clusters: Clusters) -> None:
        """Write ``/clusters``; an id the clusters lack gets no membership."""
        self.clusters = clusters

    def check_unique(self) -> None:
        """Raise `InputError` where two rows have one id; eight bytes a row, not the ids, are held for this."""
        hashes = np.sort(np.concatenate([np.zeros(0, np.int64), *self._id_hashes]))
        shared = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
        seen: set[str] = set()
        for image_id in (raw.decode() for block in self._rows.read_ids() for raw in block) if shared else ():
            if image_id in seen:
                raise InputError(f"the id {image_id!r} is given twice; an embedding file has one row an id.")
            if hash(image_id) in shared:
                seen.add(image_id)


@contextmanager
def create(
    path: Path, dim: int, dtype: str, attributes: Mapping[str, Any], *, hashed: bool, texts: bool
) -> Iterator[StoreWriter]:
    """What `wscl_embed.EmbeddingStore.create` does."""
    if dtype not in UNIT or dim < 1:
        raise InputError(f"an embedding file holds {' or '.join(UNIT)} of 1 dimension or more; got {dtype}, {dim}.")
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent, path.name)
        try:
            rows = RowFiles(temporary_path(path), dim, dtype, hashed=hashed, texts=texts)
            try:
                writer = StoreWriter(rows)
                yield writer
                writer.check_unique()
                finish(rows, path, attributes, writer.clusters)
            finally:
                rows.close()
        finally:
            clear_leftovers(path.parent, path.name)  # this process's own as well
