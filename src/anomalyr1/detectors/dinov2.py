"""A second, optional detector: distances of DINOv2 patch features to those of normal references.

Needs weights from a folder or the hub, and at least one reference; nothing is learned here. The
idea is PatchCore's (Roth et al. 2022) with DINOv2 features (Damm et al., "AnomalyDINO", 2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.detectors.patch_memory import build_anomaly
from anomalyr1.types import Anomaly, InputError

LONG_SIDE = 672
"""Pictures are resized to this many pixels on the long side, both sides multiples of a patch."""

_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
_STD = np.array([0.229, 0.224, 0.225], np.float32)
_SINGLE_SPREAD = 0.1
"""Spread of cosine distances assumed with a single reference, where none can be left out."""


class Dinov2Detector:
    """Loaded once. The map's logit is how many spreads of left-out normal patches a patch lies
    beyond three, so that 0.5 is the decision line for every product."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._patch = int(model.config.patch_size)

    @classmethod
    def load(cls, source: str, *, device: str = "cpu") -> Dinov2Detector:
        """Load a folder or hub id, safetensors only. Raises InputError when it is no DINOv2."""
        from transformers import AutoModel

        try:
            model = AutoModel.from_pretrained(source, use_safetensors=True)
        except (OSError, ValueError) as error:
            raise InputError(f"DINOv2 weights {source} cannot be loaded: {error}") from error
        if model.config.model_type not in ("dinov2", "dinov2_with_registers"):
            raise InputError(f"{source} is a {model.config.model_type!r} model, not DINOv2")
        return cls(model.to(device).eval())

    def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly:
        """Map (h, w) float32, one value a patch. Raises InputError without references."""
        if not references:
            raise InputError("the DINOv2 detector needs normal references: give --reference")
        banks = [self._features(reference) for reference in references]
        flat = [bank.reshape(-1, bank.shape[-1]) for bank in banks]
        mean, spread = _measure_normal(flat)
        distances = _nearest(self._features(picture), np.concatenate(flat))
        return build_anomaly(((distances - mean) / spread - 3.0).astype(np.float32))

    def _features(self, picture: Image.Image) -> NDArray[np.float32]:
        """Unit-length patch features (h, w, C) of an RGB picture."""
        import torch

        scale = LONG_SIDE / max(picture.size)
        width, height = (
            max(1, round(side * scale / self._patch)) * self._patch for side in picture.size
        )
        pixels = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        pixels = ((pixels / 255.0 - _MEAN) / _STD).transpose(2, 0, 1)[None]
        grid = (height // self._patch, width // self._patch)
        with torch.inference_mode():
            inputs = torch.from_numpy(np.ascontiguousarray(pixels)).to(self._model.device)
            tokens = self._model(inputs).last_hidden_state[0, -grid[0] * grid[1] :]
            tokens = torch.nn.functional.normalize(tokens.float(), dim=-1)
        features: NDArray[np.float32] = tokens.cpu().numpy().reshape(*grid, -1)
        return features


def _nearest(features: NDArray[np.float32], bank: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine distance (h, w) to the nearest row of the bank."""
    distances: NDArray[np.float32] = 1.0 - (features @ bank.T).max(axis=-1)
    return distances


def _measure_normal(banks: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Mean and spread of the distances of each reference to the others."""
    if len(banks) < 2:
        return 0.0, _SINGLE_SPREAD
    left_out = [
        _nearest(bank, np.concatenate([other for place, other in enumerate(banks) if place != own]))
        for own, bank in enumerate(banks)
    ]
    values = np.concatenate(left_out)
    return float(values.mean()), float(values.std()) + 1e-3
