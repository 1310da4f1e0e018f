"""`RowFiles`: the rows of an embedding file in files that only grow, so that a kill leaves a prefix of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError, StorageError
from wscl_embed.store.matrix import GrowingMatrix, close
from wscl_embed.store.unit import unit_blocks

HEAD = 4096  # bytes left free before the first vector; `wscl_embed.store.container` puts the HDF5 header there
HASH_BYTES = 16
READ_BYTES = 1 << 24
END = b"\0"  # ends an id in the file of ids
PARTS = ("embeddings", "content hashes", "text embeddings", "content hashes of texts")


class TextRows(NamedTuple):
    """The captions of b images: embeddings (b, D), and hashes (b, 16) uint8; both zeros where an image has none."""

    embeddings: NDArray[np.floating]
    hashes: NDArray[np.uint8]

    def of(self, rows: slice | NDArray[np.int64]) -> TextRows:
        """Those of some of the images."""
        return TextRows(self.embeddings[rows], self.hashes[rows])


class RowFiles:
    """Rows on their way into an embedding file: matrices that grow, and the ids.

    ==================== =================================================================
    ``STEM.vectors``     (n, D), the embeddings of the images
    ``STEM.hashes``      (n, 16) uint8, their content hashes, where asked for
    ``STEM.text``        (n, D), the embeddings of their captions, where asked for
    ``STEM.text-hashes`` (n, 16) uint8, the captions' content hashes
    ``STEM.ids``         the ids, a NUL behind each
    ==================== =================================================================

    Nothing in them is ever changed, and a row's id is written last: after a kill at any moment the rows that have all
    their parts are whole, and opening the files again cuts off what is behind them.

    Args:
        stem: the path of the files without their suffixes.
        dim: D.
        dtype: float32 or float16.
        hashed: whether every row has a content hash.
        texts: whether rows have captions.
    """

    def __init__(self, stem: Path, dim: int, dtype: str, *, hashed: bool = False, texts: bool = False) -> None:
        def matrix(part: str, width: int, kind: str, head: int = 0) -> GrowingMatrix:
            return GrowingMatrix(stem.with_name(f"{stem.name}.{part}"), width, kind, head=head)

        self.vectors = matrix("vectors", dim, dtype, HEAD)
        self.hashes = matrix("hashes", HASH_BYTES, "uint8") if hashed else None
        self.text = matrix("text", dim, dtype) if texts else None
        self.text_hashes = matrix("text-hashes", HASH_BYTES, "uint8") if texts else None
        self.ids_path = stem.with_name(f"{stem.name}.ids")
        self._ids = self.ids_path.open("ab")
        self._length, self.longest = self._trim()

    @property
    def _parts(self) -> tuple[GrowingMatrix | None, ...]:
        return self.vectors, self.hashes, self.text, self.text_hashes

    @property
    def _matrices(self) -> list[GrowingMatrix]:
        return [matrix for matrix in self._parts if matrix is not None]

    def _trim(self) -> tuple[int, int]:
        """Cut the files to the rows they all have; their number, and the bytes of the longest id among them."""
        ends = np.concatenate([np.zeros(0, np.int64), *_ends(self.ids_path)])
        n = min(len(ends), *(matrix.whole_rows() for matrix in self._matrices))
        for matrix in self._matrices:
            matrix.cut(n)
        self._ids.truncate(int(ends[n - 1]) if n else 0)
        return n, int(np.diff(ends[:n], prepend=0).max(initial=1)) - 1

    @property
    def dim(self) -> int:
        """D."""
        return self.vectors.width

    def __len__(self) -> int:
        return self._length

    def append(
        self,
        ids: Sequence[str],
        embeddings: NDArray[np.floating],
        hashes: NDArray[np.uint8] | None = None,
        texts: TextRows | None = None,
    ) -> None:
        """Append (b, D) rows, scaled to unit length, as are those of ``texts``; ``hashes`` (b, 16).

        Raises:
            InputError: a row that is not finite, or an id with a NUL character (names the id); other parts of the rows
                than the file was begun with, or of another shape.
            StorageError: the disk is full, or does not take the rows for another reason.
        """
        self._check_shapes(len(ids), embeddings, hashes, texts)
        dtype = self.vectors.dtype
        vectors = unit_blocks(embeddings, ids, dtype, "embedding")
        captions = None if texts is None else unit_blocks(texts.embeddings, ids, dtype, "text embedding")
        self._write(ids, vectors, hashes, captions, None if texts is None else texts.hashes)

    def copy(
        self,
        ids: Sequence[str],
        vectors: NDArray[np.floating],
        hashes: NDArray[np.uint8] | None = None,
        texts: TextRows | None = None,
    ) -> None:
        """Append rows that have unit length already, as they are."""
        self._check_shapes(len(ids), vectors, hashes, texts)
        captions, caption_hashes = (None, None) if texts is None else ([texts.embeddings], texts.hashes)
        self._write(ids, [vectors], hashes, captions, caption_hashes)

    def _check_shapes(
        self, n: int, vectors: NDArray[np.floating], hashes: NDArray[np.uint8] | None, texts: TextRows | None
    ) -> None:
        """See that n rows have the parts that were asked for, and no others: one row more would move all behind it."""
        for what, matrix, rows in zip(PARTS, self._parts, (vectors, hashes, *(texts or (None, None))), strict=True):
            wanted, found = None if matrix is None else (n, matrix.width), None if rows is None else np.shape(rows)
            if wanted != found:
                raise InputError(f"{n} ids with {what} of shape {found}; the file takes {wanted}.")

    def _write(
        self,
        ids: Sequence[str],
        vectors: Iterable[NDArray[np.floating]],
        hashes: NDArray[np.uint8] | None,
        captions: Iterable[NDArray[np.floating]] | None,
        caption_hashes: NDArray[np.uint8] | None,
    ) -> None:
        """Append the parts of rows, blocks of the matrices, and last the ids."""
        encoded, ends = _encoded(ids)
        whole = [None if part is None else [part] for part in (hashes, caption_hashes)]
        try:
            for matrix, blocks in zip(self._parts, (vectors, whole[0], captions, whole[1]), strict=True):
                if matrix is None or blocks is None:
                    continue
                for block in blocks:
                    matrix.write(block)
                matrix.flush()
            self._ids.write(encoded)
            self._ids.flush()
        except OSError as error:
            raise StorageError(f"{self.ids_path.parent}: cannot be written ({error.strerror}).") from error
        except InputError:
            for matrix in self._matrices:  # the blocks before the bad one
                matrix.cut(self._length)
            raise
        self._length += len(ids)
        self.longest = max(self.longest, int(np.diff(ends, prepend=-1).max(initial=1)) - 1)

    def check_synced(self) -> None:
        """Raise what the disk said when rows were put on it."""
        for matrix in self._matrices:
            matrix.check_synced()

    def read_ids(self) -> Iterator[list[bytes]]:
        """The ids, many at a time."""
        rest = b""
        for block in _blocks(self.ids_path):
            *whole, rest = (rest + block).split(END)
            yield whole

    def read_vectors(self) -> NDArray[np.floating]:
        """(n, D), mapped from the disk."""
        return self.vectors.read(self._length)

    def read_hashes(self) -> NDArray[np.uint8] | None:
        """(n, 16) uint8, mapped from the disk; None without."""
        return None if self.hashes is None else self.hashes.read(self._length)

    def read_texts(self) -> TextRows | None:
        """The captions of the n rows, mapped from the disk; None without."""
        if self.text is None or self.text_hashes is None:
            return None
        return TextRows(self.text.read(self._length), self.text_hashes.read(self._length))

    def close(self) -> None:
        """Close the files."""
        for matrix in self._matrices:
            matrix.close()
        close(self._ids)

    def remove(self) -> None:
        """Close the files and delete them."""
        self.close()
        for path in [*(matrix.path for matrix in self._matrices), self.ids_path]:
            path.unlink(missing_ok=True)


def hash_rows(hashes: Iterable[bytes]) -> NDArray[np.uint8]:
    """(n, 16) uint8 of n content hashes; where none were asked for they are b"", and it is (0, 16)."""
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, HASH_BYTES)


def _encoded(ids: Sequence[str]) -> tuple[bytes, NDArray[np.int64]]:
    """The ids as they are in their file, and where each ends.

    Raises:
        InputError: one with a NUL character, or one that is no string.
    """
    odd = next((image_id for image_id in ids if not isinstance(image_id, str)), None)
    if odd is not None:
        raise InputError(f"ids must be strings; got {odd!r} ({type(odd).__name__}).")
    encoded = "\0".join([*ids, ""]).encode()
    ends = np.flatnonzero(np.frombuffer(encoded, np.uint8) == END[0])
    if len(ends) != len(ids):
        spoilt = next(image_id for image_id in ids if "\0" in image_id)
        raise InputError(f"the id {spoilt!r} has a NUL character, which HDF5 strings cannot hold.")
    return encoded, ends


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(READ_BYTES):
            yield block


def _ends(path: Path) -> Iterator[NDArray[np.int64]]:
    """The positions just behind each id."""
    start = 0
    for block in _blocks(path):
        yield np.flatnonzero(np.frombuffer(block, np.uint8) == END[0]) + start + 1
        start += len(block)
