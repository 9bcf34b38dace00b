"""Supervised training of the language stage through TRL's SFTTrainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from anomalyr1.adapters import is_adapted
from anomalyr1.checkpoint import Checkpoint
from anomalyr1.training.dataset import HintedRecord, RowSettings, build_row
from anomalyr1.training.monitor import RunMonitor, find_last_checkpoint


def train_sft(
    checkpoint: Checkpoint,
    rows: Sequence[HintedRecord],
    settings: RowSettings,
    sft: Mapping[str, Any],
    out: Path,
    *,
    seed: int,
    resume: bool,
) -> None:
    """Train in place. `sft` goes unchanged to TRL's SFTConfig; checkpoints are kept below `out`,
    metrics beside it.

    Where it asks for sequential sampling, the rows are laid out by length first.
    With `resume` the last checkpoint in `out` is continued, optimiser and data order included.
    Raises InputError for a loss that is no number, KeyboardInterrupt after Ctrl-C, all saved.
    """
    from trl import SFTConfig, SFTTrainer

    arguments = SFTConfig(
        output_dir=str(out),
        seed=seed,
        max_length=None,
        remove_unused_columns=False,
        **sft,
    )
    if arguments.train_sampling_strategy == "sequential":
        batch_size = arguments.per_device_train_batch_size
        rows = order_by_length(rows, settings, batch_size, arguments.max_steps, seed)
    trainer = SFTTrainer(
        model=checkpoint.model,
        args=arguments,
        train_dataset=build_lazy_dataset(
            len(rows),
            lambda index: build_row(
                rows[index], checkpoint.processor, checkpoint.frame, settings, seed + index
            ),
        ),
        processing_class=checkpoint.processor,
    )
    continue_training(trainer, checkpoint.model, RunMonitor(out.parent, "sft"), resume)


def continue_training(trainer: Any, model: Any, monitor: RunMonitor, resume: bool) -> None:
    """Train under a monitor, from the last whole checkpoint with `resume`."""
    if not is_adapted(model):
        # Trainer (transformers 5.23) reads a checkpoint's tensors under their published names,
        # which are not this model's own, warns of missing keys and goes on with untrained weights.
        trainer._load_from_checkpoint = lambda folder, _model=None: load_weights(
            model, Path(folder)
        )
    last = find_last_checkpoint(Path(trainer.args.output_dir)) if resume else None
    monitor.watch(trainer)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    if monitor.stopped:
        raise KeyboardInterrupt


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
) -> list[HintedRecord]:
    """Rows for `num_steps` batches, shuffled anew each epoch, each batch of about one length.

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
    order: list[HintedRecord] = []
    while len(order) < num_steps * batch_size:
        by_length = np.argsort(lengths + rng.uniform(0, 40, len(rows)))
        batches = [
            by_length[start : start + batch_size]
            for start in range(0, len(rows) - batch_size + 1, batch_size)
        ]
        for number in rng.permutation(len(batches)):
            order += [rows[index] for index in batches[number]]
    return order[: num_steps * batch_size]
