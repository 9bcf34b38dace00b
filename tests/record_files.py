"""Small records files and the pictures that they name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

GOOD = {"record_id": "a", "image_path": "nut.png"}
NOISE = np.random.default_rng(0).integers(0, 256, (30, 40), dtype=np.uint8)


def write_picture(path: Path, size_wh: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.resize(NOISE, size_wh[::-1])).save(path)
    return path


def write_lines(folder: Path, *lines: object) -> Path:
    path = folder / "records.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path
