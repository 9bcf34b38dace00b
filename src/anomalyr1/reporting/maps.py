"""Anomaly maps on disk: 16-bit grey PNG, so that close values stay apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.images import write_png_atomic
from anomalyr1.types import InputError

_TOP = 65535
_TOPS = {"L": 255, "I;16": _TOP, "I": _TOP}
"""Pillow's modes of grey PNGs, and the level that stands for 1; older Pillow reads 16 bits as I."""


def write_map(path: Path, anomaly_map: NDArray[np.float32]) -> None:
    """Write a map (h, w) with values in [0, 1]."""
    write_png_atomic(path, build_map_picture(anomaly_map))


def build_map_picture(anomaly_map: NDArray[np.float32]) -> Image.Image:
    """A map (h, w) with values in [0, 1] as the 16-bit grey picture that `read_map` reads."""
    levels = np.round(np.clip(anomaly_map, 0.0, 1.0) * _TOP).astype(np.uint16)
    return Image.fromarray(levels)


def read_map(path: Path) -> NDArray[np.float32]:
    """The map (h, w), float32 in [0, 1]. Raises InputError when the file is missing or no map."""
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            mode = picture.mode
            levels = np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as an anomaly map: {error}") from error
    if mode not in _TOPS:
        raise InputError(f"{path} is not an anomaly map: it is no grey picture of 8 or 16 bits")
    return levels.astype(np.float32) / np.float32(_TOPS[mode])
