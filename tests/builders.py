"""Small values for tests: pictures, records, and an inspector whose model is scripted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from anomalyr1.engines.scripted import ScriptedEngine
from anomalyr1.inspector import Inspector
from anomalyr1.masks import build_masker
from anomalyr1.types import Anomaly, Completion, Prompt, Record

NORMAL = '<think>Even.</think><answer>{"verdict": "normal", "defects": []}</answer>'


def anomalous(box: tuple[int, int, int, int], label: str = "crack") -> str:
    return (
        '<think>Broken.</think><answer>{"verdict": "anomalous", "defects": '
        f'[{{"bbox_2d": {list(box)}, "label": "{label}", "description": "a crack"}}]}}</answer>'
    )


def make_picture(path: Path, size_wh: tuple[int, int] = (64, 48), level: int = 128) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(level)
    noise = rng.integers(-8, 8, (size_wh[1], size_wh[0], 3))
    Image.fromarray(np.clip(level + noise, 0, 255).astype(np.uint8)).save(path)
    return path


def make_record(path: Path, **fields: object) -> Record:
    return Record(record_id=path.name, image_path=path, **fields)  # type: ignore[arg-type]


class QuietDetector:
    """A detector whose map is 0.1 everywhere but 0.9 in the middle."""

    def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly:
        anomaly_map = np.full((12, 16), 0.1, np.float32)
        anomaly_map[4:8, 6:10] = 0.9
        return Anomaly(anomaly_map, 0.9)


def make_inspector(
    script: Callable[[Prompt, Sequence[Image.Image]], str | Completion],
    *,
    hint: bool = True,
    weights_sha256: str = "",
) -> Inspector:
    return Inspector(
        ScriptedEngine(script),
        detector=QuietDetector() if hint else None,
        masker=build_masker("auto"),
        weights_sha256=weights_sha256,
    )
