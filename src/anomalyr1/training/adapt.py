"""Adapts a checkpoint to one's own part: defects are painted on its normal pictures, the detector's
head is trained further on them, then the language model by GRPO with ROAM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalyr1.data.records import load_records
from anomalyr1.data.synthesis import Synthesis, synthesize, write_splits
from anomalyr1.images import find_images
from anomalyr1.training.dataset import RowSettings
from anomalyr1.training.recipe import DataSettings, HintSettings, Recipe
from anomalyr1.training.run import Follow, run_recipe
from anomalyr1.types import InputError

LEAST_NORMALS = 5
"""Normal pictures: with fewer, a picture's references would be the picture itself."""


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What to adapt to. `normal`: a folder of normal pictures of one product; `defects`: a records
    file with labelled pictures of it, or None. Steps of 0 leave a stage out."""

    normal: Path
    out: Path
    defects: Path | None = None
    model: str = "nano"
    num_products: int = 80
    head_steps: int = 500
    grpo_steps: int = 24
    seed: int = 0


def adapt(
    plan: Adaptation,
    *,
    resume: bool,
    num_workers: int,
    follow: Follow,
    say: Callable[[str], None],
) -> Path:
    """Run all stages and return the checkpoint's folder, which `inspect --model` takes.

    Figures before and after, on painted pictures held out, are in the run's report. Raises
    InputError for fewer than LEAST_NORMALS pictures and for records without a label.
    """
    count = len(find_images([plan.normal]))
    if count < LEAST_NORMALS:
        raise InputError(
            f"{plan.normal} holds {count} pictures: give at least {LEAST_NORMALS} normal ones"
        )
    painted = plan.out / "painted"
    if not (painted / "manifest.json").is_file():
        _paint(plan, painted, num_workers, follow)
    records = [str(painted / "train.jsonl")]
    if plan.defects is not None:
        load_records(plan.defects)  # a fault is found before training
        records.append(str(plan.defects))
    held_out = painted / "val.jsonl"
    recipe = Recipe(
        description=f"{plan.model} adapted to {plan.normal.name}",
        needs="2 CPU cores",
        model=plan.model,
        seed=plan.seed,
        freeze_vision=True,
        data=DataSettings(
            tuple(records), validation=(str(held_out),) if held_out.is_file() else ()
        ),
        rows=RowSettings(without_hint=0.0, with_reference=0.35),
        hint=HintSettings(further=True, num_steps=plan.head_steps, learning_rate=1e-3)
        if plan.head_steps
        else None,
        reward_funcs=("roam_reward", "box_iou_reward"),
        grpo=_grpo(plan.grpo_steps) if plan.grpo_steps else None,
    )
    return run_recipe(
        recipe, plan.out / "run", resume=resume, num_workers=num_workers, follow=follow, say=say
    )


def _paint(plan: Adaptation, out: Path, num_workers: int, follow: Follow) -> None:
    synthesis = Synthesis(
        out, plan.num_products, num_references=4, size=448, seed=plan.seed, normal=plan.normal
    )
    records = []
    for product in follow(
        synthesize(synthesis, num_workers=num_workers), "painting defects", plan.num_products
    ):
        records.extend(product)
    write_splits(synthesis, records)


def _grpo(num_steps: int) -> dict[str, Any]:
    return {
        "max_steps": num_steps,
        "num_generations": 8,
        "per_device_train_batch_size": 64,
        "max_completion_length": 224,
        "reward_weights": [1.0, 0.5],
        "beta": 0.0,
        "loss_type": "dr_grpo",
        "learning_rate": 1e-4,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": 4,
        "max_grad_norm": 0.5,
        "bf16": True,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "logging_steps": 2,
        "save_steps": 100,
        "report_to": "none",
    }
