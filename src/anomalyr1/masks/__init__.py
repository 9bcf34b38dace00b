"""From a defect's box to its mask: from the anomaly map, from colours (GrabCut) or by SAM 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.masks.from_map import MapMasker
from anomalyr1.masks.grabcut import GrabCutMasker
from anomalyr1.masks.sam2 import Sam2Masker
from anomalyr1.types import Box, InputError

__all__ = [
    "MASKER_NAMES",
    "AutoMasker",
    "GrabCutMasker",
    "MapMasker",
    "Masker",
    "NoMasker",
    "Sam2Masker",
    "build_masker",
]

MASKER_NAMES = ("auto", "map", "grabcut", "sam2", "none")


class Masker(Protocol):
    """Whatever turns boxes into masks."""

    def masks(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        anomaly_map: NDArray[np.float32] | None,
    ) -> list[NDArray[np.bool_]]:
        """Return one bool mask (H, W) in original-image pixels per box.

        `boxes`: xyxy, half-open, original-image pixels. `anomaly_map`: float (h, w) in [0, 1]
        covering the whole picture at any resolution, or None. A box wholly outside the picture
        gives an empty mask, any other at least one pixel. Raises InputError for a box that is
        reversed or not finite.
        """
        ...


@dataclass(frozen=True, slots=True)
class AutoMasker:
    """`MapMasker` where a map is given, `GrabCutMasker` where not."""

    def masks(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        anomaly_map: NDArray[np.float32] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """See `Masker.masks`."""
        if anomaly_map is None:
            return GrabCutMasker().masks(image, boxes)
        return MapMasker().masks(image, boxes, anomaly_map)


@dataclass(frozen=True, slots=True)
class NoMasker:
    """Returns an empty list whatever the boxes: the caller reports boxes without masks."""

    def masks(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        anomaly_map: NDArray[np.float32] | None = None,
    ) -> list[NDArray[np.bool_]]:
        """Return []."""
        return []


def build_masker(
    name: str = "auto", *, sam2_model: str | None = None, device: str = "cpu"
) -> Masker:
    """Make the masker called `name`: one of MASKER_NAMES.

    "auto" is SAM 2 where `sam2_model` (a folder or hub id) is given, else the map where a picture
    has one, else GrabCut. `device` is SAM 2's. Raises InputError for an unknown name, for "sam2"
    without `sam2_model`, or where SAM 2 cannot be loaded.

    >>> build_masker("grabcut")
    GrabCutMasker()
    """
    if name == "sam2" and sam2_model is None:
        raise InputError("masker 'sam2' needs sam2_model: a folder or a hub id")
    if name == "sam2" or (name == "auto" and sam2_model is not None):
        assert sam2_model is not None
        return Sam2Masker.load(sam2_model, device)
    if name == "auto":
        return AutoMasker()
    if name == "map":
        return MapMasker()
    if name == "grabcut":
        return GrabCutMasker()
    if name == "none":
        return NoMasker()
    raise InputError(f"no masker is called {name!r}: choose one of {', '.join(MASKER_NAMES)}")
