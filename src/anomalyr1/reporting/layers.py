"""The pictures inside a report: photographs, masks and maps, small, as data URIs.

Whatever cannot be read becomes a sentence in `problems`; a report is never stopped by a picture.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.images import load_image
from anomalyr1.reporting.maps import read_map
from anomalyr1.reporting.overlays import DEFECT_COLOURS, colour_map
from anomalyr1.types import Finding, InputError

JPEG_QUALITY = 80
_MASK_ALPHA = 120


def build_photo(
    name: str, roots: Sequence[Path], max_side: int, problems: list[str]
) -> tuple[str, tuple[int, int] | None]:
    """A JPEG data URI of at most `max_side` pixels a side, and the picture's full (width, height).

    `name` is looked up below each of `roots` in turn. ("", None) where it cannot be read; why is
    appended to `problems`.
    """
    picture = _load_or_note(name, roots, problems)
    if picture is None:
        return "", None
    size_wh = picture.size
    picture.thumbnail((max_side, max_side), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return _encode(picture, "JPEG"), size_wh


def build_mask_layer(
    finding: Finding, out_dir: Path, size_wh: tuple[int, int], max_side: int, problems: list[str]
) -> str:
    """All masks of a finding as one transparent PNG data URI, each in the colour of its box.

    `size_wh` is the photograph's size, whose shape the layer takes. "" without any mask.
    """
    width, height = _fit(size_wh, max_side)
    layer = np.zeros((height, width, 4), np.uint8)
    for index, defect in enumerate(finding.defects):
        picture = None if defect.mask is None else _load_or_note(defect.mask, [out_dir], problems)
        if picture is None:
            continue
        mask = (np.asarray(picture.convert("L")) > 0).astype(np.float32)
        shares = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA)
        # A hairline crack fills less than half of any smaller pixel; it must not vanish.
        inside = (shares > 0) & (shares >= min(0.5, float(shares.max()) / 2))
        core = cv2.erode(inside.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
        colour = DEFECT_COLOURS[index % len(DEFECT_COLOURS)]
        layer[inside] = (*colour, _MASK_ALPHA)
        layer[inside & ~core] = (*colour, 255)
    return _encode(Image.fromarray(layer), "PNG") if layer.any() else ""


def build_heat_layer(
    finding: Finding, out_dir: Path, size_wh: tuple[int, int], max_side: int, problems: list[str]
) -> str:
    """The anomaly map in inferno colours as a JPEG data URI; "" without a map.

    Stretched to the shape of `size_wh`: a map covers the whole picture, whatever its resolution.
    """
    if finding.anomaly_map is None:
        return ""
    try:
        anomaly_map = read_map(out_dir / finding.anomaly_map)
    except InputError as error:
        problems.append(f"Cannot be shown: {error}")
        return ""
    grey = Image.fromarray(np.round(anomaly_map * 255).astype(np.uint8))
    levels: NDArray[np.uint8] = np.asarray(
        grey.resize(_fit(size_wh, max_side), Image.Resampling.BILINEAR)
    )
    return _encode(colour_map(levels), "JPEG")


def encode_thumbnail(path: Path, max_side: int) -> str:
    """A picture as a data URI, as `build_photo`; where it cannot be read it is empty, and the page
    says so."""
    return build_photo(str(path), [Path()], max_side, [])[0]


def _load_or_note(name: str, roots: Sequence[Path], problems: list[str]) -> Image.Image | None:
    try:
        candidates = [root / name for root in roots]
        return load_image(next((path for path in candidates if path.exists()), candidates[0]))
    except (InputError, OSError, ValueError) as error:
        problems.append(f"Cannot be shown: {error}")
        return None


def _fit(size_wh: tuple[int, int], max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(size_wh))
    return max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))


def _encode(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True, quality=JPEG_QUALITY)
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{text}"
