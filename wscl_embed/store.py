"""`EmbeddingStore`: embeddings in one HDF5 file that any HDF5 reader opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError
from wscl_embed.files import atomic_path

if TYPE_CHECKING:
    import h5py

    from wscl_embed.clusters import Clusters

FORMAT = "wscl-embed/embeddings"
FORMAT_VERSION = 1
CHUNK_ROWS = 256  # float16 512-d random rows: 11,000 a second at 256 rows a chunk, 4,000 at 1,024


class EmbeddingStore:
    """An embedding file opened for reading.

    ================ ================================================================================================
    ``/ids``         (N,) UTF-8 strings
    ``/embeddings``  (N, D) float32 or float16, rows of unit length (attribute ``normalised``)
    ``/clusters``    ``labels`` (N,) int64: the cluster of each image, -1 for noise or an image that was not clustered;
                     ``indptr``, ``indices``, ``weights``: the membership matrix as CSR; ``names`` (K,) UTF-8
    root attributes  ``format``, ``format_version``, ``encoder``, ``weights_hash``, ``preprocess`` (JSON), ``adapters``
                     (JSON), ``dataset_fingerprint``, ``complete``
    ================ ================================================================================================

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "toy.h5"
    >>> with EmbeddingStore.create(path, dim=2) as writer:
    ...     writer.append(["a", "b"], np.array([[3.0, 4.0], [0.0, 2.0]]))
    >>> with EmbeddingStore(path) as store:
    ...     store.ids, store.embeddings[0].tolist()
    (['a', 'b'], [0.6000000238418579, 0.800000011920929])
    """

    def __init__(self, path: str | Path) -> None:
        """Open ``path``.

        Raises:
            InputError: no such file, not HDF5, another format or version, or a file that was never completed.
        """
        import h5py

        self.path = Path(path)
        try:
            self._file = h5py.File(self.path, "r")
        except FileNotFoundError as error:
            raise InputError(f"{path}: there is no such file; `wscl-embed embed` writes one.") from error
        except OSError as error:
            raise InputError(f"{path}: not an HDF5 file that can be read ({error}).") from error
        found = (self.attributes.get("format"), self.attributes.get("format_version"), self.attributes.get("complete"))
        if found != (FORMAT, FORMAT_VERSION, True):
            self._file.close()
            raise InputError(
                f"{path}: not a complete embedding file of version {FORMAT_VERSION} "
                f"(format {found[0]!r}, version {found[1]!r}, complete {found[2]!r})."
            )

    def __enter__(self) -> EmbeddingStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def ids(self) -> list[str]:
        """The N ids, in the order of the rows."""
        return [str(value) for value in self._file["ids"].asstr()[:]]

    @property
    def embeddings(self) -> h5py.Dataset:
        """(N, D), unit length, read on demand: slice it as a NumPy array."""
        return self._file["embeddings"]

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes."""
        return {
            key: value.item() if isinstance(value, np.generic) else value for key, value in self._file.attrs.items()
        }

    def search(self, query: NDArray[np.floating], k: int, *, chunk: int = 65_536) -> list[tuple[str, float]]:
        """The k nearest (id, cosine), exactly, for one (D,) query.

        Raises:
            InputError: a query of another dimension.
        """
        if query.shape != (self.embeddings.shape[1],):
            raise InputError(
                f"{self.path} holds embeddings of {self.embeddings.shape[1]} dimensions, not {query.shape}."
            )
        unit = query.astype(np.float32) / max(float(np.linalg.norm(query)), 1e-12)
        scores = np.concatenate(
            [self.embeddings[start : start + chunk].astype(np.float32) @ unit for start in range(0, len(self), chunk)]
        )
        best = np.argsort(-scores, kind="stable")[:k]
        ids = self.ids
        return [(ids[row], float(scores[row])) for row in best]

    @staticmethod
    @contextmanager
    def create(
        path: str | Path, dim: int, *, dtype: str = "float32", attributes: Mapping[str, Any] | None = None
    ) -> Iterator[StoreWriter]:
        """Write a new file; it appears under ``path`` only when the block ends without an error."""
        import h5py

        with atomic_path(Path(path)) as temporary, h5py.File(temporary, "w") as file:
            file.attrs.update({"format": FORMAT, "format_version": FORMAT_VERSION, **(attributes or {})})
            file.attrs["complete"] = False
            writer = StoreWriter(file, dim, dtype)
            yield writer
            file.attrs["complete"] = True


class StoreWriter:
    """Appends rows to a new embedding file; made by `EmbeddingStore.create`."""

    def __init__(self, file: h5py.File, dim: int, dtype: str) -> None:
        import h5py

        self._file = file
        self._ids = file.create_dataset("ids", (0,), maxshape=(None,), dtype=h5py.string_dtype(), chunks=(4096,))
        self._embeddings = file.create_dataset(
            "embeddings", (0, dim), maxshape=(None, dim), dtype=dtype, chunks=(CHUNK_ROWS, dim)
        )
        self._embeddings.attrs["normalised"] = True

    def append(self, ids: Sequence[str], embeddings: NDArray[np.floating]) -> None:
        """Append (b, D) rows, scaled to unit length.

        Raises:
            InputError: a row that is not finite (names its id).
        """
        rows = np.asarray(embeddings, dtype=np.float32)
        finite = np.isfinite(rows).all(axis=1)
        if not finite.all():
            raise InputError(f"the embedding of image {ids[int(np.argmin(finite))]!r} is not finite.")
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        start, stop = len(self._ids), len(self._ids) + len(ids)
        self._ids.resize((stop,))
        self._embeddings.resize((stop, rows.shape[1]))
        self._ids[start:stop] = list(ids)
        self._embeddings[start:stop] = rows / np.maximum(lengths, 1e-12)

    def set_clusters(self, clusters: Clusters) -> None:
        """Write ``/clusters`` for the ids appended so far; an id the clusters lack gets no membership."""
        import h5py
        from scipy import sparse

        ids = [value.decode() for value in self._ids[:]]
        position = {image_id: row for row, image_id in enumerate(clusters.ids)}
        found = np.array([position.get(image_id, -1) for image_id in ids], dtype=np.int64)
        known = np.flatnonzero(found >= 0)
        # A selection matrix copies the known rows and leaves the others empty.
        pick = sparse.csr_array((np.ones(len(known), np.float32), (known, found[known])), (len(ids), len(clusters)))
        membership = sparse.csr_array(pick @ clusters.membership)
        labels = np.full(len(ids), -1, dtype=np.int64)
        labels[known] = clusters.labels[found[known]]
        group = self._file.create_group("clusters")
        group["labels"] = labels
        group["indptr"], group["indices"] = membership.indptr.astype(np.int64), membership.indices.astype(np.int64)
        group["weights"] = membership.data.astype(np.float32)
        group.create_dataset("names", data=list(clusters.table["name"]), dtype=h5py.string_dtype())
