"""Detectors: the anomaly map that is put to the model as a hint, and a score of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from anomalyr1.types import Anomaly


class Detector(Protocol):
    """Compares a picture with normal references, or judges it alone when there are none."""

    def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly:
        """Calibrated map and score of one RGB picture; references may be of any size."""
        ...
