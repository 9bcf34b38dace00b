"""From reviewed corrections to a candidate and its evaluation. A person promotes it, or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from anomalyr1.data.corrections import lay_out_lessons
from anomalyr1.data.records import load_records, write_records
from anomalyr1.server.comparison import Follow, compare_models
from anomalyr1.server.exports import export_reviewed, load_reviewed
from anomalyr1.server.promotions import current_model, record_evaluation
from anomalyr1.server.store import Store
from anomalyr1.types import InputError

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True, slots=True)
class Course:
    """How a candidate is made. `model`: what training starts from, None the station's own.
    `split_seed` chooses the held-out pictures: one seed for the life of a store, or else a later
    candidate is measured on what an earlier one learned."""

    out: Path
    model: str | None = None
    num_designs: int = field(kw_only=True)
    head_steps: int = field(kw_only=True)
    grpo_steps: int = field(kw_only=True)
    seed: int = 0
    split_seed: int = 0


def adapt_from_store(
    store: Store,
    course: Course,
    *,
    resume: bool,
    num_workers: int,
    follow: Follow,
    say: Callable[[str], None],
) -> tuple[Path, dict[str, Any]]:
    """Train on reviewed pictures, then measure beside the station's model on those held out.

    Returns the candidate's folder and the comparison, which is also in `comparison.json` and in
    the store. `corrections/` below the folder keeps what was reviewed, as it was at the beginning:
    a run that is resumed does not see later reviews. Raises InputError where nothing is reviewed
    or nothing of it is held out.
    """
    from anomalyr1.training.adapt import Adaptation, adapt

    exported = course.out / "corrections"
    if not (exported / "test.jsonl").is_file():
        if not resume and course.out.exists() and any(course.out.iterdir()):
            raise InputError(f"{course.out} is not empty: name a new folder with --out")
        export_reviewed(store, exported, seed=course.split_seed)
    held_out = _load(exported / "test.jsonl")
    if not held_out:
        raise InputError(
            "no reviewed picture is held out yet: review more, about one in five will be"
        )
    lessons = lay_out_lessons(_load(exported / "train.jsonl"), held_out, course.out)
    for note in lessons.notes:
        say(note)
    labelled = course.out / "lessons.jsonl"
    write_records(labelled, lessons.records)
    plan = Adaptation(
        lessons.products,
        course.out,
        labelled if lessons.records else None,
        course.model or current_model(store),
        num_designs=course.num_designs,
        head_steps=course.head_steps,
        grpo_steps=course.grpo_steps,
        seed=course.seed,
    )
    folder = adapt(plan, resume=resume, num_workers=num_workers, follow=follow, say=say)
    comparison = compare_models(
        store, str(folder), held_out, split_seed=course.split_seed, follow=follow
    )
    _keep(store, comparison, course.out / COMPARISON_FILE)
    return folder, comparison


def evaluate_candidate(
    store: Store, candidate: str, *, split_seed: int = 0, follow: Follow, out: Path | None = None
) -> dict[str, Any]:
    """Measure any checkpoint beside the station's model on what is held out today, and keep it.

    That the checkpoint was not trained on those pictures is known only of `adapt_from_store`'s.
    """
    records = load_reviewed(store, seed=split_seed)
    comparison = compare_models(store, candidate, records, split_seed=split_seed, follow=follow)
    _keep(store, comparison, out)
    return comparison


def _load(path: Path) -> list[Any]:
    return list(load_records(path)) if path.stat().st_size else []


def _keep(store: Store, comparison: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(comparison, indent=2) + "\n", encoding="utf-8")
    record_evaluation(store, comparison)
