"""Adapts a checkpoint to one's own parts: defects are painted on their normal pictures, the
detector's head is trained further on them and on labelled pictures, then the language model by
GRPO with ROAM.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from anomalyr1.data.corrections import LEAST_NORMALS, NormalProduct, mark_defects
from anomalyr1.data.records import load_records, write_records
from anomalyr1.data.synthesis import Synthesis, synthesize, write_splits
from anomalyr1.images import find_images
from anomalyr1.training.dataset import RowSettings
from anomalyr1.training.recipe import DataSettings, HintSettings, Recipe
from anomalyr1.training.run import Follow, run_recipe
from anomalyr1.types import InputError

_LEAST_DESIGNS = 8


@dataclass(frozen=True, slots=True)
class Adaptation:
    """What to adapt to: products with their normal pictures, and `labelled`, a records file with
    pictures of them, or None. `num_designs` groups of painted pictures are shared among the
    products. Steps of 0 leave a stage out."""

    products: tuple[NormalProduct, ...]
    out: Path
    labelled: Path | None = None
    model: str = "nano"
    num_designs: int = field(kw_only=True)
    head_steps: int = field(kw_only=True)
    grpo_steps: int = field(kw_only=True)
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
    InputError for a product with fewer than LEAST_NORMALS pictures, for records without a label,
    and where there is nothing to learn from.
    """
    for product in plan.products:
        count = len(find_images([product.folder]))
        if count < LEAST_NORMALS:
            raise InputError(
                f"{product.folder} holds {count} pictures: give at least {LEAST_NORMALS} normal"
                " ones"
            )
    records = []
    if plan.labelled is not None:  # a fault is found before anything is painted
        records.append(_prepare_labelled(plan.labelled, plan.out, say))
    painted = [_paint(plan, product, num_workers, follow) for product in plan.products]
    records = [folder / "train.jsonl" for folder in painted] + records
    if not records:
        raise InputError("there is nothing to learn from: give normal pictures or labelled records")
    held_out = [folder / "val.jsonl" for folder in painted]
    names = ", ".join(product.name for product in plan.products)
    recipe = Recipe(
        description=f"{plan.model} adapted to {names or plan.labelled}",
        needs="2 CPU cores",
        model=plan.model,
        seed=plan.seed,
        freeze_vision=True,
        data=DataSettings(
            tuple(map(str, records)),
            validation=tuple(str(path) for path in held_out if path.is_file()),
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


def _prepare_labelled(path: Path, out: Path, say: Callable[[str], None]) -> Path:
    """The records with a mask for every defect: the detector's head learns from masks alone."""
    marked, num_unmarked = mark_defects(load_records(path), out / "masks")
    if num_unmarked:
        say(f"{num_unmarked} anomalous records have neither mask nor box and are left out")
    prepared = out / "labelled.jsonl"
    write_records(prepared, marked)
    return prepared


def _paint(plan: Adaptation, product: NormalProduct, num_workers: int, follow: Follow) -> Path:
    """Paint defects on a product's pictures, where that is not done; returns the folder."""
    out = plan.out / "painted" / product.folder.name
    if (out / "manifest.json").is_file():
        return out
    count = max(_LEAST_DESIGNS, plan.num_designs // len(plan.products))
    count = min(count, plan.num_designs)
    synthesis = Synthesis(
        out, count, num_references=4, size=448, seed=plan.seed, normal=product.folder
    )
    made = synthesize(synthesis, num_workers=num_workers)
    write_splits(
        synthesis,
        [
            replace(record, category=product.name, knowledge=product.knowledge)
            for records in follow(made, f"painting defects on {product.name}", count)
            for record in records
        ],
    )
    return out


def _grpo(num_steps: int) -> dict[str, Any]:
    return {
        "max_steps": num_steps,
        "num_generations": 8,
        "per_device_train_batch_size": 64,
        "max_completion_length": 224,
        "reward_weights": [1.0, 0.5],
        "beta": 0.0,
        "loss_type": "dr_grpo",
        "learning_rate": 3e-5,
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
