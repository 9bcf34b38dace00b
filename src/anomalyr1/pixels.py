"""Turn decoded pixels of any kind into 8-bit RGB, or a mask's into 0..255. Reads no files."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.types import InputError

GREY_TOPS = (255, 1023, 4095, 65535)
"""Largest values of the ranges cameras and scanners use: 8, 10, 12 and 16 bits."""

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Undo an EXIF orientation, 1 to 8 (EXIF 2.32, tag 0x0112)."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def picture_to_rgb(image: Image.Image, shown: str) -> Image.Image:
    """Return a new 8-bit RGB picture without metadata; `shown` names it in errors.

    Transparency is composited on white. Values deeper than 8 bits are scaled by `grey_to_uint8`.
    """
    if image.mode.startswith(("I", "F")):
        grey = grey_to_uint8(np.asarray(image), shown)
        rgb = Image.fromarray(grey).convert("RGB")
    elif image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        rgba = _straight_alpha(image).convert("RGBA")
        rgb = Image.new("RGB", image.size, "white")
        rgb.paste(rgba, mask=rgba.getchannel("A"))
    elif image.mode == "LAB":
        raise InputError(f"{shown}: holds Lab colours; save it again as RGB")
    else:
        rgb = image.copy() if image.mode == "RGB" else image.convert("RGB")
    rgb.info = {}  # a profile or orientation that no longer describes these pixels misleads
    return rgb


def array_to_rgb(array: NDArray[np.generic], shown: str) -> Image.Image:
    """Return an array as an RGB picture; see `images.load_image` for what is accepted.

    uint16 is scaled as files are. Anything else is an InputError naming dtype and shape.
    """
    kind = array.dtype
    channels = array.shape[2] if array.ndim == 3 else 0
    allowed = (0, 3, 4) if kind == np.uint8 else (0, 3)
    is_picture = array.ndim in (2, 3) and channels in allowed
    if is_picture and array.size:
        if kind == np.uint8:
            picture = Image.fromarray(np.ascontiguousarray(array))
            return picture_to_rgb(picture, shown)
        if kind == np.uint16:
            return Image.fromarray(grey_to_uint8(array, shown)).convert("RGB")
        if np.issubdtype(kind, np.floating):
            low, high = float(array.min()), float(array.max())
            if not (low >= 0.0 and high <= 1.0):  # also false for NaN
                raise InputError(
                    f"{shown}: floats range from {low:g} to {high:g}; scale them to 0..1"
                )
            scaled = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
            return Image.fromarray(scaled).convert("RGB")
    raise InputError(
        f"{shown}: is {kind} of shape {array.shape}; give RGB as uint8 (H, W), (H, W, 3) or "
        "(H, W, 4), uint16, or floats in 0..1"
    )


def grey_to_uint8(values: NDArray[np.generic], shown: str) -> NDArray[np.uint8]:
    """Scale non-negative values of any shape to 0..255.

    The divisor is the smallest of `GREY_TOPS` that holds the largest value, above 65535 the
    largest value itself; floats up to 1.0 are taken as 0..1. Values up to 255 stay as they are.
    Raises InputError for negative or non-finite values: their zero point cannot be known.
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= 0.0 and np.isfinite(high)):
        raise InputError(
            f"{shown}: pixel values range from {low:g} to {high:g}; shift and scale them to "
            "0..255 or 0..65535 first"
        )
    is_float = np.issubdtype(values.dtype, np.floating)
    if is_float and high <= 1.0:
        top = 1.0
    else:
        top = float(next((top for top in GREY_TOPS if high <= top), high))
    if not is_float and high <= 65535:
        # A table instead of arithmetic: 100 megapixels would take 800 MB as float64.
        table = np.rint(np.arange(65536) * (255.0 / top)).clip(0, 255).astype(np.uint8)
        narrow: NDArray[np.uint8] = table[values.astype(np.uint16, copy=False)]
        return narrow
    scaled = values.astype(np.float32)
    scaled /= np.float32(top)
    scaled *= np.float32(255)
    return np.rint(scaled, out=scaled).clip(0, 255).astype(np.uint8)


def mask_to_grey(image: Image.Image, shown: str) -> NDArray[np.uint8]:
    """Return a mask's values as uint8 (H, W): a colour counts by its brightest channel.

    Palettes of greys keep their greys. In a palette of colours, an index whose colour is not black
    becomes 255: such masks name labels by colour, and label colours may be dim. Transparent
    pixels become 0.
    """
    if image.mode.startswith(("I", "F")):
        return grey_to_uint8(np.asarray(image), shown)
    if image.mode == "1":
        return np.asarray(image).astype(np.uint8) * 255
    if image.mode == "L":
        return np.asarray(image)
    rgba = np.asarray(_straight_alpha(image).convert("RGBA"))
    grey: NDArray[np.uint8] = rgba[..., :3].max(axis=2)
    if image.mode in ("P", "PA") and bool((rgba[..., :3].min(axis=2) != grey).any()):
        grey = np.where(grey > 0, 255, 0).astype(np.uint8)
    return np.where(rgba[..., 3] > 127, grey, 0).astype(np.uint8)


def _straight_alpha(image: Image.Image) -> Image.Image:
    """Undo premultiplied alpha, which Pillow converts only to its own straight partner."""
    partner = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    return image.convert(partner) if partner else image
