"""Decoded images of every mode as upright 8-bit RGB."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

ORIENTATION_TAG = 0x0112
# Modes deeper than 8 bit, and the values that may stand for white in them; see `to_eight_bit`.
FULL_SCALES: dict[str, tuple[float, ...]] = {
    "I;16": (65535.0,),
    "I;16B": (65535.0,),
    "I;16L": (65535.0,),
    "I;16N": (65535.0,),
    "I": (65535.0,),
    "F": (1.0, 255.0, 65535.0),
}


def upright(image: Image) -> Image:
    """Apply the EXIF orientation.

    `PIL.ImageOps.exif_transpose` does the same, but also writes the remaining EXIF anew and fails on the many photos
    whose EXIF is slightly broken. An orientation that cannot be read is taken as upright.
    """
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        turn = turns.get(image.getexif().get(ORIENTATION_TAG, 1))
    except Exception:  # A broken EXIF block says nothing about the pixels.
        return image
    return image if turn is None else image.transpose(turn)


def to_rgb(image: Image) -> Image:
    """An image of any mode as RGB: transparency over white, deep images scaled to 8 bit."""
    from PIL import Image

    if image.mode in FULL_SCALES:
        return to_eight_bit(image).convert("RGB")
    if image.has_transparency_data:
        if image.mode == "La":  # Pillow converts this one to LA only.
            image = image.convert("LA")
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    # A copy where it is RGB already: the result must not hold on to the file.
    return image.convert("RGB")


def to_eight_bit(image: Image) -> Image:
    """A greyscale image with 16 or 32 bits, or floats, as 8-bit greyscale.

    White is 65535 in integer modes, and in float images the smallest of 1, 255 and 65535 that no value exceeds; where
    values exceed even the last, white is the largest value. Below zero is black, and so is NaN.
    """
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    largest = float(values.max())
    white = next((scale for scale in FULL_SCALES[image.mode] if largest <= scale), largest)
    return Image.fromarray(np.rint(np.clip(values / white, 0, 1) * 255).astype(np.uint8))
