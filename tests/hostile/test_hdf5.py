"""HDF5 files from strangers: each trick is in a file that is otherwise a good one, and is refused before a read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.hostile.doors import store, stored_clusters
from tests.hostile.sandbox import read, refusal
from wscl_embed.errors import InputError
from wscl_embed.store import EmbeddingStore, TextRows

N, DIM = 32, 8
Trick = Callable[[h5py.File, Path], None]


def good(path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((N, DIM))
    with EmbeddingStore.create(path, dim=DIM, attributes={"encoder": "toy"}, texts=True) as writer:
        writer.append([f"bild-{row}" for row in range(N)], rows, None, TextRows(rows[::-1], np.ones((N, 16), np.uint8)))


def secret(folder: Path) -> Path:
    """A file of somebody else's, to be read by a trick."""
    path = folder / "secret.h5"
    if not path.exists():
        with h5py.File(path, "w") as file:
            file["embeddings"] = np.ones((N, DIM), np.float32)
            file["ids"] = np.full(N, b"id")
        (folder / "secret.bin").write_bytes(bytes(N * DIM * 4))
    return path


def external_link(file: h5py.File, folder: Path) -> None:
    del file["embeddings"]
    file["embeddings"] = h5py.ExternalLink(str(secret(folder)), "/embeddings")


def external_storage(file: h5py.File, folder: Path) -> None:
    secret(folder)
    del file["embeddings"]
    outside = [(str(folder / "secret.bin"), 0, N * DIM * 4)]
    file.create_dataset("embeddings", (N, DIM), np.float32, external=outside)


def virtual_dataset(file: h5py.File, folder: Path) -> None:
    del file["embeddings"]
    layout = h5py.VirtualLayout((N, DIM), np.float32)
    layout[:] = h5py.VirtualSource(str(secret(folder)), "embeddings", (N, DIM))
    file.create_virtual_dataset("embeddings", layout)


def soft_link(file: h5py.File, folder: Path) -> None:
    file.move("embeddings", "rows")
    file["embeddings"] = h5py.SoftLink("/rows")


def link_elsewhere(file: h5py.File, folder: Path) -> None:
    file["extra/more"] = h5py.ExternalLink(str(secret(folder)), "/")


def bomb_never_allocated(file: h5py.File, folder: Path) -> None:
    del file["embeddings"]
    file.create_dataset("embeddings", (10**12, DIM), np.float32)


def bomb_in_chunks(file: h5py.File, folder: Path) -> None:
    del file["embeddings"]
    dataset = file.create_dataset("embeddings", (10**9, DIM), np.float32, chunks=(N, DIM))
    dataset[:N] = 1


def bomb_compressed(file: h5py.File, folder: Path) -> None:
    file.create_dataset("zeros", (1 << 25,), np.uint8, compression="gzip", chunks=(1 << 20,))[:] = 0


def bomb_of_strings(file: h5py.File, folder: Path) -> None:
    """4096 references to one string of a megabyte: 4 GB to whoever reads them."""
    del file["ids"]
    ids = file.create_dataset("ids", (N,), h5py.string_dtype())
    ids[:] = "x"
    ids[0] = "x" * 2**20
    offset = ids.id.get_offset()
    file.close()
    with (folder / "e.h5").open("r+b") as raw:
        raw.seek(offset)
        reference = raw.read(16)
        raw.seek(offset)
        raw.write(reference * N)


def deep_groups(file: h5py.File, folder: Path) -> None:
    file.create_group("/".join(["deeper"] * 500))


def many_objects(file: h5py.File, folder: Path) -> None:
    for number in range(1100):
        file.create_group(f"extra/{number}")


def cycle(file: h5py.File, folder: Path) -> None:
    file["extra"] = file["/"]


def two_names(file: h5py.File, folder: Path) -> None:
    file["again"] = file["embeddings"]


def object_references(file: h5py.File, folder: Path) -> None:
    file.create_dataset("references", data=np.array([file["ids"].ref], dtype=object), dtype=h5py.ref_dtype)


def ragged_rows(file: h5py.File, folder: Path) -> None:
    file.create_dataset("ragged", (2,), h5py.vlen_dtype(np.int32))


def unknown_filter(file: h5py.File, folder: Path) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4,))
    plan.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)  # zstd, of a plugin
    h5py.h5d.create(file.id, b"packed", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((4,)), plan)


def packed_twice(file: h5py.File, folder: Path) -> None:
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_chunk((4,))
    plan.set_deflate(9)
    plan.set_deflate(9)
    h5py.h5d.create(file.id, b"packed", h5py.h5t.NATIVE_INT32, h5py.h5s.create_simple((4,)), plan)


def packed_in_large_chunks(file: h5py.File, folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, 1 << 21, np.uint8)
    file.create_dataset("packed", data=noise, compression="gzip", chunks=(1 << 21,))


def chunk_beyond_the_end(file: h5py.File, folder: Path) -> None:
    """A chunk whose place in the file is overwritten in the index."""
    del file["embeddings"]
    rows = file.create_dataset("embeddings", data=np.ones((N, DIM), np.float32), chunks=(N // 2, DIM))
    offset = rows.id.get_chunk_info(1).byte_offset
    file.close()
    content = (folder / "e.h5").read_bytes()
    (folder / "e.h5").write_bytes(content.replace(offset.to_bytes(8, "little"), (1 << 40).to_bytes(8, "little")))


def odd_attribute(file: h5py.File, folder: Path) -> None:
    file.attrs.create("names", ["a", "b"], dtype=h5py.string_dtype())


def fewer_ids(file: h5py.File, folder: Path) -> None:
    del file["ids"]
    file["ids"] = np.full(N - 1, b"id")


def other_hashes(file: h5py.File, folder: Path) -> None:
    file["content_hash"] = np.zeros((N, 4), np.uint8)


def texts_elsewhere(file: h5py.File, folder: Path) -> None:
    secret(folder)
    del file["text/embeddings"]
    outside = [(str(folder / "secret.bin"), 0, N * DIM * 4)]
    file.create_dataset("text/embeddings", (N, DIM), np.float32, external=outside)


def bomb_of_texts(file: h5py.File, folder: Path) -> None:
    del file["text/embeddings"]
    file.create_dataset("text/embeddings", (10**12, DIM), np.float32)


def other_texts(file: h5py.File, folder: Path) -> None:
    del file["text/embeddings"]
    file["text/embeddings"] = np.ones((N, DIM + 1), np.float32)


def texts_without_hashes(file: h5py.File, folder: Path) -> None:
    del file["text/content_hash"]


def hashes_without_texts(file: h5py.File, folder: Path) -> None:
    del file["text/embeddings"]


def replaced(name: str, value: Any) -> Trick:
    def replace(file: h5py.File, folder: Path) -> None:
        if name in file:
            del file[name]
        file[name] = value

    return replace


def grouped(name: str) -> Trick:
    def make(file: h5py.File, folder: Path) -> None:
        if name in file:
            del file[name]
        file.create_group(name)

    return make


def attribute(name: str, value: Any) -> Trick:
    return lambda file, folder: file.attrs.__setitem__(name, value)


WRONG_KINDS: dict[str, tuple[Trick, str]] = {
    "ids are numbers": (replaced("ids", np.arange(N)), "/ids holds another kind of values"),
    "ids are no text": (replaced("ids", np.full(N, b"\xff\xfe")), "damaged, or not an HDF5 file of ours"),
    "labels are fractions": (replaced("clusters/labels", np.ones(N)), "/clusters/labels holds another kind"),
    "labels are a group": (grouped("clusters/labels"), "/clusters/labels holds another kind"),
    "labels of others": (replaced("clusters/labels", np.arange(3)), "/clusters/labels has the shape (3,)"),
    "hashes are a group": (grouped("content_hash"), "/content_hash holds another kind"),
    "hashes are fractions": (replaced("content_hash", np.ones((N, 16))), "/content_hash holds another kind"),
    "embeddings are one number": (replaced("embeddings", np.float32(1)), "is not an (N, D) dataset"),
    "texts are a group": (grouped("text/embeddings"), "/text/embeddings holds another kind"),
    "texts are words": (replaced("text/embeddings", np.full(N, b"a cat")), "/text/embeddings holds another kind"),
    "texts are doubles": (replaced("text/embeddings", np.ones((N, DIM))), "holds another type of numbers than float32"),
    "text hashes are fractions": (replaced("text/content_hash", np.ones((N, 16))), "/text/content_hash holds another"),
    "the format is numbers": (attribute("format", np.arange(2)), "not a complete embedding"),
    "complete is a text": (attribute("complete", "yes"), "not a complete embedding file"),
}
TRICKS: dict[Trick, str] = {
    packed_twice: "/packed is compressed twice",
    packed_in_large_chunks: "/packed is compressed in chunks of over 1,024 KiB",
    chunk_beyond_the_end: "/embeddings has a chunk that lies beyond the end of the file",
    external_link: "/embeddings is a link",
    external_storage: "keeps its rows in another file",
    virtual_dataset: "is a virtual dataset",
    soft_link: "/embeddings is a link",
    link_elsewhere: "/extra/more is a link",
    bomb_never_allocated: "claims 32,000,000,000,000 bytes of which 0 are stored",
    bomb_in_chunks: "claims 32,000,000,000 bytes of which 1,024 are stored",
    bomb_compressed: "/zeros claims 33,554,432 bytes",
    bomb_of_strings: "claims strings of 33,554,432 bytes",
    deep_groups: "too deep",
    many_objects: "more than 1000 objects",
    cycle: "/extra is one object under two names",
    two_names: "is one object under two names",
    object_references: "/references holds neither numbers nor strings",
    ragged_rows: "/ragged holds neither numbers nor strings",
    unknown_filter: "by a filter this package does not run (number 32015)",
    odd_attribute: "neither numbers nor a string: 'names'",
    fewer_ids: "do not belong to one another",
    other_hashes: "do not belong to one another",
    texts_elsewhere: "keeps its rows in another file",
    bomb_of_texts: "claims 32,000,000,000,000 bytes of which 0 are stored",
    other_texts: "/text/embeddings has the shape (32, 9), not (32, 8)",
    texts_without_hashes: "/text/content_hash has the shape None, not (32, 16)",
    hashes_without_texts: "/text/embeddings has the shape None, not (32, 8)",
}


CRAFTED = {**{trick.__name__: (trick, said) for trick, said in TRICKS.items()}, **WRONG_KINDS}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_file_is_refused(name: str, tmp_path: Path) -> None:
    trick, said = CRAFTED[name]
    good(tmp_path / "e.h5")
    assert store(tmp_path / "e.h5")[0] == N
    with h5py.File(tmp_path / "e.h5", "r+") as file:
        trick(file, tmp_path)
    with pytest.raises(InputError) as refused:
        store(tmp_path / "e.h5")
    assert said in str(refused.value)


CSR = {"indptr": [0, 1, 2], "indices": [0, 1], "weights": [1.0, 1.0], "names": [b"a", b"b"]}
BAD_CSR: dict[str, dict[str, Any]] = {
    "indptr far beyond the end": {"indptr": [0, 2 * 10**9, 2]},
    "indptr below zero": {"indptr": [0, -(2 * 10**9), 2]},
    "indptr of other rows": {"indptr": [0, 2]},
    "a column that is not there": {"indices": [0, 900]},
    "a column below zero": {"indices": [0, -5]},
    "no names": {"names": None},
    "names that are no text": {"names": [b"a", b"\xff"]},
    "weights that are words": {"weights": [b"a", b"b"]},
    "a weight too few": {"weights": [1.0]},
}


@pytest.mark.parametrize("name", ["good", *BAD_CSR])
def test_memberships_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    """SciPy follows the numbers of a CSR matrix without looking where they lead."""
    with EmbeddingStore.create(tmp_path / "e.h5", dim=2) as writer:
        writer.append(["a", "b"], np.eye(2))
    with h5py.File(tmp_path / "e.h5", "r+") as file:
        for part, values in {**CSR, **BAD_CSR.get(name, {})}.items():
            if values is not None:
                file[f"clusters/{part}"] = np.array(values)
    if name == "good":
        assert read(stored_clusters, tmp_path / "e.h5") == [0, 1]
    else:
        assert "damaged, or not an HDF5 file of ours" in refusal(stored_clusters, tmp_path / "e.h5")


def test_what_a_virtual_dataset_names_is_not_even_opened(tmp_path: Path) -> None:
    """HDF5 opens the sources of an unlimited one when asked for its shape; this source blocks whoever opens it."""
    import os
    import signal

    good(tmp_path / "e.h5")
    os.mkfifo(tmp_path / "pipe.h5")
    with h5py.File(tmp_path / "e.h5", "r+") as file:
        del file["embeddings"]
        layout = h5py.VirtualLayout((N, DIM), np.float32, maxshape=(None, DIM))
        source = h5py.VirtualSource(str(tmp_path / "pipe.h5"), "embeddings", (N, DIM), maxshape=(None, DIM))
        layout[: h5py.h5s.UNLIMITED, :] = source[: h5py.h5s.UNLIMITED, :]
        file.create_virtual_dataset("embeddings", layout)
    signal.alarm(20)
    try:
        with pytest.raises(InputError, match="virtual dataset"):
            EmbeddingStore(tmp_path / "e.h5")
    finally:
        signal.alarm(0)


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    good(tmp_path / "e.h5")
    whole = (tmp_path / "e.h5").read_bytes()
    for size in (0, 100, 2000, 4500, len(whole) - 1):
        (tmp_path / "cut.h5").write_bytes(whole[:size])
        with pytest.raises(InputError, match="not an HDF5 file that can be read"):
            EmbeddingStore(tmp_path / "cut.h5")


def test_a_stranger_s_own_additions_do_no_harm(tmp_path: Path) -> None:
    good(tmp_path / "e.h5")
    with h5py.File(tmp_path / "e.h5", "r+") as file:
        file["captions"] = ["eins", "zwei"]
        del file["text"]
        file["text"] = ["eins", "zwei"]  # at a name of ours, and no group
        file.create_dataset("extra/packed", data=np.arange(1000), compression="gzip")
        file.attrs["note"] = "hello"
    with EmbeddingStore(tmp_path / "e.h5") as store:
        assert store.attributes["note"] == "hello"
        assert store.text_embeddings is None
        assert len(store.ids) == N
