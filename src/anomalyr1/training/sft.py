"""Supervised training of the language stage through TRL's SFTTrainer."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from anomalyr1.adapters import is_adapted
from anomalyr1.checkpoint import Checkpoint
from anomalyr1.data.wording import DECIDED_BEHIND, FITS_BEST
from anomalyr1.prompts import SCORE_SENTENCES, VERDICT_PROBE
from anomalyr1.training.dataset import HintedRecord, RowSettings, build_row
from anomalyr1.training.judging import build_eval_dataset, judge_while_training
from anomalyr1.training.monitor import RunMonitor, find_last_checkpoint
from anomalyr1.types import InputError


def train_sft(
    checkpoint: Checkpoint,
    rows: Sequence[HintedRecord],
    settings: RowSettings,
    sft: Mapping[str, Any],
    out: Path,
    *,
    seed: int,
    resume: bool,
    judged: Sequence[HintedRecord] = (),
) -> Any:
    """Train in place and return the trainer. `sft` goes unchanged to TRL's SFTConfig; checkpoints
    are kept below `out`, metrics beside it. Where it asks for evaluation, `judged` are answered.

    Where it asks for sequential sampling, the rows are laid out by length first.
    With `resume` the last checkpoint in `out` is continued, optimiser and data order included.
    Raises InputError for settings that do not fit and a loss that is no number, KeyboardInterrupt
    after Ctrl-C, all saved.
    """
    from trl import SFTConfig, SFTTrainer

    arguments = build_arguments(
        SFTConfig, sft, "sft", out, seed, max_length=None, remove_unused_columns=False
    )
    order: Sequence[int] = range(len(rows))
    if arguments.train_sampling_strategy == "sequential":
        batch_size = arguments.per_device_train_batch_size * arguments.world_size
        batch_size *= arguments.gradient_accumulation_steps
        order = order_by_length(rows, settings, batch_size, arguments.max_steps, seed)
    trainer = SFTTrainer(
        model=checkpoint.model,
        args=arguments,
        train_dataset=build_lazy_dataset(
            len(order),
            lambda index: build_row(
                rows[order[index]], checkpoint.processor, checkpoint.frame, settings, seed + index
            ),
        ),
        eval_dataset=build_eval_dataset(arguments, judged),
        processing_class=checkpoint.processor,
    )
    # Qwen-VL models say that their own loss cannot count tokens over processes and accumulated
    # batches, which would make each batch's mean weigh the same; TRL 1.16 computes the loss itself.
    trainer.model_accepts_loss_kwargs = True
    if settings.verdict_weight > 0:
        tokenizer = checkpoint.processor.tokenizer
        texts = [VERDICT_PROBE, *(f"<think>{said} {DECIDED_BEHIND}" for said in SCORE_SENTENCES)]
        *probes, fitting = tokenizer([*texts, f" {FITS_BEST}"], add_special_tokens=False)[
            "input_ids"
        ]
        _weigh_verdicts(trainer, probes, fitting, settings.verdict_weight)
    judge_while_training(trainer, checkpoint, judged)
    continue_training(trainer, checkpoint.model, RunMonitor(out.parent, "sft"), resume)
    return trainer


def _weigh_verdicts(
    trainer: Any, probes: Sequence[Sequence[int]], fitting: Sequence[int], weight: float
) -> None:
    """Add to the loss `weight` times the mean loss of the tokens that decide the verdict."""
    stock = trainer.compute_loss

    def compute_loss(model: Any, inputs: Any, *positional: Any, **settings: Any) -> Any:
        if not model.training:
            return stock(model, inputs, *positional, **settings)
        # Asked for its outputs, TRL 1.16 runs the model once more.
        outputs: list[Any] = []
        watch = model.register_forward_hook(lambda *called: outputs.append(called[-1]))
        try:
            loss = stock(model, inputs, *positional, **settings)
        finally:
            watch.remove()
        losses = -outputs[-1].log_probs[find_verdicts(inputs["labels"], probes, fitting)[:, 1:]]
        return loss + weight * losses.sum() / max(1, len(losses))

    trainer.compute_loss = compute_loss


def find_verdicts(labels: Any, probes: Sequence[Sequence[int]], fitting: Sequence[int]) -> Any:
    """Where, in labels (N, T) that are -100 up to the answer, the token stands that follows the one
    of the `probes` that begins it, or follows `fitting` wherever that stands: bool (N, T)."""
    import torch

    found = torch.zeros_like(labels, dtype=torch.bool)
    for row, answer in enumerate(labels):
        start = int((answer != -100).int().argmax())
        for probe in probes:
            stop = start + len(probe)
            if answer[start:stop].tolist() == list(probe) and stop < len(answer):
                found[row, stop] = True
    length = len(fitting)
    if length < labels.shape[1]:
        sought = torch.tensor(list(fitting), device=labels.device)
        found[:, length:] |= (labels.unfold(1, length, 1)[:, :-1] == sought).all(dim=-1)
    return found


def build_arguments(
    kind: Any, table: Mapping[str, Any], name: str, out: Path, seed: int, **fixed: Any
) -> Any:
    """A recipe's table as TRL's config. Raises InputError for a key or value it does not take."""
    known = [entry.name for entry in fields(kind) if entry.init]
    for key in table:
        if key in ("output_dir", "seed", *fixed):
            raise InputError(f"[{name}] sets {key}, which the run sets itself: leave it out")
        if key not in known:
            near = get_close_matches(key, known, 1)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise InputError(f"[{name}] has an unknown key {key!r} of {kind.__name__}{hint}")
    try:
        return kind(output_dir=str(out), seed=seed, **fixed, **table)
    except (TypeError, ValueError, ImportError) as error:
        raise InputError(f"[{name}] does not fit {kind.__name__}: {error}") from error


def continue_training(trainer: Any, model: Any, monitor: RunMonitor, resume: bool) -> None:
    """Train under a monitor, from the last whole checkpoint with `resume`."""
    if not is_adapted(model):
        # Trainer (transformers 5.23) reads a checkpoint's tensors under their published names,
        # which are not this model's own, warns of missing keys and goes on with untrained weights.
        trainer._load_from_checkpoint = lambda folder, _model=None: load_weights(
            model, Path(folder)
        )
        trainer._load_best_model = lambda: load_weights(
            model, Path(trainer.state.best_model_checkpoint)
        )
    last = find_last_checkpoint(Path(trainer.args.output_dir)) if resume else None
    monitor.watch(trainer)
    try:
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    except (OSError, RuntimeError, SafetensorError) as error:
        if not _is_disk_full(error):
            raise
        last = find_last_checkpoint(Path(trainer.args.output_dir))
        kept = f"the last whole checkpoint is {last}" if last else "no checkpoint is whole"
        raise InputError(
            f"the disk of {trainer.args.output_dir} is full ({error}); {kept}: free some space, or "
            "set save_total_limit, and run with --resume"
        ) from error
    if monitor.stopped:
        raise KeyboardInterrupt


def _is_disk_full(error: BaseException) -> bool:
    """Whether something could not be written for want of space; safetensors tells it in words."""
    full = (errno.ENOSPC, errno.EDQUOT)
    words = ("No space left", "Disk quota exceeded", "PytorchStreamWriter failed writing")
    return getattr(error, "errno", None) in full or any(word in str(error) for word in words)


def load_weights(model: Any, folder: Path) -> None:
    """Load a checkpoint's weights into a model of its kind, every key of which must be there."""
    import torch

    saved = type(model).from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
    model.load_state_dict(saved.state_dict())


def build_lazy_dataset(num_rows: int, build: Callable[[int], dict[str, Any]]) -> Any:
    """A datasets.Dataset of `build(index)`, whose pictures are read when a row is asked for."""
    from datasets import Dataset

    def build_batch(batch: Mapping[str, list[int]]) -> dict[str, list[Any]]:
        # GRPO asks for a row once a generation: its pictures are read once.
        built = {index: build(index) for index in dict.fromkeys(batch["row"])}
        names = built[batch["row"][0]]
        return {name: [built[index][name] for index in batch["row"]] for name in names}

    return Dataset.from_dict({"row": list(range(num_rows))}).with_transform(build_batch)


def order_by_length(
    rows: Sequence[HintedRecord], settings: RowSettings, batch_size: int, num_steps: int, seed: int
) -> list[int]:
    """The rows' numbers for `num_steps` batches, shuffled anew each epoch, each batch of about one
    length.

    Padding is a third of the cost otherwise. The whole order is laid out at once, so that a
    resumed run sees what one that was not stopped would have seen.
    """
    lengths = np.array(
        [
            90 * (row.hint_path is not None)
            + 60 * row.num_references
            + 50 * min(len(row.record.regions), settings.max_boxes)
            - 40 * (row.record.question is not None)
            for row in rows
        ]
    )
    rng = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < num_steps * batch_size:
        by_length = np.argsort(lengths + rng.uniform(0, 40, len(rows)))
        batches = [
            by_length[start : start + batch_size]
            for start in range(0, len(rows) - batch_size + 1, batch_size)
        ]
        for number in rng.permutation(len(batches)):
            order += batches[number].tolist()
    return order[: num_steps * batch_size]
