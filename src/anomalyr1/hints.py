"""The anomaly map as a picture for the model: what it marks, and where, in one look."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def draw_hint(anomaly_map: NDArray[np.float32], size_wh: tuple[int, int]) -> Image.Image:
    """An RGB picture of `size_wh`: red is the map (0.5, the decision line, is half red), green
    grows to the right and blue downwards, so that a patch's colour also says where it lies.

    `anomaly_map` is float32 (h, w) in [0, 1] and covers the whole picture.
    """
    width, height = size_wh
    red = np.clip(np.asarray(anomaly_map, np.float32), 0.0, 1.0) * 255.0
    resized = Image.fromarray(red.astype(np.uint8)).resize(size_wh, Image.Resampling.BILINEAR)
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[..., 0] = np.asarray(resized)
    pixels[..., 1] = np.linspace(0, 255, width).astype(np.uint8)
    pixels[..., 2] = np.linspace(0, 255, height).astype(np.uint8)[:, None]
    return Image.fromarray(pixels)
