"""Files over which the HDF5 library itself is lost: another process finds out, and this one refuses them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from wscl_embed.errors import InputError, WsclEmbedError
from wscl_embed.store import EmbeddingStore, trial


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good embedding file."""
    with EmbeddingStore.create(tmp_path / "e.h5", dim=2, attributes={"encoder": "toy"}) as writer:
        writer.append(["a", "b"], np.ones((2, 2)))
    return tmp_path / "e.h5"


def touched(path: Path) -> Path:
    """As if by somebody else."""
    os.utime(path)
    return path


def test_a_heap_of_strings_that_goes_round_in_circles(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An object's size is rounded up and 16 added to find the next; with this size, the next is the same."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, content.index(b"GCOL") + 16 + 8, 2**64 - 16)
    path.write_bytes(content)
    monkeypatch.setattr(trial, "PROCESSOR_SECONDS", 1)
    with pytest.raises(InputError, match=r"e\.h5: refused, the HDF5 library goes round in circles in it \(1 s\)\.$"):
        EmbeddingStore(path)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.kill(os.getpid(), 11)", r"refused, the HDF5 library crashes over it \(code -11\)"),
        ("import time; time.sleep(60)", r"does not come to an end within 0\.5 s"),
        ("raise OSError('no room for a process')", r"did not work \(OSError: no room for a process\)"),
    ],
)
def test_a_process_that_is_lost(code: str, said: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "CODE", code)
    monkeypatch.setattr(trial, "SECONDS", 0.5 if "sleep" in code else 60)
    with pytest.raises(WsclEmbedError, match=said):
        EmbeddingStore(touched(path))


def test_only_what_somebody_else_wrote_is_tried_and_that_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    run = trial._run
    monkeypatch.setattr(trial, "_run", lambda path: tried.append(path) or run(path))  # type: ignore[func-returns-value]
    for state, times in (("this process wrote it", 0), ("somebody touched it", 1)):
        if times:
            touched(path)
        for _ in range(2):
            with EmbeddingStore(path) as store:
                assert store.ids == ["a", "b"]
        assert len(tried) == times, state
    with h5py.File(path, "r+") as file:
        file.attrs["note"] = "x"
    EmbeddingStore(path).close()
    assert len(tried) == 2


def test_no_module_comes_from_the_working_directory(path: Path, tmp_path: Path) -> None:
    """Beside a stranger's file there may be a stranger's h5py.py."""
    (tmp_path / "h5py.py").write_text("raise SystemExit('ran')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('ran')")
    code = "import sys; sys.path.remove(''); from pathlib import Path; from wscl_embed.store.trial import try_reading\n"
    code += f"try_reading(Path({str(path)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, check=False, timeout=120, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_only_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    with pytest.raises(InputError, match="is not a file"):
        EmbeddingStore(tmp_path / "pipe.h5")
    with pytest.raises(InputError, match=r"embeddings\.h5: there is no such file"):  # a folder is looked at as a run
        EmbeddingStore(tmp_path)
    (tmp_path / "embeddings.h5").mkdir()
    with pytest.raises(InputError, match="is not a file"):
        EmbeddingStore(tmp_path)


def test_of_a_large_dataset_a_part_is_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "BLOCK_BYTES", 4 * 80)
    monkeypatch.setattr(trial, "TRIED", 6 * 4 * 80)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        chunked = file.create_dataset("chunked", data=np.ones((1000, 20), np.float32), chunks=(7, 20))
        blocks = trial._blocks(chunked)
        again = trial._blocks(chunked)
        small = file.create_dataset("small", data=np.ones((22, 20), np.float32), chunks=(7, 20))
        whole = [(rows.start, rows.stop) for rows in trial._blocks(small)]
        plain = trial._blocks(file.create_dataset("plain", data=np.ones((1000, 20), np.float32)))
        strings = file.create_dataset("strings", data=["a"] * 100_000)
        assert sum(len(strings[rows]) for rows in trial._blocks(strings)) == 100_000
    assert [len(blocks), blocks[0], blocks[-1]] == [6, slice(0, 4), slice(996, 1000)]
    assert len({rows.start for rows in blocks}) == 6
    assert blocks != again  # nobody can know where to hide; alike once in 10^9
    assert whole == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 24)]
    assert plain == [slice(0, 4)]


def test_a_damaged_chunk_that_was_not_tried_is_said_when_it_is_read(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["embeddings"], file["ids"]
        file["ids"] = np.array([b"%d" % row for row in range(64)])
        rows = np.random.default_rng(0).random((64, 2), np.float32)
        chunks = file.create_dataset("embeddings", data=rows, chunks=(8, 2), compression="gzip")
        middle = chunks.id.get_chunk_info(4).byte_offset
    with path.open("r+b") as file:
        file.seek(middle)
        file.write(b"\xff" * 8)
    trial.remember(path)
    with EmbeddingStore(path) as store:
        assert store.embeddings.shape == (64, 2)
        np.testing.assert_array_equal(store.embeddings[:32], rows[:32])
        for read in (lambda: store.embeddings[32:40], lambda: store.search(np.ones(2), 3)):
            with pytest.raises(InputError, match=r"e\.h5: damaged, or not an HDF5 file of ours"):
                read()
