"""`VectorIndex`: an approximate index in a file beside the embeddings, and the record of what it was built from.

faiss reads its files without suspicion: a crafted one can do what a program can. So `VectorIndex.open` gives faiss only
a file that is byte by byte the one a record beside it says was built from these embeddings. That guards against files
that were cut off, exchanged or left over, not against somebody who writes both: the index in a stranger's run is to be
trusted like a stranger's program, or deleted and built again.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wscl_embed.errors import InputError, MissingExtraError
from wscl_embed.extras import import_faiss
from wscl_embed.files import atomic_path, write_text
from wscl_embed.store import EmbeddingStore
from wscl_embed.store.exact import CHUNK_ROWS, Best

Kind = Literal["hnsw", "ivf"]
FORMAT = "wscl-embed/index"
FORMAT_VERSION = 1
MAGIC: dict[str, tuple[bytes, ...]] = {"hnsw": (b"IxMp",), "ivf": (b"IwFl", b"IwSq")}
"""How faiss begins its files: a graph within a map of ids; inverted lists of float32, or of halves."""


class StaleIndexError(InputError):
    """An index file that must not be used."""


@dataclass(frozen=True)
class IndexRecord:
    """What ``index.faiss.json`` says.

    ================ ======================================================================================
    ``kind``         hnsw or ivf
    ``effort``       of a search: efSearch of a graph, nprobe of inverted lists
    ``rows, dim``    N, D
    ``embeddings``   `fingerprint` of the embedding file
    ``sha256``       of the index file
    ``recall``       recall@10 against exact search, of ``image`` and, where they were measured, ``text`` queries
    ================ ======================================================================================
    """

    kind: Kind
    effort: int
    rows: int
    dim: int
    embeddings: str
    sha256: str
    recall: dict[str, float]
    format: str = FORMAT
    format_version: int = FORMAT_VERSION


class VectorIndex:
    """A faiss index over the N rows of an embedding file. Several threads may search at once."""

    def __init__(self, index: Any, kind: Kind, effort: int) -> None:
        self.index = index
        self.kind = kind
        self.effort = effort

    def search(self, queries: NDArray[np.floating], k: int, *, effort: int | None = None) -> Best:
        """As `wscl_embed.store.exact.nearest`, approximately; the number -1 where fewer than k rows were found.

        Args:
            queries: (q, D), unit length.
            effort: other than the index's own.
        """
        faiss = load_faiss()
        chosen = self.effort if effort is None else effort
        if self.kind == "hnsw":
            parameters = faiss.SearchParametersHNSW(efSearch=max(chosen, k))
        else:
            parameters = faiss.SearchParametersIVF(nprobe=chosen)
        # faiss.contrib.torch_utils, which other libraries import, puts a search without params before faiss's own.
        search = getattr(self.index, "search_numpy", self.index.search)
        scores, rows = search(np.ascontiguousarray(queries, dtype=np.float32), k, params=parameters)
        return scores, rows

    def save(self, store: EmbeddingStore, recall: dict[str, float]) -> Path:
        """Write the index and its record beside the embedding file ``store``; the path of the index."""
        path = index_path(store.path)
        with atomic_path(path) as temporary:
            load_faiss().write_index(self.index, str(temporary))
            digest = file_hash(temporary)
        rows, dim = store.embeddings.shape
        record = IndexRecord(self.kind, self.effort, int(rows), int(dim), fingerprint(store), digest, recall)
        write_text(record_path(path), json.dumps(asdict(record), indent=2) + "\n")
        return path

    @classmethod
    def open(cls, store: EmbeddingStore) -> VectorIndex | None:
        """The index beside an embedding file; None where there is none.

        Raises:
            StaleIndexError: there is one that was built from other embeddings, or is not the file that was built.
            InputError: faiss is not installed.
        """
        path = index_path(store.path)
        if not path.is_file():
            return None
        record = read_record(path)
        rows, dim = store.embeddings.shape
        if (record.rows, record.dim) != (rows, dim) or record.embeddings != fingerprint(store):
            raise StaleIndexError(f"{path}: built from other embeddings than {store.path.name} now has.")
        with path.open("rb") as file:
            magic = file.read(4)
        if magic not in MAGIC[record.kind] or file_hash(path) != record.sha256:
            raise StaleIndexError(f"{path}: not the file that was built, by the record beside it.")
        index = _read(path, record.kind)
        if (index.ntotal, index.d) != (rows, dim):
            raise StaleIndexError(f"{path}: holds {index.ntotal} rows of {index.d} dimensions, not {rows} of {dim}.")
        return cls(index, record.kind, record.effort)


def _read(path: Path, kind: Kind) -> Any:
    """The index in a file. Inverted lists stay there, and a search maps those it looks into."""
    faiss = load_faiss()
    if kind == "hnsw" or not hasattr(faiss, "OnDiskInvertedLists"):  # not on every system
        return faiss.read_index(str(path))
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    faiss.downcast_InvertedLists(index.invlists).prefetch_nthread = 0  # starting threads takes longer than reading
    return index


def load_faiss() -> Any:
    """The module faiss.

    Raises:
        MissingExtraError: not installed.
    """
    faiss = import_faiss()
    if faiss is None:
        raise MissingExtraError("faiss-cpu", "faiss", "an index")
    return faiss


def index_path(embeddings: Path) -> Path:
    """Where the index of an embedding file lies.

    >>> index_path(Path("runs/a/embeddings.h5")).name, index_path(Path("more.h5")).name
    ('index.faiss', 'more.faiss')
    """
    return (
        embeddings.with_name("index.faiss") if embeddings.name == "embeddings.h5" else embeddings.with_suffix(".faiss")
    )


def record_path(index: Path) -> Path:
    """Where the record of an index lies."""
    return index.with_name(f"{index.name}.json")


def read_record(index: Path) -> IndexRecord:
    """The record of an index.

    Raises:
        StaleIndexError: there is none, or it does not read as one.
    """
    try:
        record = IndexRecord(**json.loads(record_path(index).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise StaleIndexError(f"{index}: {record_path(index).name} is missing or damaged.") from error
    if (record.format, record.format_version) != (FORMAT, FORMAT_VERSION) or record.kind not in list(MAGIC):
        raise StaleIndexError(f"{index}: of a version or kind not known here.")
    if not (isinstance(record.effort, int) and record.effort > 0):
        raise StaleIndexError(f"{record_path(index)}: effort {record.effort!r} is not a positive number.")
    return record


def remove_index(embeddings: Path) -> bool:
    """Delete the index of an embedding file and its record; whether there was one."""
    path = index_path(embeddings)
    there = path.exists()
    for one in (path, record_path(path)):
        one.unlink(missing_ok=True)
    return there


def fingerprint(store: EmbeddingStore) -> str:
    """SHA-256 (hex) over the ids and embeddings of a file, in order, and nothing else it says."""
    digest = hashlib.sha256()
    for block in chain(store.id_blocks(), [[str(store.embeddings.dtype)]]):
        digest.update("\0".join([*block, ""]).encode())
    for start in range(0, len(store), CHUNK_ROWS):
        digest.update(np.ascontiguousarray(store.embeddings[start : start + CHUNK_ROWS]).data)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 24):
            digest.update(block)
    return digest.hexdigest()
