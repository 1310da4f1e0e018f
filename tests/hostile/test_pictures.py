"""Image files that are broken, odd, or made to harm: each is embedded, or named in the quarantine with its reason."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest

import wscl_embed
from tests.hostile import crafted
from tests.hostile.doors import dataset, picture, pictures
from tests.hostile.sandbox import read, refusal
from wscl_embed.quarantine import Quarantine

JPEG, PNG = crafted.image("JPEG"), crafted.image("PNG")
TEXT_BOMB = (b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200_000_000)))
PROFILE_BOMB = (b"iCCP", b"icc\0\0" + zlib.compress(bytes(200_000_000)))

BAD: dict[str, tuple[bytes, str]] = {
    "truncated.jpg": (JPEG[:-40], "truncated image file"),
    "truncated-progressive.jpg": (crafted.image("JPEG", progressive=True)[:-40], "truncated image file"),
    "truncated.png": (PNG[:-30], "truncated image file"),
    "header-only.png": (PNG[:33], "not an image that can be read"),
    "empty.png": (b"", "empty file"),
    "page.jpg": (b"<!DOCTYPE html><html><body>404 not found", "an HTML page, not an image"),
    "json.jpg": (b'{"error": "not found"}', "not an image that can be read"),
    "zip.png": (b"PK\x03\x04" + bytes(100), "not an image that can be read"),
    "postscript.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", "not an image that can be read"),
    "svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>', "not an image that can be"),
    "icon.png": (crafted.image("ICO"), "not an image that can be read"),
    "bomb.png": (crafted.png(60_000, 60_000), "too many pixels"),
    "bomb-2-31.png": (crafted.png(2**31 - 1, 2**31 - 1), "too many pixels"),
    "bomb.gif": (crafted.gif(65_535, 65_535), "too many pixels"),
    "bomb.tif": (crafted.tiff(100_000, 100_000), "too many pixels"),
    "bomb.bmp": (crafted.bmp(50_000, 50_000), "too many pixels"),
    "bomb.webp": (crafted.webp(16_384, 16_384), "too many pixels"),
    "short-of-data.png": (crafted.png(9_000, 9_000), "truncated image file"),
    "short-of-data.tif": (crafted.tiff(9_000, 9_000), "truncated image file"),
    "no-pixels.png": (crafted.png(0, 10), "not an image that can be read"),
    "text-bomb.png": (crafted.png(10, 10, TEXT_BOMB, data=bytes(310)), "damaged image"),
    "profile-bomb.png": (crafted.png(10, 10, PROFILE_BOMB, data=bytes(310)), "damaged image"),
    "scans.jpg": (crafted.jpeg_of_scans(500, 3_000), "too many scans"),
}
GOOD: dict[str, tuple[bytes, tuple[int, int]]] = {
    "plain.jpg": (JPEG, (32, 24)),
    "wrong-suffix.jpg": (PNG, (32, 24)),
    "animated.gif": (crafted.image("GIF", save_all=True, append_images=[]), (32, 24)),
    "cmyk.jpg": (crafted.image("JPEG", mode="CMYK"), (32, 24)),
    "sixteen-bit.png": (crafted.image("PNG", mode="I;16"), (32, 24)),
    "bits.tif": (crafted.image("TIFF", mode="1"), (32, 24)),
    "progressive.jpg": (crafted.image("JPEG", (256, 256), progressive=True), (256, 256)),
    "trailing-data.jpg": (JPEG + b"\xff\xda" * 500, (32, 24)),
    "one-pixel.png": (crafted.image("PNG", (1, 1)), (1, 1)),
    "narrow.png": (crafted.image("PNG", (1, 5_000)), (1, 5_000)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of them, and names that lead elsewhere, as one dataset."""
    root = tmp_path_factory.mktemp("hostile")
    photos = root / "photos"
    photos.mkdir()
    for name, (content, _) in {**BAD, **GOOD}.items():
        (photos / name).write_bytes(content)
    (root / "secret.png").write_bytes(PNG)
    (photos / "link.png").symlink_to(root / "secret.png")
    (photos / "folder").symlink_to(root)
    (photos / "loop.png").symlink_to(photos / "loop.png")
    (photos / "folder.png").mkdir()
    os.mkfifo(photos / "pipe.png")
    with (photos / "hole.jpg").open("wb") as file:
        file.write(JPEG)
        file.truncate(1 << 40)
    names = [*BAD, *GOOD, *ELSEWHERE]
    (photos / "metadata.csv").write_text("\n".join(["file_name", *(f'"{name}"' for name in names)]), encoding="utf-8")
    return photos


ELSEWHERE = {
    "../secret.png": "path leaves the dataset folder",
    "/etc/hostname": "path leaves the dataset folder",
    "folder/secret.png": "path leaves the dataset folder",
    "link.png": "path leaves the dataset folder",
    "C:\\windows\\secret.png": "path leaves the dataset folder",
    "loop.png": "file does not exist",
    "folder.png": "a folder, not a file",
    "pipe.png": "not a regular file",
    "hole.jpg": "file too large",
    "gone.png": "file does not exist",
    "=HYPERLINK(1)": "file does not exist",
    f"{'x' * 300}.png": "file cannot be read",
}
REASONS = {name: said for name, (_, said) in BAD.items()} | ELSEWHERE


def test_each_is_read_or_has_its_reason(folder: Path) -> None:
    """Within a memory that no bomb fits in."""
    found = read(pictures, folder, megabytes=700)
    for name, (_, size) in GOOD.items():
        assert found.pop(name) == size, name
    if found["bomb.webp"] == "damaged image header (could not create decoder object)":  # Pillow 10 asks for the memory
        found["bomb.webp"] = REASONS["bomb.webp"]
    assert {name: said for name, said in found.items() if not said.startswith(REASONS[name])} == {}
    assert found.keys() == REASONS.keys()


def test_embedding_them_names_each_in_the_quarantine(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "e.h5"
    wscl_embed.embed(folder, "efficientnet-lite0", output, image_size=32, max_bad_share=0.9, workers=0, device="cpu")
    with wscl_embed.EmbeddingStore(output) as store:
        assert sorted(store.ids) == sorted(GOOD)
    (csv,) = tmp_path.glob("*.csv")
    assert {row.id for row in Quarantine.read(csv)} == REASONS.keys()
    assert "\n'=HYPERLINK(1)," in csv.read_text(encoding="utf-8").replace("\r", "")  # no formula to a spreadsheet


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16", "P"])
def test_the_largest_image_takes_memory_by_its_pixels(mode: str, tmp_path: Path) -> None:
    """16 million pixels in 60 kB: at most 24 bytes a pixel, so 2.4 GB for the largest that is let in."""
    path = tmp_path / "large.png"
    path.write_bytes(crafted.image("PNG", (4000, 4000), mode))
    assert path.stat().st_size < 100_000
    assert read(picture, path, megabytes=24 * 16) == (4000, 4000)


def test_a_folder_of_images_alone(folder: Path, tmp_path: Path) -> None:
    """Without metadata too no link out of the folder is followed, nor one that goes round."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "good.png").write_bytes(PNG)
    (tmp_path / "a" / "out").symlink_to(folder)
    (tmp_path / "a" / "round").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "out.png").symlink_to(folder / "plain.jpg")
    found = read(pictures, tmp_path)
    assert found == {"a/good.png": (32, 24), "a/out.png": "path leaves the dataset folder"}


def test_a_folder_of_nothing_but_traps(tmp_path: Path) -> None:
    (tmp_path / "model.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00")
    (tmp_path / "model.pt").write_bytes(b"\x80\x04cos\nsystem\n.")
    (tmp_path / "loading_script.py").write_text("raise SystemExit('executed')", encoding="utf-8")
    assert "no dataset in this folder" in refusal(dataset, tmp_path)
