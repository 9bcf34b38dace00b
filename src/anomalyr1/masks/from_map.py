"""A mask from a detector's anomaly map: thresholded inside the box, edges taken from the picture.

The map knows where the anomaly is, the picture knows where its edge runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.masks.grabcut import (
    GrabCutMasker,
    PixelBox,
    build_ellipse,
    enlarge,
    grow_box,
    load_crop,
    rescale_window,
)
from anomalyr1.types import Box, InputError

BOX_MARGIN = 0.1
MAX_SIDE = 1024
_CONTEXT = 0.5
_MIN_CONTEXT = 8
# Below these the map says nothing of a shape inside the box, and colour alone did better on
# drawn defects and on magnetic tiles: a box under this many map cells wide, a map this flat.
_MIN_CELLS = 1.5
_MIN_CONTRAST = 0.02
_GUIDE_EPSILON = 1e-4


@dataclass(frozen=True, slots=True)
class MapMasker:
    """Threshold the anomaly map between its level around the box and its peak inside.

    The threshold is relative, not 0.5: a blurred step crosses its edge halfway up, whatever the
    detector's calibration. It is the mean of that midpoint and of Otsu's threshold within the box.
    """

    def masks(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        anomaly_map: NDArray[np.float32] | None,
    ) -> list[NDArray[np.bool_]]:
        """Return one bool mask (H, W) in original-image pixels per box.

        `boxes`: xyxy, half-open, original-image pixels. `anomaly_map`: float (h, w) in [0, 1] at
        any resolution, covering the whole picture. The mask lies inside the box grown by a tenth
        each way. A box under 1.5 map cells wide, or one where the map is flat, is masked by
        `GrabCutMasker` instead; a threshold that keeps nothing gives the inscribed ellipse. A box
        wholly outside the picture gives an empty mask; any other mask holds a pixel.

        Raises InputError for a missing, misshapen or non-finite map, or an unusable box.
        """
        levels = check_map(anomaly_map)
        return [self._mask(image, box, levels) for box in boxes]

    def _mask(
        self, image: Image.Image, box: Box, anomaly_map: NDArray[np.float32]
    ) -> NDArray[np.bool_]:
        inner = grow_box(box, image.size, BOX_MARGIN)
        outer = grow_box(box, image.size, _CONTEXT, _MIN_CONTEXT)
        cell_wh = (image.width / anomaly_map.shape[1], image.height / anomaly_map.shape[0])
        num_cells = min((box[2] - box[0]) / cell_wh[0], (box[3] - box[1]) / cell_wh[1])
        if inner is None or outer is None or num_cells < _MIN_CELLS:
            return GrabCutMasker().masks(image, [box])[0]
        colours = load_crop(image, outer, MAX_SIDE)
        levels = sample_map(anomaly_map, image.size, outer, colours.shape[:2])
        window = rescale_window(inner, outer, levels.shape)
        base, peak = measure_contrast(levels, window)
        if peak - base < _MIN_CONTRAST:
            return GrabCutMasker().masks(image, [box])[0]
        relative = np.clip((levels - base) / (peak - base), 0, 1)
        scale = colours.shape[1] / (outer[2] - outer[0])
        radius = round(max(cell_wh) * scale / 2)
        if radius >= 1:
            relative = guide_by_picture(relative, colours, radius)
        threshold = (0.5 + compute_otsu(relative[window])) / 2
        return place(relative >= threshold, image.size, inner, outer)


def check_map(anomaly_map: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Return the map as float32 (h, w), or raise InputError saying what is wrong with it."""
    if anomaly_map is None:
        raise InputError("masks from a map need an anomaly map: enable a detector or use 'grabcut'")
    levels = np.asarray(anomaly_map, dtype=np.float32)
    if levels.ndim != 2 or levels.size == 0:
        raise InputError(f"anomaly map has shape {levels.shape}: give a float array (h, w)")
    if not np.isfinite(levels).all():
        raise InputError("anomaly map holds NaN or infinity: check the detector that made it")
    return levels


def sample_map(
    values: NDArray[np.float32],
    size_wh: tuple[int, int],
    box: PixelBox,
    shape_hw: tuple[int, ...],
) -> NDArray[np.float32]:
    """Interpolate `values` (h, w), which cover a picture of `size_wh`, over `box` of that picture.

    Returns float32 of `shape_hw`: bicubic, cell centres at half-integers, so that no whole-picture
    copy is made for a small box. `box` is in original-image pixels.
    """
    height, width = shape_hw[:2]
    cells_x, cells_y = values.shape[1] / size_wh[0], values.shape[0] / size_wh[1]
    step_x, step_y = (box[2] - box[0]) / width, (box[3] - box[1]) / height
    to_cells = np.array(
        [
            [step_x * cells_x, 0, (box[0] + step_x / 2) * cells_x - 0.5],
            [0, step_y * cells_y, (box[1] + step_y / 2) * cells_y - 0.5],
        ]
    )
    sampled: NDArray[np.float32] = cv2.warpAffine(
        values,
        to_cells,
        (width, height),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)
    return sampled


def measure_contrast(
    levels: NDArray[np.float32], window: tuple[slice, slice]
) -> tuple[float, float]:
    """The map's level around `window` (median) and its peak inside (99th percentile).

    Where the window fills the crop the level is the window's own minimum.
    """
    around = np.ones(levels.shape, dtype=np.bool_)
    around[window] = False
    base = np.median(levels[around]) if around.any() else levels.min()
    return float(base), float(np.percentile(levels[window], 99))


def guide_by_picture(
    values: NDArray[np.float32], colours: NDArray[np.uint8], radius: int
) -> NDArray[np.float32]:
    """Sharpen `values` (h, w) along the edges of RGB `colours` (h, w, 3).

    The guided filter of He, Sun and Tang (ECCV 2010), eq. 5, 6 and 8, on the picture's grey.
    """
    side = (2 * radius + 1, 2 * radius + 1)
    guide = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    mean_guide, mean_values = cv2.blur(guide, side), cv2.blur(values, side)
    covariance = cv2.blur(guide * values, side) - mean_guide * mean_values
    variance = cv2.blur(guide * guide, side) - mean_guide * mean_guide
    slope = covariance / (variance + _GUIDE_EPSILON)
    offset = mean_values - slope * mean_guide
    sharpened: NDArray[np.float32] = (
        cv2.blur(slope, side) * guide + cv2.blur(offset, side)
    ).astype(np.float32)
    return sharpened


def compute_otsu(values: NDArray[np.float32]) -> float:
    """Otsu's threshold of values in [0, 1], to 1/255."""
    levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8).reshape(-1, 1)
    threshold, _ = cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)
    return float(threshold) / 255


def place(
    cut: NDArray[np.bool_], size_wh: tuple[int, int], inner: PixelBox, outer: PixelBox
) -> NDArray[np.bool_]:
    """Put a cut made on the (shrunken) crop `outer` into a mask (H, W), clipped to `inner`.

    A cut with nothing inside `inner` is replaced by the ellipse inscribed in `inner`.
    """
    x1, y1, x2, y2 = inner
    mask = np.zeros(size_wh[::-1], dtype=np.bool_)
    inside = enlarge(cut, outer)[y1 - outer[1] : y2 - outer[1], x1 - outer[0] : x2 - outer[0]]
    mask[y1:y2, x1:x2] = inside if inside.any() else build_ellipse(x2 - x1, y2 - y1)
    return mask
