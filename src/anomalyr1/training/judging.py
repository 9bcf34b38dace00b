"""Answers to held-out rows while a model is trained, at the steps that the recipe's eval_strategy
names: what a validation is worth is what `inspect` will be worth, not a loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from anomalyr1.checkpoint import Checkpoint
from anomalyr1.training.dataset import HintedRecord
from anomalyr1.training.validation import Answered, answer_rows, compute_validation
from anomalyr1.types import InputError, Metric


def build_eval_dataset(arguments: Any, judged: Sequence[HintedRecord]) -> Any:
    """What a trainer wants to see before it evaluates; None where it is not to.

    Raises InputError where evaluation is asked for without rows.
    """
    if arguments.eval_strategy == "no":
        return None
    if not judged:
        raise InputError(
            f"eval_strategy is {arguments.eval_strategy.value!r}, but there is nothing to judge: "
            "set data.validation to records files"
        )
    from datasets import Dataset

    return Dataset.from_dict({"row": list(range(len(judged)))})


def judge_while_training(
    trainer: Any, checkpoint: Checkpoint, judged: Sequence[HintedRecord]
) -> None:
    """Let a trainer's evaluation answer held-out rows greedily.

    Metrics are named `eval_<metric>`, a subtask's accuracy `eval_accuracy_<subtask>`, so that
    `metric_for_best_model = "verdict_balanced_accuracy"` with `load_best_model_at_end` keeps the
    best checkpoint.
    """

    def evaluate(*_arguments: Any, **_named: Any) -> dict[str, float]:
        metrics = {
            _name(metric): metric.value
            for metric in judge(trainer, checkpoint, judged)
            if metric.value is not None
        }
        trainer.log(metrics)
        trainer.control = trainer.callback_handler.on_evaluate(
            trainer.args, trainer.state, trainer.control, metrics
        )
        return metrics

    trainer.evaluate = evaluate


def judge(trainer: Any, checkpoint: Checkpoint, judged: Sequence[HintedRecord]) -> list[Metric]:
    """Metrics of a trainer's model as it stands; rows are shared among its processes."""
    import torch
    from accelerate.utils import gather_object
    from trl.models.utils import unwrap_model_for_generation

    index, count = trainer.args.process_index, trainer.args.world_size
    # Every process answers as many rows: sharded models compute together.
    share = -(-len(judged) // count)
    own = [(index + turn * count) % len(judged) for turn in range(share)]
    was_training = trainer.model.training
    # What is drawn here must not change what training draws next.
    with (
        torch.random.fork_rng(),
        unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
    ):
        model.eval()
        shown = replace(checkpoint, model=model)
        answered = list(answer_rows(shown, [judged[row] for row in own]))
    trainer.model.train(was_training)
    pairs: list[tuple[int, Answered]] = gather_object(list(zip(own, answered, strict=True)))
    whole = dict(pairs)
    return compute_validation([whole[row] for row in range(len(judged))])


def _name(metric: Metric) -> str:
    suffix = "" if metric.subset == "all" else f"_{metric.subset.lower().replace(' ', '_')}"
    return f"eval_{metric.name}{suffix}"
