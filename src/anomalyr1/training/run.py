"""Runs a recipe: records, hint, dense stage, language stage, checkpoint. Each stage resumes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from anomalyr1.checkpoint import (
    Checkpoint,
    find_hint_folder,
    load_checkpoint,
    save_checkpoint,
)
from anomalyr1.data.records import join_records, load_records
from anomalyr1.detectors.patch_memory import REGIONS_NAME
from anomalyr1.reporting.environment import describe_environment
from anomalyr1.reporting.training import write_training_report
from anomalyr1.training.dataset import ChosenRows, HintedRecord, write_hints
from anomalyr1.training.limits import check_prompts
from anomalyr1.training.processes import (
    describe_training,
    gather_checkpoint,
    start_processes,
    uses_cpu,
)
from anomalyr1.training.recipe import (
    HintSettings,
    Recipe,
    RegionSettings,
    SeeSettings,
    check_rewards,
    check_vllm,
)
from anomalyr1.types import InputError, Record

Follow = Callable[[Iterable[Any], str, int], Iterator[Any]]
"""Shows progress: items, label, total."""


def run_recipe(
    recipe: Recipe,
    out: Path,
    *,
    resume: bool,
    num_workers: int,
    follow: Follow,
    say: Callable[[str], None],
) -> Path:
    """Run all stages of a recipe and return the folder of what was trained.

    Started by torchrun or accelerate launch, all processes train together; the first alone writes
    what is beside the trainers' own files, so that the run folder must be one that all can read.
    """
    check_rewards(recipe)
    check_vllm(recipe)
    processes = start_processes(uses_cpu(recipe))
    if processes.is_first:
        if out.exists() and any(out.iterdir()) and not resume:
            raise InputError(f"{out} is not empty: give --resume to continue, or another --out")
        _write_settings(recipe, out, processes.count, say)
    processes.wait()
    records = _load_training_records(recipe)
    say(f"{len(records)} records")
    hint_folder = find_hint_folder(recipe.model)
    if recipe.hint is not None or recipe.regions is not None:
        if processes.is_first:
            _train_detector(recipe, records, out / "hint", num_workers, follow)
        processes.wait()
        hint_folder = out / "hint"
        if recipe.model == "new" and recipe.see is None and recipe.sft is None:
            return hint_folder
    if processes.is_first:
        _write_hints(recipe, records, hint_folder, out / "hints", num_workers, follow)
    held_out = _load_records(recipe.data.validation, recipe.data.validation_limit)
    if processes.is_first:
        _write_hints(recipe, held_out, hint_folder, out / "validation_hints", num_workers, follow)
    processes.wait()
    rows = _build_rows(recipe, records, out / "hints", recipe.rows.variants)
    judged = _build_rows(recipe, held_out, out / "validation_hints")
    checkpoint = _start(recipe, out)
    if recipe.max_prompt_tokens is not None:
        longest = check_prompts(rows, checkpoint, recipe.max_prompt_tokens, follow)
        say(f"the longest prompt has {longest} tokens")
    if recipe.see is not None:
        if processes.is_first:
            _train_vision(recipe.see, checkpoint, rows, out / "see", recipe.seed, follow)
        processes.wait()
        _train_vision(recipe.see, checkpoint, rows, out / "see", recipe.seed, follow)
    checkpoint.model.model.visual.requires_grad_(not recipe.freeze_vision)
    if recipe.lora is not None:
        if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
            raise InputError("adapters are trained with DDP or ZeRO-2, not with sharded weights")
        checkpoint = _add_lora(checkpoint, recipe.lora)
    if processes.is_first:
        _validate(checkpoint, judged, out / "before.json", follow)
    processes.wait()
    trainer = _train_language(recipe, checkpoint, rows, judged, out, resume, say)
    whole = gather_checkpoint(trainer, checkpoint)
    if processes.is_first and whole is not None:
        _validate(whole, judged, out / "after.json", follow)
        import torch

        # Weights are published in half the size; float32 is only needed while they are trained.
        whole.model.to(torch.bfloat16)
        save_checkpoint(whole, out / "checkpoint")
        if hint_folder != find_hint_folder("nano"):
            shutil.copytree(hint_folder, out / "checkpoint" / "hint", dirs_exist_ok=True)
        say(f"report: {write_training_report(out)}")
    processes.wait()
    return out / "checkpoint"


def _write_settings(
    recipe: Recipe, out: Path, num_processes: int, say: Callable[[str], None]
) -> None:
    """Write what the run is made with; of one that goes on, say what is no longer as it was."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "config.json"
    settings = json.loads(json.dumps(asdict(recipe)))
    if path.is_file():
        before = json.loads(path.read_text())
        changed = sorted(key for key in settings if before.get(key) != settings[key])
        if changed:
            say(f"goes on with other settings than it began with: {', '.join(changed)}")
    path.write_text(json.dumps(settings, indent=2) + "\n")
    environment = {**describe_environment(), **describe_training(num_processes)}
    (out / "environment.json").write_text(json.dumps(environment, indent=2) + "\n")


def _write_hints(
    recipe: Recipe,
    records: Sequence[Record],
    hint_folder: Path,
    hints: Path,
    num_workers: int,
    follow: Follow,
) -> None:
    """The detector looks first where some rows are to show its hint."""
    if recipe.rows.without_hint >= 1.0 or not records:
        return
    written = write_hints(records, hint_folder, hints, seed=recipe.seed, num_workers=num_workers)
    for _path in follow(written, "the detector looks", len(records)):
        pass


def _build_rows(
    recipe: Recipe, records: Sequence[Record], hints: Path, variants: int = 1
) -> Sequence[HintedRecord]:
    seen = hints if recipe.rows.without_hint < 1.0 and records else None
    return ChosenRows(records, seen, recipe.rows, recipe.seed, variants=variants)


def _train_language(
    recipe: Recipe,
    checkpoint: Checkpoint,
    rows: Sequence[HintedRecord],
    judged: Sequence[HintedRecord],
    out: Path,
    resume: bool,
    say: Callable[[str], None],
) -> Any:
    """Run the language stages; returns the last trainer, None where there is none."""
    trainer = None
    if recipe.sft is not None:
        from anomalyr1.training.sft import train_sft

        trainer = train_sft(
            checkpoint,
            rows,
            recipe.rows,
            recipe.sft,
            out / "sft",
            seed=recipe.seed,
            resume=resume,
            judged=judged,
        )
    if recipe.grpo is not None:
        from anomalyr1.training.grpo import train_grpo

        trainer = train_grpo(
            checkpoint,
            rows,
            recipe.reward_funcs,
            recipe.grpo,
            out / "grpo",
            seed=recipe.seed,
            resume=resume,
            say=say,
            resample=recipe.resample_equal_groups,
            judged=judged,
        )
    return trainer


def _validate(
    checkpoint: Checkpoint, rows: Sequence[HintedRecord], path: Path, follow: Follow
) -> None:
    """Write the figures of held-out rows, where there are any and they are not there yet."""
    if not rows or path.is_file():
        return
    from anomalyr1.training.validation import answer_rows, compute_validation

    checkpoint.model.eval()
    answered = list(follow(answer_rows(checkpoint, rows), f"held-out, {path.stem}", len(rows)))
    metrics = [asdict(metric) for metric in compute_validation(answered)]
    path.write_text(json.dumps(metrics, indent=2) + "\n")


def _add_lora(checkpoint: Checkpoint, lora: Mapping[str, Any]) -> Checkpoint:
    from peft import LoraConfig, get_peft_model

    try:
        settings = LoraConfig(**lora)
    except TypeError as error:
        raise InputError(f"[lora] does not fit PEFT's LoraConfig: {error}") from error
    return replace(checkpoint, model=get_peft_model(checkpoint.model, settings))


def _load_training_records(recipe: Recipe) -> Sequence[Record]:
    if not recipe.data.records:
        raise InputError("the recipe has no data: set data.records to records files")
    return _load_records(recipe.data.records, recipe.data.limit)


def _load_records(names: Sequence[str], limit: int | None) -> Sequence[Record]:
    """The first `limit` records of each file; all of them need a label."""
    records = join_records([load_records(Path(name), limit=limit) for name in names])
    for record in records:
        if record.label is None and record.question is None:
            raise InputError(f"record {record.record_id} has no label, so nothing can be learned")
    return records


def _start(recipe: Recipe, out: Path) -> Checkpoint:
    if recipe.model == "new":
        from anomalyr1.training.nano import NanoShape, build_nano

        return build_nano(NanoShape(), recipe.seed)
    checkpoint = replace(load_checkpoint(recipe.model, dtype=recipe.dtype), name=str(out))
    if recipe.max_picture_pixels is not None:
        size = checkpoint.processor.image_processor.size
        size["longest_edge"] = recipe.max_picture_pixels
        size["shortest_edge"] = min(size["shortest_edge"], recipe.max_picture_pixels)
    return checkpoint


def _train_vision(
    settings: SeeSettings,
    checkpoint: Checkpoint,
    rows: Sequence[HintedRecord],
    out: Path,
    seed: int,
    follow: Follow,
) -> None:
    """Train the vision tower, or load it when an earlier run finished this stage."""
    from safetensors.torch import load_model, save_model

    from anomalyr1.training.see import train_vision

    path = out / "vision.safetensors"
    tower = checkpoint.model.model.visual
    if path.is_file():
        load_model(tower, path)
        return
    out.mkdir(exist_ok=True)
    steps = train_vision(
        checkpoint.model,
        checkpoint.processor,
        rows,
        seed=seed,
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
    )
    with (out / "losses.jsonl").open("w") as log:
        for step, losses in follow(steps, "learning to see", settings.num_steps):
            if step % 20 == 0:
                log.write(json.dumps({"step": step, **losses}) + "\n")
                log.flush()
    save_model(tower, str(path))


def _train_detector(
    recipe: Recipe, records: Sequence[Record], out: Path, num_workers: int, follow: Follow
) -> None:
    """Train the hint's head, what reads the map's regions, or both, and keep what an earlier run
    finished; what is not trained is the model's own."""
    own = find_hint_folder(recipe.model)
    if recipe.hint is not None:
        _train_hint(recipe, recipe.hint, records, out, num_workers, follow)
    else:
        others = shutil.ignore_patterns(REGIONS_NAME)
        shutil.copytree(own, out, ignore=others, dirs_exist_ok=True)
    if recipe.regions is not None:
        _train_regions(recipe, recipe.regions, records, out, num_workers, follow)
    elif recipe.hint is not None and recipe.hint.further and (own / REGIONS_NAME).is_file():
        shutil.copyfile(own / REGIONS_NAME, out / REGIONS_NAME)


def _train_hint(
    recipe: Recipe,
    settings: HintSettings,
    records: Sequence[Record],
    out: Path,
    num_workers: int,
    follow: Follow,
) -> None:
    """Train the hint's head, or keep it when an earlier run finished this stage."""
    from anomalyr1.training.hint import (
        export_head,
        load_head,
        train_head,
        write_backbone,
        write_samples,
    )

    if (out / "head.onnx").is_file():
        return
    out.mkdir(exist_ok=True)
    backbone, start = out / "backbone.onnx", None
    if settings.further:
        own = find_hint_folder(recipe.model)
        shutil.copyfile(own / "backbone.onnx", backbone)
        start = load_head(own / "head.onnx")
    elif not backbone.is_file():
        every = max(1, len(records) // settings.num_pictures_to_standardise)
        write_backbone(records[::every], backbone)
    kept = out / "samples"
    written = write_samples(records, backbone, kept, seed=recipe.seed, num_workers=num_workers)
    samples = list(follow(written, "features", len(records)))
    steps = train_head(
        samples,
        seed=recipe.seed,
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        start=start,
    )
    followed = follow(steps, "training the head", settings.num_steps)
    head = _finish(followed, out / "losses.jsonl")
    shutil.rmtree(kept)
    made = {**asdict(settings), "seed": recipe.seed, "n": len(samples)}
    export_head(head, out / "head.onnx", made)


def _train_regions(
    recipe: Recipe,
    settings: RegionSettings,
    records: Sequence[Record],
    out: Path,
    num_workers: int,
    follow: Follow,
) -> None:
    """Train what reads the map's regions, or keep it when an earlier run finished this stage."""
    from anomalyr1.training.regions import export_regions, train_regions, view_products

    path = out / REGIONS_NAME
    if path.is_file():
        return
    viewed = view_products(records, out, seed=recipe.seed, num_workers=num_workers)
    total = len({record.image_path.parent for record in records})
    lessons = [lesson for product in follow(viewed, "regions", total) for lesson in product]
    if not lessons:
        raise InputError("the map has no region in any picture of the records: nothing to learn")
    steps = train_regions(
        lessons,
        seed=recipe.seed,
        num_steps=settings.num_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
    )
    followed = follow(steps, "training on regions", settings.num_steps)
    net = _finish(followed, out / "region_losses.jsonl")
    export_regions(net, path)


def _finish(steps: Iterable[tuple[int, float, Any]], path: Path) -> Any:
    """The network after its last step; the mean loss of each 50 steps is written to `path`."""
    losses: list[float] = []
    trained = None
    with path.open("w") as log:
        for step, loss, network in steps:
            trained = network
            losses.append(loss)
            if step % 50 == 0:
                log.write(json.dumps({"step": step, "loss": float(np.mean(losses[-50:]))}) + "\n")
                log.flush()
    return trained
