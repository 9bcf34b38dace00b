"""Pictures that show nearly the same: one photograph saved twice, resized, brightened or moved by a
little, or one part photographed twice in one pose.

A 64-bit perceptual hash proposes pairs. Pictures of one aligned product share their coarse look and
so come near in it too; a pair counts only where small grey versions agree as well.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from anomalyr1.data.record_checks import PROGRESS_ABOVE
from anomalyr1.images import load_image
from anomalyr1.types import InputError

MAX_DISTANCE = 8
"""Bits of 64 in which two hashes may differ. On photographs of three products, copies that were
compressed (JPEG quality 50), halved, made noisy or shifted by 1 % stayed within it."""

MIN_CORRELATION = 0.97
"""Least correlation of the 64x64 grey versions. Pictures of different parts within `MAX_DISTANCE`
reached 0.92; one part photographed twice had 0.98 and more."""

_SIDE = 64
_THREADS = 4


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a picture is compared by: `phash` as 16 hex digits, `sha256` of its file, and a grey
    version, uint8 (64, 64)."""

    phash: str
    sha256: str
    grey: NDArray[np.uint8] = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Indices of two pictures, `first` < `second`, and how near they are."""

    first: int
    second: int
    distance: int
    correlation: float


def compute_phash(grey: NDArray[np.uint8]) -> str:
    """The 64-bit perceptual hash of a grey picture (H, W) uint8, as 16 hex digits.

    The picture is shrunk to 32x32; a bit is set where one of the 64 lowest frequencies of its
    cosine transform is above their median. The mean is left out: it carries no shape.

    >>> ramp = np.tile(np.arange(64, dtype=np.uint8), (64, 1))
    >>> len(compute_phash(ramp)), compute_phash(ramp) == compute_phash(ramp * 2)
    (16, True)
    """
    small = cv2.resize(grey, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float32)
    frequencies = cv2.dct(small)
    lowest = frequencies[:8, :8].ravel().copy()
    lowest[0] = frequencies[0, 8]
    return np.packbits(lowest > np.median(lowest)).tobytes().hex()


def load_fingerprints(paths: Sequence[Path]) -> list[Fingerprint]:
    """Open every picture and describe it, in threads; progress on stderr for many pictures.

    Raises InputError for a picture that cannot be read.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(
            track(
                pool.map(_fingerprint, paths),
                description="comparing pictures",
                total=len(paths),
                console=Console(stderr=True),
                disable=len(paths) <= PROGRESS_ABOVE,
                transient=True,
            )
        )


def find_near_duplicates(prints: Sequence[Fingerprint]) -> list[DuplicatePair]:
    """All pairs within `MAX_DISTANCE` that correlate by `MIN_CORRELATION`, in order of indices."""
    if not prints:
        return []
    codes = b"".join(bytes.fromhex(item.phash) for item in prints)
    bits = np.unpackbits(np.frombuffer(codes, np.uint8)).reshape(len(prints), 64)
    signs = bits.astype(np.float32) * 2 - 1
    pairs = []
    for start in range(0, len(prints), 512):
        distances = (64 - signs[start : start + 512] @ signs[start:].T) / 2
        for row, column in np.argwhere(distances <= MAX_DISTANCE):
            if column > row:
                first, second = int(start + row), int(start + column)
                near = correlate(prints[first].grey, prints[second].grey)
                if near >= MIN_CORRELATION or prints[first].sha256 == prints[second].sha256:
                    distance = int(distances[row, column])
                    pairs.append(DuplicatePair(first, second, distance, round(near, 4)))
    return pairs


def _fingerprint(path: Path) -> Fingerprint:
    grey = np.asarray(load_image(path).convert("L"))
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    small = np.asarray(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA), np.uint8)
    return Fingerprint(compute_phash(grey), sha256, small)


def correlate(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Pearson correlation of grey versions; flat ones correlate where they have the same level."""
    one, two = first.astype(np.float64), second.astype(np.float64)
    spread = float(one.std() * two.std())
    if spread < 0.25:
        return 1.0 if float(np.abs(one - two).max()) < 3 else 0.0
    return float(((one - one.mean()) * (two - two.mean())).mean() / spread)
