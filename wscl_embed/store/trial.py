"""A file that somebody else wrote is read once in a process of its own, before this one reads it.

The HDF5 library is C code, and crafted structures send it round in circles (an object of 2^64 - 1 bytes in a heap of
strings does), make it ask for all memory, or end its process; `safety` can look at little before the library has read
it. So a process with limits goes first: it opens the file, walks all that `safety` walks (groups, attributes, and the
index of every dataset in chunks), and reads the strings. Of the numbers it reads what shows how they are read, not all:
a file of many GB is tried in the time a small one takes. A chunk that was not unpacked in the trial can still be
damaged, which is an `InputError` when it is read, and unpack to at most 1 GiB, in 2 (`chunks.MAX_PACKED`).

`python -m benchmarks.store` prints what it costs, once a file; files this process wrote itself are not tried.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import wscl_embed
from wscl_embed.errors import InputError, WsclEmbedError

if TYPE_CHECKING:
    import h5py

    from wscl_embed.store.reader import EmbeddingStore

PROCESSOR_SECONDS = 5  # for opening a file, and for each block of its rows: they take some hundredths of one
SECONDS = 300  # in all, where processor time cannot be limited (Windows), or nothing comes from a disk
BYTES = 1 << 30  # more than any block takes
BLOCK_ROWS = 65_536
BLOCK_BYTES = 1 << 22
TRIED = 1 << 26  # bytes that are unpacked of each dataset in chunks
READ = ("ids", "embeddings", "content_hash", "text/embeddings", "text/content_hash", *(f"clusters/{name}" for name in
        ("labels", "indptr", "indices", "weights", "names")))  # fmt: skip
REFUSED = InputError.exit_code
WINDOWS_CRASHES = (0xC0000005, 0xC00000FD, 0xC0000374)  # access violation, stack overflow, damaged heap
# Isolated: no module comes from the working directory, which may be a stranger's as well.
CODE = """
import sys
path, seconds, *sys.path = sys.argv[1:]
from wscl_embed.store.trial import main
main(path, int(seconds))
"""

State = tuple[int, ...]
_good: set[State] = set()


def remember(path: Path) -> None:
    """Need no trial of ``path`` as it is: this process wrote it."""
    _good.add(_state(path.stat()))


def try_reading(path: Path) -> None:
    """See that the HDF5 library reads the file ``path``, in a process that may be lost.

    Raises:
        InputError: it does not come to an end, takes too much memory, or crashes; or what the reader says of the file.
        WsclEmbedError: the trial could not be made.
    """
    try:
        found = path.stat()
    except OSError:  # the reader says so
        return
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"{path}: is not a file.")
    if _state(found) in _good:
        return
    try:
        done = _run(path)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{path}: refused, the HDF5 library does not come to an end within {SECONDS} s.") from error
    _judge(path, done)
    _good.add(_state(found))


def _run(path: Path) -> subprocess.CompletedProcess[bytes]:
    """`main` in a new process; not in a fork of this one, whose threads may hold locks."""
    search_path = [*sys.path, str(Path(wscl_embed.__file__).parents[1])]
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", CODE, str(path), str(PROCESSOR_SECONDS), *search_path],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        check=False,
        start_new_session=True,  # Ctrl-C is for this process alone
    )


def _judge(path: Path, done: subprocess.CompletedProcess[bytes]) -> None:
    """Raise what came of a trial, if it was not good."""
    if done.returncode == REFUSED:
        raise InputError(os.fsdecode(done.stdout))
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        raise InputError(f"{path}: refused, the HDF5 library goes round in circles in it ({PROCESSOR_SECONDS} s).")
    if done.returncode < 0 or done.returncode in WINDOWS_CRASHES:
        raise InputError(f"{path}: refused, the HDF5 library crashes over it (code {done.returncode}).")
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"code {done.returncode}"]
        raise WsclEmbedError(f"{path}: the process that was to try reading it did not work ({said[-1][:500]}).")


def _state(found: os.stat_result) -> State:
    """Tells one state of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def main(path: str, seconds: int) -> None:
    """What the process does: read all that the reader may be asked for, or say why not."""
    from wscl_embed.store.reader import EmbeddingStore

    _limit_memory()
    _limit_time(seconds)
    try:
        remember(Path(path))
        with EmbeddingStore(path) as store:
            _read_all(store, seconds)
    except MemoryError:
        said = f"{path}: refused, reading it takes over {BYTES >> 20:,} MiB of memory."
    except InputError as error:
        said = str(error)
    else:
        os._exit(0)
    sys.stdout.buffer.write(os.fsencode(said))
    sys.stdout.flush()
    os._exit(REFUSED)  # the library may crash when it tidies up


def _read_all(store: EmbeddingStore, seconds: int) -> None:
    _ = store.attributes
    for name in READ:
        with store._undamaged():
            dataset: Any = store._file.get(name)
            if getattr(dataset, "shape", None):  # neither lacking, nor a group, nor a single value
                for rows in _blocks(dataset):
                    _limit_time(seconds)
                    _ = dataset[rows]


def _blocks(dataset: h5py.Dataset) -> list[slice]:
    """The rows to read: all strings of no fixed length, which the library follows through the file one by one; of rows
    one behind the other the first block, for one is as good as another; of chunks, whose index was walked already, as
    many blocks as `TRIED` bytes are, the first and the last among them, the others drawn by nobody's seed."""
    strings = dataset.dtype.kind == "O"
    row_bytes = max(1, dataset.dtype.itemsize * math.prod(dataset.shape[1:]))
    rows = BLOCK_ROWS if strings else max(1, min(BLOCK_ROWS, BLOCK_BYTES // row_bytes))
    blocks = [slice(start, start + rows) for start in range(0, dataset.shape[0], rows)]
    if strings:
        return blocks
    if dataset.chunks is None:
        return blocks[:1]
    most = max(2, TRIED // (rows * row_bytes))
    if len(blocks) <= most:
        return blocks
    return [blocks[0], *random.SystemRandom().sample(blocks[1:-1], most - 2), blocks[-1]]


def _limit_time(seconds: int) -> None:
    """Of the processor, from now on."""
    with contextlib.suppress(ImportError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(time.process_time()) + seconds, hard))


def _limit_memory() -> None:
    """Mapped files apart."""
    with contextlib.suppress(ImportError):
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = BYTES if hard == resource.RLIM_INFINITY else min(BYTES, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
