"""Image files of every kind that is decoded."""

import io

import atheris
from PIL import Image

with atheris.instrument_imports(include=["wscl_embed"]):
    from wscl_embed.images import decode_image
from fuzz.harness import fuzz

MODES = {"PNG": ["RGB", "RGBA", "P", "I;16", "1"], "JPEG": ["RGB", "L", "CMYK"], "TIFF": ["RGB", "F", "I;16"]}


def seed(kind, mode, **options):
    buffer = io.BytesIO()
    Image.new(mode, (9, 7)).save(buffer, kind, **options)
    return buffer.getvalue()


def target(path):
    image = decode_image(path, max_pixels=10**6)
    assert image.mode == "RGB"
    assert image.size[0] * image.size[1] <= 10**6


if __name__ == "__main__":
    exif = Image.Exif()
    exif[0x0112] = 6
    seeds = [seed(kind, mode) for kind in ("PNG", "JPEG", "TIFF") for mode in MODES[kind]]
    seeds += [seed(kind, "RGB") for kind in ("GIF", "BMP", "WEBP", "AVIF")]
    fuzz(target, [*seeds, seed("JPEG", "RGB", exif=exif), seed("JPEG", "RGB", progressive=True)], "image")
