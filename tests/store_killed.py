"""Run by test_store_kill.py: a job of `write_embeddings` is killed (SIGKILL) before each of its writes in turn.

    python -m tests.store_killed FOLDER fresh|update

``update`` is of a file with captions, of which one changed, as did another image's file.

The job is the real one; only the encoder is replaced, by one that looks its embeddings up. After each kill the output
must be what it was before or whole, every row that was acknowledged must be found by ``--resume``, and what that
finishes must be what an undisturbed job writes. Prints the number of kills.
"""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from wscl_embed import embedding, updating
from wscl_embed.features import EncodedBatch
from wscl_embed.images import content_hash
from wscl_embed.progress import console
from wscl_embed.store import EmbeddingStore, reader
from wscl_embed.store.partial import Partial

N, DIM, BATCH = 8, 6, 4
WRITES = {"write", "flush", "truncate", "replace", "rename", "unlink", "fsync", "rmdir", "close", "open", "dump"}
H5PY_WRITES = {"create_dataset", "create_group", "__setitem__", "create", "make_fid", "close"}
VECTORS = np.random.default_rng(0).standard_normal((2 * N, DIM)).astype(np.float32)
ATTRIBUTES = {"weights_hash": "w", "preprocess": "{}", "dataset_fingerprint": "d", "encoder": "look-up"}
OF_TEXTS = {"caption_column": "caption", "text_weights_hash": "t", "captions_fingerprint": "c"}
COUNTS = mmap.mmap(-1, 16)  # shared with the children: rows acknowledged, rows given to the encoder


class LookUp:
    """Stands for an encoder."""

    embed_dim = DIM

    def encode_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.stack([np.zeros(DIM), *map(vector, map(str.encode, texts))])[1:]


class Images:
    """Of a `datasets.Dataset`, what an embedding job asks for; making real ones would take most of the time."""

    def __init__(self, ids: list[str], contents: list[bytes], captions: list[str | None]) -> None:
        self.ids, self.contents, self.captions = ids, contents, captions

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, column: str) -> list[Any]:
        if column == "image":
            return [{"bytes": one, "path": None} for one in self.contents]
        return self.ids if column == "id" else self.captions

    def select(self, rows: Sequence[int]) -> Images:
        return Images(*([values[row] for row in rows] for values in (self.ids, self.contents, self.captions)))  # type: ignore[arg-type]


def images(count: int, changed: Sequence[int] = (), reworded: Sequence[int] = ()) -> Images:
    contents = [b"image %d%s" % (row, b"!" * (row in changed)) for row in range(count)]
    captions = [f"caption {row}{'!' * (row in reworded)}" if row % 4 else None for row in range(count)]
    return Images([f"ü{row}" for row in range(count)], contents, captions)  # type: ignore[arg-type]


def look_up(encoder: Any, dataset: Any, *, part: Sequence[int], **options: Any) -> Iterator[EncodedBatch]:
    """In place of `wscl_embed.features.iterate_encoded`."""
    acknowledged, _ = struct.unpack("qq", COUNTS[:])
    COUNTS[:] = struct.pack("qq", acknowledged, len(part))
    for start in range(0, len(part), BATCH):
        rows = list(part[start : start + BATCH])
        contents = [image["bytes"] for image in dataset.select(rows)["image"]]
        values = np.stack([vector(content) for content in contents])
        yield EncodedBatch(rows, values[:, None], [], [content_hash(content) for content in contents])
        COUNTS[:] = struct.pack("qq", struct.unpack("qq", COUNTS[:])[0] + len(rows), len(part))


def vector(content: bytes) -> np.ndarray:
    """Of ``image 3`` or ``caption 3``; that of a changed one, with an exclamation mark, is another."""
    row = int(content.split()[1].rstrip(b"!"))
    return VECTORS[row] * (-1 if content.endswith(b"!") else 1)


def job(output: Path, dataset: Images, *, resume: bool, update: bool, texts: bool = False) -> None:
    """What `wscl_embed.pipeline.embed` does between loading the encoder and writing the quarantine."""
    growing = Partial(output)
    with growing.lock():
        embedding.write_embeddings(
            LookUp(),  # type: ignore[arg-type]
            dataset,  # type: ignore[arg-type]
            growing,
            {**ATTRIBUTES, **(OF_TEXTS if texts else {})},
            dtype="float32",
            max_bad_share=0.0,
            resume=resume,
            update=update,
        )
        growing.remove()


def in_child(work: Callable[[], None], killed_before: int) -> int | None:
    """Run ``work`` in a child process; its exit code, or None when it was killed."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.setprofile(killer(killed_before))
            work()
            sys.setprofile(None)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return None if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def killer(number: int) -> Callable[[FrameType, str, Any], None]:
    """A profiler that kills the process before its ``number``-th write: to a file, a folder, or anything by h5py."""
    seen = 0

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal seen
        writes = event == "c_call" and argument.__name__ in WRITES
        code = frame.f_code
        if writes or (event == "call" and code.co_name in H5PY_WRITES and "h5py" in code.co_filename):
            seen += 1
            if seen > number:
                os.kill(os.getpid(), signal.SIGKILL)

    return profile


def content(path: Path) -> tuple[list[str], list[bytes]]:
    with EmbeddingStore(path) as store:
        parts = (store.embeddings, store.content_hashes, store.text_embeddings, store.text_hashes)
        return store.ids, [b"" if part is None else np.asarray(part[:]).tobytes() for part in parts]


def main(folder: Path, update: bool) -> None:
    """Kill at every write, and check."""
    work = partial(job, update=update, texts=update)
    embedding.iterate_encoded = look_up  # type: ignore[assignment]
    updating.available_cores = lambda: 1
    console().quiet = True
    reader.try_reading = lambda path: None  # in one more process for each file; the children wrote them
    os.fsync = lambda handle: None  # against a power cut; a killed process leaves its files to the system
    dataset = images(N + 4, changed=[2], reworded=[5]) if update else images(N)
    if update:
        job(folder / "old.h5", images(N), resume=False, update=False, texts=True)
        before = content(folder / "old.h5")
        shutil.copy2(folder / "old.h5", folder / "whole.h5")
    work(folder / "whole.h5", dataset, resume=False)
    whole = content(folder / "whole.h5")
    todo = 6 if update else N
    kills = 0
    while True:
        place = folder / "place"
        place.mkdir()
        output = place / "e.h5"
        if update:
            shutil.copy2(folder / "old.h5", output)
        COUNTS[:] = struct.pack("qq", 0, 0)
        outcome = in_child(partial(work, output, dataset, resume=False), killed_before=kills)
        assert outcome in (0, None), f"kill {kills}: exit code {outcome}"
        acknowledged = struct.unpack("qq", COUNTS[:])[0]
        assert acknowledged % BATCH == 0 or acknowledged == todo
        found = content(output) if output.exists() else None
        assert found == whole or found == (before if update else None), f"kill {kills}: a file that is neither"
        COUNTS[:] = struct.pack("qq", 0, 0)
        work(output, dataset, resume=True)
        embedded_again = struct.unpack("qq", COUNTS[:])[1]
        assert embedded_again <= todo - acknowledged, f"kill {kills}: {embedded_again} again, {acknowledged} were done"
        assert content(output) == whole, f"kill {kills}: another result"
        assert [path.name for path in place.iterdir()] == ["e.h5"], f"kill {kills}: {list(place.rglob('*'))}"
        shutil.rmtree(place)
        if outcome == 0:
            print(kills)
            return
        kills += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "update")
