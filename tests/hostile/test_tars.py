"""Tars that are broken or made to harm, and datasets saved by somebody else."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pytest

from tests.hostile import crafted
from tests.hostile.doors import dataset, pictures
from tests.hostile.sandbox import read, refusal

PNG = crafted.image("PNG")
GIGABYTE = 1 << 30


def headers(*parts: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(b"".join(parts) + bytes(10_240))


def hole(start: bytes) -> Callable[[Path], None]:
    """``start`` and then nothing for eight gigabytes, which take no disk."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            file.write(start)
            file.truncate(8 * GIGABYTE)

    return write


EIGHT_GB = b"\x80" + (8 * GIGABYTE).to_bytes(11, "big")
NEGATIVE = b"\xff" * 11 + b"\x00"  # -256
ONE = crafted.tar_header("a.png", b"%011o" % len(PNG)) + PNG.ljust(512, b"\0")

TARS: dict[str, tuple[Callable[[Path], object], str]] = {
    "an HTML page": (lambda path: path.write_bytes(b"<html>" * 200), "not an uncompressed tar file"),
    "a size below zero": (headers(ONE, crafted.tar_header("b.png", NEGATIVE)), "lies before the one before it"),
    "a PAX size below zero": (lambda path: crafted.tar(path, {"a.png": PNG}, size="-1024"), "lies before the one"),
    "a PAX size that is no number": (lambda path: crafted.tar(path, {"a.json": b"{}"}, size="x"), "a.json: not JSON"),
    "a long name of 8 GB": (
        hole(crafted.tar_header("././@LongLink", EIGHT_GB, b"L")),
        "claims 8589934592 bytes",
    ),
    "PAX headers of 8 GB": (
        hole(crafted.tar_header("././@PaxHeader", EIGHT_GB, b"x")),
        "claims 8589934592 bytes",
    ),
    "a text of 8 GB": (hole(crafted.tar_header("a.json", EIGHT_GB)), "a.json: longer than 16 MiB"),
    "JSON cut off": (lambda path: crafted.tar(path, {"a.png": PNG, "a.json": b'{"x": '}), "a.json: not JSON"),
    "a key twice": (lambda path: crafted.tar(path, {"a.json": b'{"x": 1, "x": 2}'}), "the key 'x' occurs twice"),
    "10,000 levels": (lambda path: crafted.tar(path, {"a.json": b"[" * 10_000}), "nested deeper than 64 levels"),
    "a name of a million characters": (
        lambda path: crafted.tar(path, {"a.png": PNG, f"{'b' * 10**6}.png": PNG}),
        "has more than 1,024 characters",
    ),
    "two images": (lambda path: crafted.tar(path, {"a.png": PNG, "a.jpg": PNG}), "a: two images, a.png and a.jpg"),
}


@pytest.mark.parametrize("name", TARS)
def test_tars_that_are_refused(name: str, tmp_path: Path) -> None:
    write, said = TARS[name]
    write(tmp_path / "a.tar")
    assert said in refusal(dataset, tmp_path / "a.tar", megabytes=150)


def test_members_that_lead_elsewhere(tmp_path: Path) -> None:
    """Nothing is extracted, so a name is a name; links, devices and pipes are no members."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(PNG)
    path = tmp_path / "a.tar"
    crafted.tar(path, {"../../escape.png": PNG, "/absolute.png": PNG, "good.png": PNG})
    kinds = [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
    with tarfile.open(path, "a") as archive:
        for number, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"link-{number}.png")
            info.type, info.linkname = kind, str(secret)
            archive.addfile(info)
    found = read(pictures, path)
    assert set(found.values()) == {(32, 24)}
    assert sorted(found) == ["../../escape", "/absolute", "good"]
    assert not (tmp_path.parent.parent / "escape.png").exists()


def saved(folder: Path) -> Path:
    image = {"bytes": PNG, "path": None}
    rows = datasets.Dataset.from_list([{"id": name, "image": image, "tags": "x"} for name in "ab"])
    rows.cast_column("image", datasets.Image(decode=False)).save_to_disk(folder)
    return folder


def crafted_offsets(folder: Path) -> None:
    """Text that begins far outside of the mapped file."""
    arrow = next(folder.glob("*.arrow"))
    content = arrow.read_bytes()
    offsets = pa.array([0, 1, 2], pa.int32()).buffers()[1].to_pybytes()
    assert offsets in content
    arrow.write_bytes(content.replace(offsets, pa.array([0, 2**30, 2**30 + 1], pa.int32()).buffers()[1].to_pybytes()))


def another_file(folder: Path) -> None:
    state = json.loads((folder / "state.json").read_text())
    state["_data_files"] = [{"filename": "../secret.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))


def cut_off(folder: Path) -> None:
    arrow = next(folder.glob("*.arrow"))
    arrow.write_bytes(arrow.read_bytes()[:-300])


SAVED: dict[str, tuple[Callable[[Path], object], str]] = {
    "offsets out of the file": (crafted_offsets, "damaged data"),
    "rows of a file elsewhere": (another_file, "cannot be read"),
    "cut off": (cut_off, "a saved dataset that cannot be read"),
    "state that is no JSON": (lambda folder: (folder / "state.json").write_text("{"), "a saved dataset that cannot"),
    "features unknown": (
        lambda folder: (folder / "dataset_info.json").write_text('{"features": {"x": {"_type": "Evil"}}}'),
        "a saved dataset that cannot be read",
    ),
}


def test_a_saved_dataset_that_is_good(tmp_path: Path) -> None:
    assert read(dataset, saved(tmp_path / "set"))["tags"] == ["x", "x"]


@pytest.mark.parametrize("name", SAVED)
def test_saved_datasets_that_are_refused(name: str, tmp_path: Path) -> None:
    spoil, said = SAVED[name]
    folder = saved(tmp_path / "set")
    spoil(folder)
    assert said in refusal(dataset, folder)
