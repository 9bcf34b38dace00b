"""How well a checkpoint does on rows: verdicts, boxes, the subtasks' questions, contradictions.

The figures before and after a training, and of an ablation. Unread is wrong everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from anomalyr1.checkpoint import Checkpoint
from anomalyr1.data.question_texts import SUBTASKS
from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.evaluation.cases import build_case
from anomalyr1.evaluation.estimates import (
    build_metric,
    estimate_boxes,
    estimate_verdicts,
    estimate_words,
)
from anomalyr1.evaluation.intervals import wilson_interval
from anomalyr1.parsing import parse_choice, parse_inspection
from anomalyr1.rewards import find_contradiction
from anomalyr1.training.dataset import HintedRecord, show
from anomalyr1.types import Completion, Defect, Finding, Metric, Record, Response


@dataclass(frozen=True, slots=True)
class Answered:
    """A row's record with what the model wrote and how it was read; boxes in original pixels."""

    record: Record
    completion: Completion
    response: Response
    contradicts: bool

    @property
    def is_right(self) -> bool:
        """Whether the question was answered rightly."""
        question = self.record.question
        return question is not None and self.response.choice == question.answer is not None


def answer_rows(
    checkpoint: Checkpoint, rows: Sequence[HintedRecord], *, batch_size: int = 16
) -> Iterator[Answered]:
    """Greedy answers of a checkpoint to rows, in their order."""
    engine = TransformersEngine(checkpoint)
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        shown = [show(row, checkpoint.processor, checkpoint.frame) for row in batch]
        completions = engine.generate([one.prompt for one in shown], [one.images for one in shown])
        for row, one, completion in zip(batch, shown, completions, strict=True):
            if row.record.question is not None:
                response = parse_choice(
                    completion.text,
                    row.record.question.options,
                    finish_reason=completion.finish_reason,
                )
            else:
                response = parse_inspection(
                    completion.text,
                    shown_size_wh=one.shown_wh,
                    original_size_wh=one.size_wh,
                    frame=checkpoint.frame,
                    finish_reason=completion.finish_reason,
                )
            yield Answered(
                row.record,
                completion,
                response,
                find_contradiction(response, row.record.question, size_wh=one.size_wh),
            )


def compute_validation(answered: Sequence[Answered], *, seed: int = 0) -> list[Metric]:
    """Metrics of the inspections and of the questions among them, those that are defined.

    `subtask_average` is the mean over the subtasks asked, "Anomaly Detection" being the mean of the
    accuracy on normal and on anomalous pictures, as MMAD has it.
    """
    inspected = [one for one in answered if one.record.question is None]
    asked = [one for one in answered if one.record.question is not None]
    metrics = _inspection_metrics(inspected, seed) if inspected else []
    if asked:
        metrics += _question_metrics(asked, seed)
    contradicting = np.array([one.contradicts for one in answered])
    unread = np.array([one.response.status != "ok" for one in answered])
    return [
        *metrics,
        _share("contradiction_rate", contradicting),
        _share("unread_rate", unread),
    ]


def _inspection_metrics(inspected: Sequence[Answered], seed: int) -> list[Metric]:
    cases = [build_case(one.record, _as_finding(one), lambda _finding: None) for one in inspected]
    estimates = estimate_verdicts(cases, (seed,)) | estimate_boxes(cases, (seed,))
    estimates |= estimate_words(cases, (seed,))
    wanted = (
        "verdict_balanced_accuracy",
        "box_accuracy_iou10",
        "box_accuracy_iou50",
        "box_precision_iou50",
        "label_accuracy",
        "place_accuracy",
    )
    metrics = [build_metric(name, "all", estimates[name]) for name in wanted]
    return [metric for metric in metrics if metric.value is not None]


def _as_finding(one: Answered) -> Finding:
    read = one.response.status == "ok" and one.response.label is not None
    return Finding(
        record_id=one.record.record_id,
        image=str(one.record.image_path),
        verdict=one.response.label if read and one.response.label else "unread",
        reasoning=one.response.reasoning,
        defects=tuple(
            Defect(region.defect_type, region.description, region.box_xyxy)
            for region in one.response.regions
        ),
    )


def _question_metrics(asked: Sequence[Answered], seed: int) -> list[Metric]:
    """Accuracy a subtask, and the subtasks' mean with a bootstrap within subtask and class."""
    cells = _cells(asked)
    rng = np.random.default_rng(seed)
    accuracies = {name: np.mean([part.mean() for part in parts]) for name, parts in cells.items()}
    resampled = {
        name: np.mean([rng.choice(part, (2000, len(part))).mean(axis=1) for part in parts], axis=0)
        for name, parts in cells.items()
    }
    metrics = []
    for name, parts in cells.items():
        low, high = np.percentile(resampled[name], [2.5, 97.5])
        count = sum(len(part) for part in parts)
        metrics.append(
            Metric("accuracy", name, float(accuracies[name]), count, 0, float(low), float(high))
        )
    means = np.mean(list(resampled.values()), axis=0)
    low, high = np.percentile(means, [2.5, 97.5])
    average = float(np.mean(list(accuracies.values())))
    unread = sum(one.response.status != "ok" for one in asked)
    return [
        Metric("subtask_average", "all", average, len(asked), unread, float(low), float(high)),
        *metrics,
    ]


def _cells(asked: Sequence[Answered]) -> dict[str, list[np.ndarray]]:
    """For each subtask, whether answers were right: normal and anomalous apart for detection."""
    cells: dict[str, list[np.ndarray]] = {}
    for subtask in SUBTASKS:
        chosen = [
            one
            for one in asked
            if one.record.question and one.record.question.question_type == subtask
        ]
        labels = ("normal", "anomalous") if subtask == "Anomaly Detection" else (None,)
        parts = [
            np.array([one.is_right for one in chosen if label in (None, one.record.label)])
            for label in labels
        ]
        if all(len(part) for part in parts):
            cells[subtask] = parts
    return cells


def _share(name: str, hits: np.ndarray) -> Metric:
    interval = wilson_interval(int(hits.sum()), len(hits)) or (None, None)
    return Metric(name, "all", float(hits.mean()), len(hits), 0, *interval)
