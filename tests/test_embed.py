"""`embed` that was killed, that is to update its file, and that met too many bad images: real emoji, a real encoder."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from tests.conftest import IMAGE_SIZE
from wscl_embed import EmbeddingStore, embed, fit
from wscl_embed.dataset import load_dataset
from wscl_embed.encoder import Encoder
from wscl_embed.errors import InputError
from wscl_embed.quarantine import Quarantine

if TYPE_CHECKING:
    import datasets

MODEL = "efficientnet-lite0"
QUICK: dict[str, Any] = {"image_size": IMAGE_SIZE, "workers": 0, "device": "cpu", "batch_size": 8}


@pytest.fixture(scope="module")
def photos(emoji_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 40 emoji."""
    folder = tmp_path_factory.mktemp("photos")
    shutil.copytree(emoji_folder, folder, dirs_exist_ok=True)
    lines = (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "metadata.jsonl").write_text("".join(lines[::6]), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def whole(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its embeddings, written without a break."""
    return embed(photos, MODEL, tmp_path_factory.mktemp("whole") / "e.h5", **QUICK)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images went through the encoder, a number a batch."""
    counts: list[int] = []
    encode = Encoder.encode

    def counted(self: Encoder, images: torch.Tensor) -> torch.Tensor:
        counts.append(len(images))
        return encode(self, images)

    monkeypatch.setattr(Encoder, "encode", counted)
    return counts


def read(path: Path) -> dict[str, tuple[bytes, bytes]]:
    """Vector and content hash of each id, in the order of rows."""
    with EmbeddingStore(path) as store:
        assert store.content_hashes is not None
        rows = zip(store.ids, np.asarray(store.embeddings), store.content_hashes, strict=True)
        return {image_id: (row.tobytes(), digest.tobytes()) for image_id, row, digest in rows}


def test_content_hashes_are_those_of_the_files(whole: Path, photos: Path) -> None:
    found = read(whole)
    for record in load_dataset(photos):
        content = Path(record["image"]["path"]).read_bytes()
        assert found[record["id"]][1] == hashlib.blake2b(content, digest_size=16).digest()


def test_a_killed_command_resumes_where_it_stopped(
    photos: Path, whole: Path, tmp_path: Path, encoded: list[int]
) -> None:
    killed = (
        "import os, signal, sys; from wscl_embed.store.rows import RowFiles; from wscl_embed.cli import main\n"
        "append, batches = RowFiles.append, []\n"
        "def deadly(self, *arguments):\n"
        "    append(self, *arguments); batches.append(1)\n"
        "    if len(batches) == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "RowFiles.append = deadly; main()"
    )
    options = ["--image-size", str(IMAGE_SIZE), "--workers", "0", "--device", "cpu", "--batch-size", "8"]
    paths = ["--data", str(photos), "--model", MODEL, "--output", str(tmp_path / "e.h5")]
    command = [sys.executable, "-c", killed, "embed", *paths, *options]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".e.h5.partial"]

    with pytest.raises(InputError, match="an interrupted job left its rows"):
        embed(photos, MODEL, tmp_path / "e.h5", **QUICK)
    with pytest.raises(InputError, match="dtype: 'float32' -> 'float16'"):
        embed(photos, MODEL, tmp_path / "e.h5", resume=True, dtype="float16", **QUICK)
    with pytest.raises(InputError, match=r"weights_hash: .*preprocess: "):
        embed(photos, MODEL, tmp_path / "e.h5", resume=True, **{**QUICK, "image_size": 64})
    assert not encoded
    embed(photos, MODEL, tmp_path / "e.h5", resume=True, **QUICK)
    assert sum(encoded) == len(load_dataset(photos)) - 3 * 8
    assert read(tmp_path / "e.h5") == read(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.h5", "e.h5.quarantine.csv"]

    encoded.clear()
    embed(photos, MODEL, tmp_path / "e.h5", resume=True, **QUICK)  # once more: it is complete
    assert not encoded
    with pytest.raises(InputError, match="dtype: 'float32' -> 'float16'"):
        embed(photos, MODEL, tmp_path / "e.h5", resume=True, dtype="float16", **QUICK)


def test_update_embeds_what_is_new_or_changed(
    photos: Path, whole: Path, tmp_path: Path, encoded: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copy2(whole, tmp_path / "e.h5")
    data = load_dataset(tmp_path / "photos")
    changed, broken = Path(data[3]["image"]["path"]), Path(data[5]["image"]["path"])
    broken.write_bytes(b"<!DOCTYPE html><p>404")
    shutil.copy(data[4]["image"]["path"], changed)
    lines = (tmp_path / "photos" / "metadata.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    gone = data[0]["id"]
    new = lines[9].replace(f'"id": "{data[9]["id"]}"', '"id": "new"')
    (tmp_path / "photos" / "metadata.jsonl").write_text("".join([new, *lines[1:]]), encoding="utf-8")

    embed(tmp_path / "photos", MODEL, tmp_path / "e.h5", update=True, **QUICK)
    assert sum(encoded) == 2
    assert "1 images are new and 2 changed; 37 are as they were, and 1 that the dataset does not have stay" in " ".join(
        capsys.readouterr().err.split()
    )
    before, after = read(whole), read(tmp_path / "e.h5")
    moved, spoilt = data[3]["id"], data[5]["id"]
    assert list(after) == [*(one for one in before if one not in (moved, spoilt)), "new", moved, spoilt]
    assert gone in after
    assert {one: row for one, row in after.items() if one in before and one != moved} == {
        one: row for one, row in before.items() if one != moved
    }
    np.testing.assert_allclose(vector(after["new"]), vector(before[data[9]["id"]]), atol=1e-5)
    np.testing.assert_allclose(vector(after[moved]), vector(before[data[4]["id"]]), atol=1e-5)
    assert [row.id for row in Quarantine.read(tmp_path / "e.h5.quarantine.csv")] == [spoilt]


def test_an_update_loses_nothing_of_images_that_cannot_be_read_any_more(
    photos: Path, whole: Path, tmp_path: Path
) -> None:
    """Be it that a disk is not there: more of them than are allowed stop the job, and --resume still names them."""
    shutil.copytree(photos, tmp_path / "photos")
    shutil.copy2(whole, tmp_path / "e.h5")
    data = load_dataset(tmp_path / "photos")
    for row in (2, 30, 31):
        Path(data[row]["image"]["path"]).unlink()
    with pytest.raises(InputError, match="3 of 40 images cannot be used"):
        embed(tmp_path / "photos", MODEL, tmp_path / "e.h5", update=True, **QUICK)
    assert read(tmp_path / "e.h5") == read(whole)
    options = {**QUICK, "update": True, "resume": True, "max_bad_share": 0.1}
    embed(tmp_path / "photos", MODEL, tmp_path / "e.h5", **options)
    assert read(tmp_path / "e.h5") == read(whole)
    names = [row.id for row in Quarantine.read(tmp_path / "e.h5.quarantine.csv")]
    assert names == [data[row]["id"] for row in (2, 30, 31)]


def vector(row: tuple[bytes, bytes]) -> np.ndarray:
    return np.frombuffer(row[0], np.float32)


def test_update_of_what_did_not_change_leaves_the_file_alone(photos: Path, whole: Path, encoded: list[int]) -> None:
    before = whole.stat()
    embed(photos, MODEL, whole, update=True, **QUICK)
    assert not encoded
    assert (whole.stat().st_mtime_ns, whole.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_size": 64}, "its rows were made with another encoder or image size. Update"),
        ({"dtype": "float16"}, r"made with another dtype \('float32' -> 'float16'\)"),
        ({"overwrite": True}, "not both"),
        ({"output": "no-such.h5"}, "no such file to --update"),
        ({"output": "unhashed.h5"}, "has no content hashes"),
    ],
)
def test_updates_that_make_no_sense(
    options: dict[str, Any], said: str, photos: Path, whole: Path, tmp_path: Path
) -> None:
    with (
        EmbeddingStore(whole) as store,
        EmbeddingStore.create(
            tmp_path / "unhashed.h5", store.embeddings.shape[1], attributes=store.attributes
        ) as writer,
    ):
        writer.append(store.ids, store.embeddings)
    output = tmp_path / options.pop("output") if "output" in options else whole
    with pytest.raises(InputError, match=said):
        embed(photos, MODEL, output, update=True, **{**QUICK, **options})


def test_float16_is_half_the_size_and_near(emoji: datasets.Dataset, tmp_path: Path) -> None:
    few = emoji.select(range(12)).flatten_indices()
    for dtype in ("float32", "float16"):
        embed(few, MODEL, tmp_path / f"{dtype}.h5", dtype=dtype, **QUICK)
    with EmbeddingStore(tmp_path / "float32.h5") as one, EmbeddingStore(tmp_path / "float16.h5") as other:
        assert other.embeddings.dtype == np.float16
        assert other.embeddings.nbytes * 2 == one.embeddings.nbytes
        cosines = (one.embeddings * other.embeddings.astype(np.float32)).sum(axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-3)


def test_a_file_that_fit_wrote_is_updated_and_keeps_its_clusters(
    photos: Path, tmp_path: Path, encoded: list[int]
) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    quick = {"image_size": IMAGE_SIZE, "workers": 0, "device": "cpu", "epochs": 1, "cached_views": 1}
    run = fit(tmp_path / "photos", "labels:column=label", tmp_path / "run", **quick).run
    with EmbeddingStore(run.embeddings) as store:
        before, labels, adapters = read(run.embeddings), store.labels, store.attributes["adapters"]
        assert labels is not None
        clustered = dict(zip(store.ids, labels.tolist(), strict=True))
    data = load_dataset(tmp_path / "photos")
    shutil.copy(data[4]["image"]["path"], data[3]["image"]["path"])

    encoded.clear()
    embed(tmp_path / "photos", str(run.folder), run.embeddings, update=True, workers=0, device="cpu")
    assert sum(encoded) == 1
    after = read(run.embeddings)
    assert {one: row for one, row in after.items() if one != data[3]["id"]} == {
        one: row for one, row in before.items() if one != data[3]["id"]
    }
    np.testing.assert_allclose(vector(after[data[3]["id"]]), vector(before[data[4]["id"]]), atol=1e-5)
    with EmbeddingStore(run.embeddings) as store:
        assert store.labels is not None
        assert store.clusters is not None
        assert dict(zip(store.ids, store.labels.tolist(), strict=True)) == {**clustered, data[3]["id"]: -1}
        assert store.clusters.labels.tolist() == store.labels.tolist()
        assert store.attributes["adapters"] == adapters
