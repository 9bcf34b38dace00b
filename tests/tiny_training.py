"""A tiny random checkpoint with records, as folders, for tests that run whole trainings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from builders import make_picture
from PIL import Image

TINY = (1024, 64, 2, 64, 2, 84 * 84)
"""NanoShape of the model."""


def write_model(folder: Path) -> Path:
    from anomalyr1.checkpoint import save_checkpoint
    from anomalyr1.training.nano import NanoShape, build_nano

    save_checkpoint(build_nano(NanoShape(*TINY), seed=0), folder)
    return folder


def write_records(folder: Path, count: int = 6) -> Path:
    """Records of parts, every other one with a dark square that its mask shows."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(count):
        path = make_picture(folder / f"{number}.png", (120, 100), 60 + 20 * number)
        record: dict[str, Any] = {
            "record_id": str(number),
            "image_path": path.name,
            "category": "part",
            "label": "normal",
        }
        if number % 2 == 0:
            mask = np.zeros((100, 120), np.uint8)
            mask[20:71, 12 + number : 60] = 255
            Image.fromarray(mask).save(folder / f"{number}_mask.png")
            box = [12.0 + number, 20.0, 60.0, 71.0]
            record |= {
                "label": "anomalous",
                "mask_path": f"{number}_mask.png",
                "regions": [{"box_xyxy": box, "defect_type": "crack", "description": "a crack"}],
            }
        lines.append(json.dumps(record))
    records = folder / "records.jsonl"
    records.write_text("\n".join(lines) + "\n")
    return records


COMMON = {
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "save_steps": 1,
    "report_to": "none",
    "disable_tqdm": True,
}


def sft_table(**changes: Any) -> dict[str, Any]:
    return {
        **COMMON,
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "activation_checkpointing": False,
        **changes,
    }


def grpo_table(**changes: Any) -> dict[str, Any]:
    return {
        **COMMON,
        "max_steps": 2,
        "num_generations": 2,
        "per_device_train_batch_size": 4,
        "max_completion_length": 6,
        "beta": 0.0,
        **changes,
    }


def build_recipe(model: Path, records: Path, **fields: Any) -> Any:
    from anomalyr1.training.dataset import RowSettings
    from anomalyr1.training.recipe import DataSettings, Recipe

    fields.setdefault("data", DataSettings(records=(str(records),)))
    fields.setdefault("rows", RowSettings(without_hint=1.0, with_reference=0.0))
    return Recipe("a test", "little", model=str(model), **fields)


def run(recipe: Any, out: Path, *, resume: bool = False) -> list[str]:
    """Run a recipe; returns what it said."""
    from anomalyr1.training.run import run_recipe

    said: list[str] = []
    run_recipe(
        recipe,
        out,
        resume=resume,
        num_workers=1,
        follow=lambda items, _label, _total: iter(items),
        say=said.append,
    )
    return said


def read_weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def read_log(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
