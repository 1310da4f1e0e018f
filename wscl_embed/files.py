"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wscl_embed.errors import StorageError, WsclEmbedError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
REFUSALS = (*FULL, errno.EIO, errno.EACCES, errno.EPERM, errno.ENAMETOOLONG)
"""What a disk says that is full, read-only or broken, or a folder nothing may be written into."""
IN_PART = re.compile(r"\d+ requested and \d+ written")  # NumPy, of an array a disk took a part of; without a number

ASIDE, GONE = ".aside", ".gone"  # what a folder is called while another takes its place, and while it is deleted


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path on the disk of ``path``; on success it is synced and renamed to ``path``, on failure removed.

    It lies in a hidden folder of its own, for libraries that make temporary files beside what they write (safetensors).
    What a process that was killed left of the same file is removed first.

    Raises:
        StorageError: the disk is full, or refuses for another reason; ``path`` is as it was.
    """
    with storage_errors(path), _temporary(path) as folder:
        folder.mkdir()
        temporary = folder / path.name
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync_folder(path.parent)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside ``path``; on success it takes the place of ``path``, on failure it is removed.

    No system call does that at once: a process killed in between leaves the old folder under a hidden name, from which
    the next one to write there brings it back.

    Raises:
        StorageError: as `atomic_path`.
    """
    with storage_errors(path), _temporary(path) as temporary:
        temporary.mkdir()
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                sync(file)
        sync_folder(temporary)
        _take_place(temporary, path)
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Delete a file or a folder, if it is there; a folder is gone at once, not one file after another."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    doomed = temporary_path(path.with_name(path.name + GONE))
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def temporary_path(path: Path) -> Path:
    """The hidden name beside ``path`` under which this process writes; it says which process on which machine."""
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.tmp")


def leftovers(folder: Path, name: str | None = None) -> list[Path]:
    """Temporary files and folders in ``folder`` that a killed process of this machine left, those of ``name`` or all.

    Another machine's, and those of processes that are alive, are not among them.
    """
    ours = re.compile(rf"\.(?P<name>.+)\.{re.escape(socket.gethostname())}-(?P<process>\d+)\.tmp(\..*)?", re.DOTALL)
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        match = ours.fullmatch(path.name)
        if (
            match
            and name in (None, match["name"].removesuffix(ASIDE).removesuffix(GONE))
            and not _alive(int(match["process"]))
        ):
            found.append(path)
    return found


def clear_leftovers(folder: Path, name: str | None = None) -> None:
    """Delete `leftovers`, but for a folder that was moved aside, and whose place nothing has taken: it goes back."""
    for path in leftovers(folder, name):
        before, moved, _ = path.name.removeprefix(".").rpartition(f"{ASIDE}.{socket.gethostname()}-")
        if moved and not (folder / before).exists():
            path.rename(folder / before)
        else:
            remove(path)


def sync(path: Path) -> None:
    """Have the content of a file put on the disk."""
    with path.open("rb") as handle:
        os.fsync(handle.fileno())


def sync_folder(path: Path) -> None:
    """Have the names in a folder put on the disk, where the system knows how to (not on Windows)."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Say of whatever a library raises when the disk refuses what it was about.

    Raises:
        StorageError: in place of an error that says so in its number or its text; others pass.
    """
    try:
        yield
    except WsclEmbedError:
        raise
    except Exception as error:
        reason = refusal(error)
        if reason is None:
            raise
        raise StorageError(f"{path}: cannot be written ({reason}).") from error


def refusal(error: Exception) -> str | None:
    """What the disk said, if it was the disk; h5py, safetensors and faiss have it in their text alone.

    >>> refusal(OSError(errno.ENOSPC, "No space left on device")), refusal(ValueError("wrong"))
    ('No space left on device', None)
    """
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return os.strerror(error.errno)
    if isinstance(error, OSError) and IN_PART.fullmatch(str(error)):
        return os.strerror(errno.ENOSPC)
    return next((os.strerror(number) for number in REFUSALS if os.strerror(number) in str(error)), None)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path.parent, path.name)
    temporary = temporary_path(path)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _take_place(new: Path, path: Path) -> None:
    aside = temporary_path(path.with_name(path.name + ASIDE))
    if path.exists():
        path.rename(aside)
    try:
        new.rename(path)
    except BaseException:
        if aside.exists():
            aside.rename(path)
        raise
    shutil.rmtree(aside, ignore_errors=True)  # nothing looks for it; what is left of it the next write clears


def _alive(process: int) -> bool:
    """Whether that process runs and is another one: a number is used again, in containers by every run."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True  # there os.kill would end it
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
