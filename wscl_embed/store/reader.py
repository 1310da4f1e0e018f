"""`EmbeddingStore`: embeddings in one HDF5 file that any HDF5 reader opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wscl_embed.errors import InputError
from wscl_embed.store.chunks import ChunkedRows
from wscl_embed.store.container import StoreWriter, create
from wscl_embed.store.exact import CHUNK_ROWS, check_k, nearest
from wscl_embed.store.safety import check_safe
from wscl_embed.store.schema import check_schema
from wscl_embed.store.trial import try_reading
from wscl_embed.store.unit import unit_query

if TYPE_CHECKING:
    from wscl_embed.clusters import Clusters

FEW_IDS = 1000  # one costs 50 microseconds by itself


class EmbeddingStore:
    """An embedding file opened for reading; ``docs/hdf5.md`` has the schema.

    ================ ================================================================================================
    ``/ids``         (N,) UTF-8 strings
    ``/embeddings``  (N, D) float32 or float16, rows of unit length (attribute ``normalised``), contiguous
    ``/content_hash`` (N, 16) uint8, BLAKE2b of each image file; in files `fit` and `embed` wrote
    ``/text``        ``embeddings`` (N, D) of the captions, rows of unit length, zeros where an image has none;
                     ``content_hash`` (N, 16) uint8, BLAKE2b of the captions, zeros too; where there are captions
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
    ...     np.asarray(store).shape
    (['a', 'b'], [0.6000000238418579, 0.800000011920929])
    (2, 2)
    """

    def __init__(self, path: str | Path) -> None:
        """Open an embedding file, or the one of a run.

        Nothing in it is read before `wscl_embed.store.safety.check_safe` has found it harmless.
        A file this process did not write is read by another first (`wscl_embed.store.trial`), which may die over it.

        Raises:
            InputError: no such file, not HDF5, a file that reaches outside itself or claims more than it holds, another
                format or version, a file that was never completed, or one that HDF5 cannot cope with.
        """
        import h5py

        self.path = Path(path)
        if self.path.is_dir():
            self.path /= "embeddings.h5"
        try_reading(self.path)
        try:
            self._file = h5py.File(self.path, "r")
        except FileNotFoundError as error:
            raise InputError(f"{self.path}: there is no such file; `wscl-embed embed` writes one.") from error
        except OSError as error:
            raise InputError(f"{path}: not an HDF5 file that can be read ({error}).") from error
        try:
            with self._undamaged():
                check_safe(self._file, self.path)
                check_schema(self._file, self.path)
                self.embeddings = self._map("embeddings")
                self.text_embeddings = self._map("text/embeddings") if "text/embeddings" in self._file else None
        except BaseException:
            self._file.close()
            raise

    @contextmanager
    def _undamaged(self) -> Iterator[None]:
        """What the library raises over a damaged file, as an `InputError`; so is a file that was closed."""
        if not self._file:
            raise InputError(f"{self.path} was closed; read it within the `with` block.")
        try:
            yield
        except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError) as error:
            said = " ".join(str(error).split())
            raise InputError(f"{self.path}: damaged, or not an HDF5 file of ours ({said[:200]}).") from error

    def _map(self, name: str) -> NDArray[np.floating] | ChunkedRows:
        """The rows of an (N, D) dataset, mapped where they are contiguous."""
        dataset = self._file[name]
        offset = dataset.id.get_offset()  # None where the rows are not contiguous
        if offset is None or dataset.chunks is not None:
            return (
                np.empty(dataset.shape, dataset.dtype) if dataset.size == 0 else ChunkedRows(dataset, self._undamaged)
            )
        if offset + dataset.nbytes > self.path.stat().st_size:
            raise InputError(f"{self.path}: the file is cut off.")
        return np.memmap(self.path, dataset.dtype, "r", offset=offset, shape=dataset.shape)

    def __enter__(self) -> EmbeddingStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[EmbeddingStore], tuple[Path]]:
        """Another process, such as one that loads data, opens the file anew."""
        return type(self), (self.path,)

    def __len__(self) -> int:
        return int(self.embeddings.shape[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.floating]:
        """All embeddings, for ``np.asarray(store)``."""
        rows = self.embeddings[:]
        return np.array(rows, dtype=dtype) if copy else np.asarray(rows, dtype=dtype)

    def close(self) -> None:
        """Close the file; rows that were taken from `embeddings` stay valid."""
        self._file.close()

    embeddings: NDArray[np.floating] | ChunkedRows
    """(N, D), unit length, mapped from the disk: slice or index it as a NumPy array."""

    text_embeddings: NDArray[np.floating] | ChunkedRows | None
    """(N, D), the embeddings of the images' captions, mapped from the disk; a row of zeros where an image has none.
    None in files without captions."""

    @property
    def ids(self) -> list[str]:
        """The N ids, in the order of the rows.

        Raises:
            InputError: one that is not UTF-8, or a damaged file.
        """
        return [image_id for block in self.id_blocks() for image_id in block]

    def id_blocks(self) -> Iterator[list[str]]:
        """`ids`, many at a time: those of 10 million rows together take 0.6 GB."""
        for start in range(0, len(self), CHUNK_ROWS):
            with self._undamaged():
                yield [value.decode() for value in self._file["ids"][start : start + CHUNK_ROWS].tolist()]

    def ids_of(self, rows: Sequence[int]) -> list[str]:
        """The ids of some rows, in their order; few are read one by one.

        Raises:
            InputError: as `ids`.
        """
        if len(rows) > FEW_IDS:
            ids = self.ids
            return [ids[row] for row in rows]
        with self._undamaged():
            return [self._file["ids"][row].decode() for row in rows]

    @property
    def content_hashes(self) -> NDArray[np.uint8] | None:
        """(N, 16) uint8, BLAKE2b of each image file; None in files without them."""
        return self._values("content_hash")  # type: ignore[no-any-return]

    @property
    def text_hashes(self) -> NDArray[np.uint8] | None:
        """(N, 16) uint8, BLAKE2b of each image's captions; zeros where it has none. None in files without captions."""
        return self._values("text/content_hash")  # type: ignore[no-any-return]

    @property
    def has_text(self) -> NDArray[np.bool_] | None:
        """(N,) bool, whether each image has a caption, so that its row of `text_embeddings` is one."""
        hashes = self.text_hashes
        return None if hashes is None else np.asarray(hashes.any(axis=1))

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """(N,) int64, the cluster of each image or -1; None in files without clusters."""
        return self._values("clusters/labels")  # type: ignore[no-any-return]

    def _values(self, name: str) -> Any:
        with self._undamaged():
            return self._file[name][:] if name in self._file else None

    @property
    def clusters(self) -> Clusters | None:
        """The membership of each image, with the clusters' names and no more about them; None in files without.

        Raises:
            InputError: a membership that is none.
        """
        from scipy import sparse

        from wscl_embed.clusters import Clusters, cluster_table

        with self._undamaged():
            if "clusters/indptr" not in self._file:
                return None
            group = self._file["clusters"]
            names = [name.decode() for name in group["names"][:].tolist()]
            entries = (group["weights"][:], group["indices"][:], group["indptr"][:])
            membership = sparse.csr_array(entries, shape=(len(self), len(names)))
            membership.check_format(full_check=True)  # or SciPy reads beyond its arrays, where the numbers lead it
            return Clusters(self.ids, membership, cluster_table(membership, source="", names=names))

    @property
    def attributes(self) -> dict[str, Any]:
        """The root attributes."""
        with self._undamaged():
            return {
                key: value.item() if isinstance(value, np.generic) else value for key, value in self._file.attrs.items()
            }

    def search(self, query: ArrayLike, k: int, *, chunk: int = CHUNK_ROWS) -> list[tuple[str, float]]:
        """The k nearest (id, cosine), exactly, for one (D,) query of any length.

        Raises:
            InputError: a query of another dimension or one that is not finite, or ``k`` below 1.
        """
        check_k(k)
        unit = unit_query(query, self.embeddings.shape[1], self.path)
        scores, rows = nearest(unit[None], self.embeddings, k, chunk_rows=chunk)
        return list(zip(self.ids_of(rows[0].tolist()), scores[0].tolist(), strict=True))

    @staticmethod
    def create(
        path: str | Path,
        dim: int,
        *,
        dtype: str = "float32",
        attributes: Mapping[str, Any] | None = None,
        hashed: bool = False,
        texts: bool = False,
    ) -> AbstractContextManager[StoreWriter]:
        """Write a new file; it appears under ``path`` only when the ``with`` block ends without an error.

        Args:
            path: the file.
            dim: D.
            dtype: float32 or float16.
            attributes: root attributes beside those of the format.
            hashed: every row comes with a content hash.
            texts: every row comes with its caption, as `wscl_embed.store.TextRows`.

        Raises:
            InputError: another dtype; when the block ends, an id that was given twice. Nothing is written then.
        """
        return create(Path(path), dim, dtype, attributes or {}, hashed=hashed, texts=texts)
