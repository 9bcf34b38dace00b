"""Picture files for tests: as cameras, programs and attackers write them."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import numpy as np
from PIL import Image

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, suffix: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(buffer, format=suffix, **options)
    return buffer.getvalue()


def build_png_header(width: int, height: int) -> bytes:
    """A valid PNG header that claims a size, followed by almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def rotated_jpeg(orientation: int, suffix: str = "JPEG") -> bytes:
    """A 20x10 picture, left half black, that its metadata asks to turn."""
    image = Image.new("RGB", (20, 10), "white")
    image.paste("black", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, suffix, exif=exif)


def animation() -> bytes:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "lime", "blue")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
