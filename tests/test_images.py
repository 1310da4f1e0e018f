"""`decode_image` on real files of every kind it takes, and on every kind of bad file."""

from __future__ import annotations

import io
import os
import pickle
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from wscl_embed.errors import WsclEmbedError
from wscl_embed.images import STRICT_PILLOW, BadImageError, allowed_formats, decode_image, strict_pillow

WHITE = (255, 255, 255)


def photo(width: int = 48, height: int = 32) -> Image.Image:
    """A smooth picture without any symmetry, so that every turn of it is another one."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    channels = [x * 255, y * 200, (x * y) * 150 + 50 * x]
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def distance(one: Image.Image, other: Image.Image) -> float:
    """The mean absolute difference of pixels, 0 to 255."""
    assert one.size == other.size
    assert one.mode == other.mode == "RGB"
    return float(np.abs(np.asarray(one, dtype=float) - np.asarray(other, dtype=float)).mean())


def reason(source: bytes | str | Path, **options: int) -> str:
    with pytest.raises(BadImageError) as caught:
        decode_image(source, **options)
    assert caught.value.reason == str(caught.value)
    return caught.value.reason


JPEG = encode(photo(), "JPEG", quality=90)
PROGRESSIVE = encode(photo(), "JPEG", quality=90, progressive=True)
PNG = encode(photo(), "PNG")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_format_decodes_from_bytes_and_from_a_path(kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and "AVIF" not in allowed_formats():
        pytest.skip("this Pillow has no AVIF")
    content = encode(photo(), kind)
    path = tmp_path / "wrong-suffix.dat"
    path.write_bytes(content)
    decoded = decode_image(content)
    assert distance(decoded, photo()) < 6
    assert distance(decoded, decode_image(path)) == 0
    assert distance(decoded, decode_image(str(path))) == 0


def test_a_format_outside_the_list_is_refused() -> None:
    assert reason(encode(photo(), "PPM")).startswith("not an image that can be read (it must be one of JPEG, PNG")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    same = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        7: Image.Transpose.TRANSVERSE,
    }
    turn = {**inverse, **same}.get(orientation)
    stored = photo() if turn is None else photo().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}.get(kind, {})
    content = encode(stored, kind, exif=exif, **lossless)
    decoded = decode_image(content)
    assert distance(decoded, photo()) <= (2 if kind == "JPEG" else 0)
    with Image.open(io.BytesIO(content)) as image:
        assert distance(decoded, ImageOps.exif_transpose(image).convert("RGB")) == 0


def test_a_broken_exif_block_does_no_harm() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(photo(), "JPEG", exif=exif)
    start = content.index(b"Exif\0\0") + 6
    broken = content[:start] + b"\xff" * 8 + content[start + 8 :]
    assert distance(decode_image(broken), photo()) < 6


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), WHITE),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("LA", (100, 255), (100, 100, 100)),
        ("LA", (100, 0), WHITE),
    ],
)
def test_transparency_is_laid_over_white(mode: str, colour: tuple[int, ...], expected: tuple[int, int, int]) -> None:
    decoded = decode_image(encode(Image.new(mode, (3, 2), colour), "PNG"))
    assert decoded.mode == "RGB"
    assert np.unique(np.asarray(decoded).reshape(-1, 3), axis=0).tolist() == [list(expected)]


def test_palettes_with_and_without_transparency() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    plain = decode_image(encode(image, "PNG"))
    one = decode_image(encode(image, "PNG", transparency=1))
    many = decode_image(encode(image, "PNG", transparency=b"\x00\x80"))
    gif = decode_image(encode(image, "GIF", transparency=0))
    assert [plain.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (0, 0, 255)]
    assert [one.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), WHITE]
    assert [many.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (127, 127, 255)]
    assert [gif.getpixel((x, 0)) for x in (0, 1)] == [WHITE, (0, 0, 255)]


def test_a_transparent_colour_in_grey_and_rgb_png() -> None:
    grey = Image.new("L", (2, 1), 7)
    grey.putpixel((1, 0), 9)
    decoded = decode_image(encode(grey, "PNG", transparency=9))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(7, 7, 7), WHITE]
    colour = decode_image(encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG", transparency=(1, 2, 3)))
    assert colour.getpixel((0, 0)) == WHITE


def test_one_bit_grey_and_cmyk() -> None:
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 255)
    decoded = decode_image(encode(bits, "PNG"))
    assert [decoded.getpixel((x, 0)) for x in (0, 1)] == [(0, 0, 0), WHITE]
    assert decode_image(encode(Image.new("L", (1, 1), 77), "PNG")).getpixel((0, 0)) == (77, 77, 77)
    cmyk = decode_image(encode(photo().convert("CMYK"), "JPEG", quality=95))
    assert distance(cmyk, photo()) < 6


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_not_cut_off(kind: str) -> None:
    values = np.array([[0, 128, 257, 32896, 65535]], dtype=np.uint16)
    decoded = decode_image(encode(Image.fromarray(values), kind))
    assert np.asarray(decoded)[0, :, 0].tolist() == [0, 0, 1, 128, 255]


def test_integers_and_floats_are_scaled() -> None:
    def grey(values: list[float], dtype: type) -> list[int]:
        image = Image.fromarray(np.array([values], dtype=dtype))
        return np.asarray(decode_image(encode(image, "TIFF")))[0, :, 0].tolist()

    assert grey([-5, 0, 32896, 65535], np.int32) == [0, 0, 128, 255]
    assert grey([0, 2**30, 2**31 - 1], np.int32) == [0, 128, 255]
    assert grey([-1.0, 0.0, 0.5, 1.0, float("nan")], np.float32) == [0, 0, 128, 255, 0]
    assert grey([0.0, 100.0, 255.0], np.float32) == [0, 100, 255]
    assert grey([0.0, 1e6, 2e6], np.float32) == [0, 128, 255]
    assert grey([0.0, 0.0], np.float32) == [0, 0]


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode_image(encode(frames[0], kind, save_all=True, append_images=frames[1:], **options))
    assert decoded.getpixel((4, 4)) == (255, 0, 0)


def test_a_draft_stays_above_its_size_and_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    large = photo(640, 400)
    content = encode(large.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, exif=exif)
    full, draft = decode_image(content), decode_image(content, draft_size=100)
    assert full.size == (640, 400)
    assert draft.size == (160, 100)
    assert distance(draft, full.resize(draft.size, Image.Resampling.BOX)) < 3
    assert decode_image(content, draft_size=101).size == (320, 200)
    assert decode_image(content, draft_size=1000).size == (640, 400)
    assert decode_image(encode(large, "PNG"), draft_size=10).size == (640, 400)
    assert reason(content[:-2000], draft_size=100) == "truncated image file"
    assert reason(content, draft_size=10, max_pixels=1000).startswith("too many pixels (400 x 640")


def bomb(width: int, height: int) -> bytes:
    """A PNG of some 60 bytes that claims any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(10_001, 10_000), (13_000, 13_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    assert reason(bomb(*size)).split(" (")[0] == "too many pixels"


def test_the_pixel_limit_is_the_callers() -> None:
    assert decode_image(PNG, max_pixels=48 * 32).size == (48, 32)
    assert reason(PNG, max_pixels=48 * 32 - 1) == "too many pixels (48 x 32, more than 1,535)"


def test_bad_files_each_have_their_reason(tmp_path: Path) -> None:
    page = tmp_path / "page.jpg"
    page.write_bytes(b"\xef\xbb\xbf\n<!doctype HTML><title>404</title>")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    assert reason(page) == "an HTML page, not an image"
    assert reason(b"<html>") == "an HTML page, not an image"
    assert reason(empty) == reason(b"") == "empty file"
    assert reason(tmp_path) == "a folder, not a file"
    assert reason(tmp_path / "gone.jpg") == "file does not exist"
    assert reason(b"plain text").startswith("not an image that can be read")
    assert reason(JPEG[:300]) == reason(JPEG[:-100]) == reason(PNG[:-40]) == "truncated image file"
    assert reason(str(tmp_path / "nul\0.jpg")).split(" (")[0] in ("file does not exist", "file cannot be read")
    assert reason(tmp_path / ("x" * 300)).split(" (")[0] in ("file does not exist", "file cannot be read")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    assert reason(tmp_path / "pipe.jpg") == "not a regular file"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    path.chmod(0)
    assert reason(path) == "file cannot be read (Permission denied)"


@pytest.mark.parametrize("content", [JPEG, PROGRESSIVE, PNG], ids=["jpeg", "progressive", "png"])
def test_cut_off_at_any_byte_it_is_whole_or_bad(content: bytes) -> None:
    whole = decode_image(content).tobytes()
    good = 0
    for end in range(len(content)):
        try:
            decoded = decode_image(content[:end])
        except BadImageError:
            continue
        good += 1
        assert decoded.tobytes() == whole, f"cut at byte {end} of {len(content)}"
    # Only what follows the pixels may be missing.
    assert good < 40


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF"])
def test_half_a_file_is_bad(kind: str) -> None:
    content = encode(photo(), kind)
    assert reason(content[: len(content) // 2])


def test_truncated_is_refused_even_where_another_library_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert reason(JPEG[: len(JPEG) // 2]) == "truncated image file"
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=200),
    st.sampled_from([b"", JPEG[:20], PNG[:33], b"GIF89a", b"BM", b"II*\0", b"RIFF\0\0\0\0WEBP"]),
)
def test_random_bytes_raise_nothing_else(tail: bytes, head: bytes) -> None:
    with suppress(BadImageError):
        assert decode_image(head + tail).mode == "RGB"


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_raise_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP"]))
    content = bytearray(encode(photo(16, 12), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with suppress(BadImageError):
        assert decode_image(bytes(content)).mode == "RGB"


def test_threads_decode_alike_and_leave_no_trace() -> None:
    filters, before = list(warnings.filters), decode_image(PNG).tobytes()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: decode_image(PNG).tobytes(), range(200)))
    assert set(results) == {before}
    assert warnings.filters == filters
    assert STRICT_PILLOW.inside == 0


def test_strict_pillow_lasts_until_the_last_thread_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with strict_pillow():
            entered.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    with strict_pillow():
        thread.start()
        entered.wait(10)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False
    leave.set()
    thread.join()
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True


def test_the_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(BadImageError("empty file")))
    assert isinstance(error, WsclEmbedError)
    assert error.reason == "empty file"
