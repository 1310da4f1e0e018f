"""One checkpoint on disk: ``state.pt``, as ``torch.save`` writes it, and ``COMMITTED``, which says what it must be.

``COMMITTED`` is written last: a line of JSON with the size and the SHA-256 of ``state.pt`` and the facts it belongs to,
and the SHA-256 of that line. Reading unpickles tensors, numbers and strings alone (``weights_only``).
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from wscl_embed.errors import InputError, WsclEmbedError
from wscl_embed.files import sync_folder

FORMAT, FORMAT_VERSION = "wscl-embed/checkpoint", 1
STATE, COMMITTED = "state.pt", "COMMITTED"


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds."""

    path: Path
    state: dict[str, Any]
    facts: dict[str, str]


class DamagedError(WsclEmbedError):
    """A checkpoint that is not what was written; the text says how it was noticed."""


def read_checkpoint(path: Path) -> Saved:
    """A checkpoint whose size and hash are those that were committed.

    Raises:
        DamagedError: they are not, or it cannot be read.
        InputError: it was written by a newer version.
    """
    import torch

    committed, file = _committed(path / COMMITTED), path / STATE
    try:
        if file.stat().st_size != committed["bytes"]:
            raise DamagedError(f"{STATE} has {file.stat().st_size} bytes, {committed['bytes']} were written")
        with file.open("rb") as handle:
            if _digest(handle) != committed["sha256"]:
                raise DamagedError(f"the SHA-256 of {STATE} is not that of what was written")
            handle.seek(0)
            state = torch.load(handle, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DamagedError(f"no {STATE}") from error
    except OSError as error:
        raise DamagedError(f"{STATE} cannot be read: {error.strerror}") from error
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:  # a hash that fits what nobody wrote
        raise DamagedError(f"{STATE} is no checkpoint") from error
    if not isinstance(state, dict):
        raise DamagedError(f"{STATE} is no checkpoint")
    return Saved(path, state, committed["facts"])


def _committed(path: Path) -> dict[str, Any]:
    try:
        content, _, digest = path.read_bytes().rpartition(b"\n")
    except FileNotFoundError as error:
        raise DamagedError(f"no {COMMITTED}") from error
    except OSError as error:
        raise DamagedError(f"{COMMITTED} cannot be read: {error.strerror}") from error
    if digest != hashlib.sha256(content).hexdigest().encode():
        raise DamagedError(f"{COMMITTED} is not what was written")
    try:
        committed: dict[str, Any] = json.loads(content)
        newer = committed["format_version"] > FORMAT_VERSION
        whole = {"bytes", "sha256"} <= committed.keys() and isinstance(committed["facts"], dict)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{COMMITTED} is no record of a checkpoint") from error
    if newer:
        raise InputError(f"{path}: written by a newer version of wscl-embed; update it.")
    if not whole:
        raise DamagedError(f"{COMMITTED} is no record of a checkpoint")
    return committed


def _digest(handle: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


class _HashedFile:
    """Counts and hashes what is written through it: what was meant, whatever the disk makes of it."""

    def __init__(self, handle: IO[bytes]) -> None:
        self._handle = handle
        self._digest = hashlib.sha256()
        self.bytes = 0
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            written = self._handle.write(data)
        except OSError as error:
            self.error = self.error or error  # torch makes another one of it, without the reason
            raise
        self._digest.update(data)
        self.bytes += written
        return written

    def flush(self) -> None:
        self._handle.flush()

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


def _write_state(path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Write and sync ``state``; its size and hash."""
    import torch

    with path.open("wb", buffering=0) as handle:
        hashed = _HashedFile(handle)
        try:
            torch.save(dict(state), hashed)  # type: ignore[arg-type]
        except Exception:
            if hashed.error is not None:
                raise hashed.error from None
            raise
        os.fsync(handle.fileno())
    return {"bytes": hashed.bytes, "sha256": hashed.sha256}


def write_checkpoint(folder: Path, state: Mapping[str, Any], facts: Mapping[str, str]) -> None:
    """Write ``state``, then, when it is on the disk, what it must be found to be."""
    described = _write_state(folder / STATE, state)
    committed = {"format": FORMAT, "format_version": FORMAT_VERSION, **described, "facts": dict(facts)}
    content = json.dumps(committed).encode()
    _write(folder / COMMITTED, content + b"\n" + hashlib.sha256(content).hexdigest().encode())
    sync_folder(folder)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())
