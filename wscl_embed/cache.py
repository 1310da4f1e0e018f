"""Where results that are slow to make are kept, and rows of numbers by the text they were made from."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wscl_embed.files import atomic_path

Rows: TypeAlias = "Mapping[str, NDArray[Any]]"  # arrays by name, all of one length, none of them strings

MADE_AT_ONCE = 16_384  # rows made before they are written: what an interrupted run loses at most
MANY_SHARDS = 32  # then they are joined into as few as SHARD_ROWS allows
SHARD_ROWS = 262_144

logger = logging.getLogger("wscl_embed")


_chosen: ContextVar[Path | None] = ContextVar("chosen", default=None)


@contextmanager
def cache_at(folder: str | Path | None) -> Iterator[None]:
    """Within the ``with`` block `default_cache_dir` is ``folder``, unless that is None: for what has no configuration
    to ask, such as adapters."""
    token = _chosen.set(None if folder is None else Path(folder))
    try:
        yield
    finally:
        _chosen.reset(token)


def default_cache_dir() -> Path:
    """What `cache_at` chose, or ``$WSCL_EMBED_CACHE``, or ``wscl-embed`` in the user's cache folder."""
    if chosen := _chosen.get():
        return chosen
    if folder := os.environ.get("WSCL_EMBED_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "wscl-embed"


class RowCache:
    """What was made of a text, kept on disk: a further run makes only what is new.

    A folder of shards, safetensors files that never change and are named by the hash of their content. So any number
    of processes may read and write at once, on network file systems too, without locks: at worst two make the same row.
    A damaged shard does not match its name; it is removed and what it held is made anew.

    Args:
        folder: of one maker of rows, such as one model. It need not exist.

    >>> import tempfile
    >>> cache = RowCache(Path(tempfile.mkdtemp()))
    >>> made = []
    >>> def lengths(texts):
    ...     made.extend(texts)
    ...     return {"length": np.array([len(text) for text in texts])}
    >>> _ = cache.rows(["sea", "beach"], lengths)
    >>> cache.rows(["beach", "sand"], lengths)["length"].tolist(), made
    ([5, 4], ['sea', 'beach', 'sand'])
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def rows(self, texts: Sequence[str], make: Callable[[list[str]], Rows]) -> dict[str, NDArray[Any]]:
        """The rows of ``texts`` in their order.

        Args:
            texts: n >= 1 strings.
            make: from m texts to arrays of m rows, by name; called with those that are not here, each once.
        """
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        found = self._distinct_rows(list(distinct), make)
        if len(distinct) == len(texts):
            return found
        return {name: array[[distinct[text] for text in texts]] for name, array in found.items()}

    def _distinct_rows(self, texts: list[str], make: Callable[[list[str]], Rows]) -> dict[str, NDArray[Any]]:
        keys = [_key(text) for text in texts]
        wanted = {key: position for position, key in enumerate(keys)}
        result: dict[str, NDArray[Any]] = {}
        for shard in self._shards():
            held = {key.tobytes(): row for row, key in enumerate(shard.pop("keys"))}
            common = [key for key in held if key in wanted]
            if not common or (result and not _alike(result, shard)):
                continue
            rows = {name: array[[held[key] for key in common]] for name, array in shard.items()}
            _put(result, rows, [wanted.pop(key) for key in common], len(texts))
        missing = sorted(wanted.values())
        for start in range(0, len(missing), MADE_AT_ONCE):
            positions = missing[start : start + MADE_AT_ONCE]
            made = make([texts[position] for position in positions])
            self._write({**made, "keys": _as_rows(keys[position] for position in positions)})
            _put(result, made, positions, len(texts))
        self._join()
        return result

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def _shards(self) -> Iterator[dict[str, NDArray[Any]]]:
        for path in self._paths():
            if shard := self._read(path):
                yield shard

    def _read(self, path: Path) -> dict[str, NDArray[Any]] | None:
        """The arrays of a shard; None where another process joined it, or where it is damaged."""
        from safetensors.numpy import load

        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        if _name(data) == path.name:
            return load(data)
        logger.warning("%s is damaged: removed; what it held is made anew.", path)
        path.unlink(missing_ok=True)
        return None

    def _write(self, rows: Rows) -> Path | None:
        """The new shard; None where it cannot be written: without a cache a run is slow, not wrong."""
        from safetensors.numpy import save

        data = save({name: np.ascontiguousarray(array) for name, array in rows.items()})
        path = self.folder / _name(data)
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            logger.warning("%s: nothing is cached there (%s).", self.folder, error.strerror or error)
            return None
        return path

    def _join(self) -> None:
        """Join small shards, when there are many. What is removed was written elsewhere before."""
        paths = self._paths()
        if len(paths) <= MANY_SHARDS:
            return
        read: list[tuple[Path, dict[str, NDArray[Any]]]] = []
        for path in paths:
            shard = self._read(path)
            if shard is None or len(shard["keys"]) >= SHARD_ROWS or (read and not _alike(read[0][1], shard)):
                continue
            read.append((path, shard))
            if sum(len(one["keys"]) for _, one in read) >= SHARD_ROWS:
                self._replace(read)
                read = []
        self._replace(read)

    def _replace(self, read: list[tuple[Path, dict[str, NDArray[Any]]]]) -> None:
        if len(read) < 2:
            return
        joined = {name: np.concatenate([shard[name] for _, shard in read]) for name in read[0][1]}
        _, first = np.unique(joined["keys"], axis=0, return_index=True)
        whole = self._write({name: array[np.sort(first)] for name, array in joined.items()})
        for path in [path for path, _ in read if whole is not None and path != whole]:
            path.unlink(missing_ok=True)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _as_rows(keys: Iterable[bytes]) -> NDArray[np.uint8]:
    return np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, 16)


def _name(data: bytes) -> str:
    return f"{hashlib.blake2b(data, digest_size=16).hexdigest()}.safetensors"


def _alike(first: Rows, second: Rows) -> bool:
    """Whether both have arrays of the same names, types and row shapes."""
    shapes = [{name: (array.dtype, array.shape[1:]) for name, array in rows.items()} for rows in (first, second)]
    return shapes[0] == shapes[1]


def _put(result: dict[str, NDArray[Any]], rows: Rows, positions: list[int], n: int) -> None:
    """Write ``rows`` to these positions of ``result``, whose arrays of n rows are made when they are first needed."""
    for name, array in rows.items():
        result.setdefault(name, np.zeros((n, *array.shape[1:]), dtype=array.dtype))[positions] = array
