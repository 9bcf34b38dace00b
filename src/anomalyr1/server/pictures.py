"""The picture folder: files named by their SHA-256, there whole or not at all.

An upload is written under a temporary name, checked, synced and renamed before any row names it.
Nothing a user calls a file ever becomes a path.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.images import limit_size, load_image
from anomalyr1.types import InputError

MAX_UPLOAD_BYTES = 50_000_000
MAX_UPLOAD_PIXELS = 50_000_000
SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "MPO": ".jpg",
    "BMP": ".bmp",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "GIF": ".gif",
    "PPM": ".ppm",
    "JPEG2000": ".jp2",
}
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20
# Decoding takes three bytes a pixel and more: a few pictures at a time bound the memory.
_decoding = threading.BoundedSemaphore(2)


@dataclass(frozen=True, slots=True)
class Picture:
    """A file of the folder: content hash, suffix by content, upright size in pixels, bytes."""

    sha256: str
    suffix: str
    width: int
    height: int
    num_bytes: int


class PictureFolder:
    """Files by content hash under `root`. Safe for several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._incoming = root / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def find(self, sha256: str, suffix: str) -> Path:
        """Where a picture lies. Raises InputError for what is no hash or no known suffix."""
        if not _DIGEST.fullmatch(sha256) or suffix not in SUFFIXES.values():
            raise InputError(f"{sha256[:80]!r} does not name a picture")
        return self.root / sha256[:2] / f"{sha256}{suffix}"

    def receive(self, source: BinaryIO, name: str) -> Picture:
        """Keep an upload that is a readable picture; `name` is for messages only.

        Raises InputError, leaving no file behind, for what is too large, damaged or no picture.
        """
        partial = self._incoming / f"{secrets.token_hex(16)}.part"
        try:
            digest, num_bytes = _copy_bounded(source, partial, name)
            try:
                size_wh = decode_upload(partial).size
                with Image.open(partial, formats=list(SUFFIXES)) as opened:
                    suffix = SUFFIXES[opened.format or ""]
            except InputError as error:
                raise InputError(str(error).replace(str(partial), name)) from error
            picture = Picture(digest, suffix, *size_wh, num_bytes)
            self._settle(partial, self.find(digest, suffix))
            return picture
        finally:
            partial.unlink(missing_ok=True)

    def keep(self, drawn: Image.Image | NDArray[np.uint8] | NDArray[np.uint16]) -> Picture:
        """Keep a picture, mask or map that was computed here, as PNG."""
        image = Image.fromarray(drawn) if isinstance(drawn, np.ndarray) else drawn
        buffer = BytesIO()
        image.save(buffer, "PNG")
        payload = buffer.getvalue()
        digest = hashlib.sha256(payload).hexdigest()
        partial = self._incoming / f"{secrets.token_hex(16)}.part"
        try:
            with partial.open("xb") as file:
                file.write(payload)
                file.flush()
                os.fsync(file.fileno())
            self._settle(partial, self.find(digest, ".png"))
        finally:
            partial.unlink(missing_ok=True)
        return Picture(digest, ".png", *image.size, len(payload))

    def walk(self) -> Iterator[Path]:
        """All files that have their final name."""
        for path in sorted(self.root.glob("[0-9a-f][0-9a-f]/*")):
            if _DIGEST.fullmatch(path.stem):
                yield path

    def clear_incoming(self) -> int:
        """Remove what a killed server had half received; only while no server runs."""
        halves = list(self._incoming.iterdir())
        for path in halves:
            path.unlink(missing_ok=True)
        return len(halves)

    def _settle(self, partial: Path, target: Path) -> None:
        target.parent.mkdir(exist_ok=True)
        partial.replace(target)
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def decode_upload(source: Path | bytes, name: str | None = None) -> Image.Image:
    """An upload as `load_image` reads it, when its turn comes: few are decoded at once.

    Raises InputError for what is larger than an upload may be, damaged or no picture."""
    with _decoding:
        return load_image(
            source, max_bytes=MAX_UPLOAD_BYTES, max_pixels=MAX_UPLOAD_PIXELS, name=name
        )


def decode_small(path: Path, side: int) -> Image.Image:
    """A picture of the folder as 8-bit RGB, its longer side `side` pixels at most, when its turn
    comes: whole, few are in memory at once. Raises InputError for what cannot be read."""
    with _decoding:
        return limit_size(load_image(path), side)


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy_bounded(source: BinaryIO, target: Path, name: str) -> tuple[str, int]:
    digest, num_bytes = hashlib.sha256(), 0
    with target.open("xb") as file:
        while chunk := source.read(_CHUNK):
            num_bytes += len(chunk)
            if num_bytes > MAX_UPLOAD_BYTES:
                raise InputError(
                    f"{name}: has more than {MAX_UPLOAD_BYTES:,} bytes; compress or crop it"
                )
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest(), num_bytes
