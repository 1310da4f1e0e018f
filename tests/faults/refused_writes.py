"""Run by test_refused_writes.py: every write of every kind of file fails, or is the end of the process, one by one.

    LD_PRELOAD=shim.so python -m tests.faults.refused_writes FOLDER [EVERY]

``shim.c`` stands between the libraries and the C library, so that h5py's, pyarrow's, safetensors' and torch's own
writes are met as well. Each job has written a file once, and writes it anew in a child. Whatever happens to that, the
file must be the old one or the new one, whole; a refusal must be one `StorageError` of one line, with nothing left
behind; after a kill, the next write must succeed and clear what was left. Prints, as JSON, how many points there were.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py  # noqa: F401 - not once more in every child
import numpy as np
import pandas  # noqa: F401
import pyarrow.parquet  # noqa: F401
import torch
from safetensors.torch import load_file, save_file

from wscl_embed.checkpoint import Checkpoints
from wscl_embed.clusters import Clusters
from wscl_embed.errors import StorageError
from wscl_embed.files import atomic_folder, atomic_path, clear_leftovers, write_text
from wscl_embed.quarantine import Quarantine
from wscl_embed.store import EmbeddingStore, TextRows, reader

IDS = [f"ü{row}" for row in range(60)]
KINDS = {
    "ENOSPC": (1, errno.ENOSPC),
    "EIO": (0, errno.EIO),
    "SIGKILL": (2, 0),
    "SIGKILL after half": (3, 0),
}
REFUSED, WRITTEN = StorageError.exit_code, 0


@dataclass(frozen=True)
class Job:
    """``write`` version 1, 2, ... into a folder; ``read`` which version is there."""

    write: Callable[[Path, int], None]
    read: Callable[[Path], int]


def write_checkpoint(folder: Path, version: int) -> None:
    layer = torch.nn.Linear(8, 8)
    torch.nn.init.constant_(layer.weight, version)
    Checkpoints(folder / "checkpoints").save(version, 0, {"module": layer})


def read_checkpoint(folder: Path) -> int:
    layer = torch.nn.Linear(8, 8)
    Checkpoints(folder / "checkpoints").restore({"module": layer})
    return int(layer.weight.detach()[0, 0])


def clusters(version: int) -> Clusters:
    return Clusters.from_labels(IDS, np.arange(len(IDS)) % (version + 1), name="tags")


def write_embeddings(folder: Path, version: int) -> None:
    vectors = np.zeros((len(IDS), 4), np.float32)
    vectors[:, version % 4] = 1
    texts = TextRows(vectors, np.ones((len(IDS), 16), np.uint8))
    with EmbeddingStore.create(folder / "e.h5", 4, texts=True) as writer:
        writer.append(IDS, vectors, None, texts)
        writer.set_clusters(clusters(version))


def read_embeddings(folder: Path) -> int:
    with EmbeddingStore(folder / "e.h5") as store:
        assert store.ids == IDS
        assert np.array_equal(store.embeddings[:], store.text_embeddings)  # type: ignore[arg-type]
        (version,) = set(np.argmax(store.embeddings[:], axis=1).tolist())
        return int(version)


def write_weights(folder: Path, version: int) -> None:
    with atomic_path(folder / "w.safetensors") as temporary:
        save_file({"weight": torch.full((50, 50), float(version))}, temporary)


def read_weights(folder: Path) -> int:
    return int(load_file(folder / "w.safetensors")["weight"].unique())


def write_quarantine(folder: Path, version: int) -> None:
    quarantine = Quarantine()
    for row in IDS:
        quarantine.add(row, "path", f"{version}")
    quarantine.write(folder / "quarantine.csv")


def read_quarantine(folder: Path) -> int:
    rows = list(Quarantine.read(folder / "quarantine.csv"))
    assert [row.id for row in rows] == IDS
    return int(rows[0].reason)


def write_folder(folder: Path, version: int) -> None:
    with atomic_folder(folder / "layout") as temporary:
        for name in ("a.npy", "b.npy"):
            with (temporary / name).open("wb") as handle:
                np.save(handle, np.full(30, version))


def read_folder(folder: Path) -> int:
    if not (folder / "layout").exists():  # killed between two renames
        clear_leftovers(folder)
    (version,) = {int(np.load(folder / "layout" / name)[-1]) for name in ("a.npy", "b.npy")}
    return version


JOBS = {
    "checkpoint": Job(write_checkpoint, read_checkpoint),
    "clusters.parquet": Job(
        lambda folder, version: clusters(version).save(folder / "c.parquet"),
        lambda folder: Clusters.load(folder / "c.parquet").n_clusters - 1,
    ),
    "embeddings.h5": Job(write_embeddings, read_embeddings),
    "model.safetensors": Job(write_weights, read_weights),
    "metrics.json": Job(
        lambda folder, version: write_text(folder / "m.json", str(version)),
        lambda folder: int((folder / "m.json").read_text()),
    ),
    "quarantine.csv": Job(write_quarantine, read_quarantine),
    "a folder": Job(write_folder, read_folder),
}


def in_child(work: Callable[[], Any]) -> tuple[int, str]:
    """The exit code of a child that does ``work`` (minus the signal that killed it), and what it returned or said."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            code, said = WRITTEN, str(work())
        except StorageError as error:
            code, said = REFUSED, str(error)
        except BaseException:
            code, said = 1, traceback.format_exc()
        os.write(writing, said.encode())
        os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), said


def armed(job: Job, folder: Path, number: int, kind: tuple[int, int]) -> Callable[[], int]:
    """Writes version 2 with a fault at write ``number``; how many writes there were."""
    shim = ctypes.CDLL(None)
    shim.count.restype = ctypes.c_long

    def work() -> int:
        shim.arm(ctypes.c_long(number), *kind, str(folder).encode())
        try:
            job.write(folder, 2)
        finally:
            shim.arm(ctypes.c_long(-1), 0, 0, b"") if number >= 0 else None
        return int(shim.count())

    return work


def recovered(job: Job, folder: Path) -> int:
    """The version that is there; then the next two are written, which clears what was left of the one before."""
    version = job.read(folder)
    for following in (2, 3):
        job.write(folder, following)
        assert job.read(folder) == following
    return version


def check(name: str, job: Job, folder: Path, number: int, kind: str) -> None:
    """One fault, and all that must hold after it."""
    where = f"{name}, {kind} at write {number}"
    before = folder / "before"
    place = folder / "place"
    shutil.copytree(before, place)
    code, said = in_child(armed(job, place, number, KINDS[kind]))
    killed = kind.startswith("SIGKILL")
    assert code in ((-signal.SIGKILL,) if killed else (REFUSED, WRITTEN)), f"{where}: exit code {code}, {said}"
    left = [path.name for path in place.rglob(".*")]
    if kind == "ENOSPC":  # a folder that was moved aside, which the disk refused to move back; the next write does
        left = [name for name in left if not name.startswith(".layout.aside.")]
    assert killed or not left, f"{where}: {left}"
    reading, version = in_child(partial(recovered, job, place))
    assert reading == 0, f"{where}, then: {version}"
    assert version in ("1", "2"), f"{where}: {version}"
    if code == REFUSED:
        assert "\n" not in said, f"{where}: {said}"
        assert "cannot be written (" in said, f"{where}: {said}"
    elif code == WRITTEN:  # a folder that is there need not be made
        assert version == "2", f"{where}: {version}"
    left = [path.name for path in place.rglob(".*")]
    assert not left, f"{where}, then: {left}"
    shutil.rmtree(place)


def main(folder: Path, every: int = 1) -> None:
    """Every job, every write, every fault; or every so many of these."""
    reader.try_reading = lambda path: None  # in one more process for each file; the children wrote them
    points = {}
    turn = itertools.count()
    for name, job in JOBS.items():
        own = folder / name
        (own / "before").mkdir(parents=True)
        for version in (0, 1):
            code, said = in_child(partial(job.write, own / "before", version))
            assert code == WRITTEN, said
        shutil.copytree(own / "before", own / "counted")
        code, counted = in_child(armed(job, own / "counted", -1, (0, 0)))
        assert code == WRITTEN, counted
        points[name] = int(counted)
        for number in range(points[name]):
            for kind in KINDS:
                if next(turn) % every == 0:
                    check(name, job, own, number, kind)
    print(json.dumps(points))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
