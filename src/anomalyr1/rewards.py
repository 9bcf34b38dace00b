"""ROAM and the other rewards, in TRL's convention: one number a completion, None without a truth.

Each reward is one function `(completions, solution, **columns)`; docs/method.md defines them.
The truth comes as the column `solution`, which `solutions` writes and checks: a reward trusts it,
never guesses, and hides no error. What the model wrote is read by `parsing` and `reasoning`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from anomalyr1.alignment import (
    compute_box_iou,
    compute_label_share,
    compute_outcome,
    compute_roam,
    find_contradiction,
)
from anomalyr1.parsing import parse_choice, parse_inspection
from anomalyr1.solutions import Solution, read_solution, render_solution
from anomalyr1.types import InputError, Response

__all__ = [
    "REWARDS",
    "Solution",
    "box_iou_reward",
    "find_contradiction",
    "format_reward",
    "label_reward",
    "length_reward",
    "load_rewards",
    "outcome_reward",
    "published_reward",
    "read_solution",
    "render_solution",
    "roam_reward",
]

SOFT_WORDS, HARD_WORDS = 80, 160
"""Words of reasoning up to which `length_reward` is 1, and from which it is 0."""

Completion = str | Sequence[Mapping[str, Any]]
"""A text, or messages whose content is a text or a list of {"type": "text", "text": ...}."""

_SHAPE = re.compile(r"\s*<think>(.*)</think>\s*<answer>(.*)</answer>\s*", re.DOTALL)
_TAG = re.compile(r"</?(?:think|answer)>")


def roam_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """Reasoned Outcome Alignment Metric, in [0, 1]; 0 for an answer that cannot be read.

    For a question: the published table. For an inspection: its continuous extension. Both are
    defined in docs/method.md.

    >>> from pathlib import Path
    >>> from anomalyr1.types import Question, Record
    >>> question = Question("Which defect is it?", {"A": "Scratch", "B": "Dent"}, "B")
    >>> record = Record("7", Path("7.png"), question=question)
    >>> truth = render_solution(record, (64, 48), (64, 48), "absolute")
    >>> text = "<think>So the answer is a dent.</think><answer>B</answer>"
    >>> roam_reward([text], [truth])
    [1.0]
    """
    return _score(completions, solution, compute_roam)


def outcome_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """How right the answer is, in [0, 1], whatever the reasoning; 0 where it cannot be read."""
    return _score(completions, solution, compute_outcome)


def published_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """Outcome plus ROAM, which the published script optimises: in [0, 2], alone of all rewards."""
    return _score(completions, solution, _publish)


def format_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """1 for reasoning and answer in their tags, the answer readable; else 0."""
    return _score(completions, solution, _read)


def box_iou_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """Total IoU of the matched boxes over the larger number of boxes, true or predicted; None
    where no true box is known, as for questions and normal parts."""
    return _score(completions, solution, compute_box_iou)


def label_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """Kinds of defect that are named as often as they occur, over the larger number of defects;
    None where no true defect's kind is known."""
    return _score(completions, solution, compute_label_share)


def length_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """1 for a reasoning of up to `SOFT_WORDS` words, falling as a cosine to 0 at `HARD_WORDS`;
    0 for an answer that cannot be read."""
    return _score(completions, solution, _shorten)


Reward = Callable[..., list[float | None]]

REWARDS: dict[str, Reward] = {
    reward.__name__: reward
    for reward in (
        roam_reward,
        outcome_reward,
        published_reward,
        format_reward,
        box_iou_reward,
        label_reward,
        length_reward,
    )
}
"""Name to reward. TRL logs rewards under these names, so that they are part of the interface."""


def load_rewards(names: Iterable[str]) -> list[Reward]:
    """The rewards of these names, in order. Raises InputError for an unknown name, an empty list
    and a name given twice."""
    names = list(names)
    if not names:
        raise InputError(f"no reward is named: choose from {', '.join(REWARDS)}")
    for index, name in enumerate(names):
        if name not in REWARDS:
            near = get_close_matches(name, REWARDS, 1, cutoff=0.4)
            meant = f"did you mean {near[0]}? " if near else ""
            raise InputError(f"reward {name!r} is unknown: {meant}choose from {', '.join(REWARDS)}")
        if name in names[:index]:
            raise InputError(f"reward {name} is named twice: give it a weight instead")
    return [REWARDS[name] for name in names]


def _score(
    completions: Sequence[Completion],
    solutions: Sequence[str | None],
    score: Callable[[Response | None, Solution], float | None],
) -> list[float | None]:
    rewards: list[float | None] = []
    for completion, written in zip(completions, solutions, strict=True):
        if written is None:
            rewards.append(None)
            continue
        truth = read_solution(written)
        rewards.append(score(_read_answer(_join_text(completion), truth), truth))
    return rewards


def _join_text(completion: Completion) -> str:
    if isinstance(completion, str):
        return completion
    texts: list[str] = []
    for message in completion:
        content = message["content"]
        parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
        texts += [part["text"] for part in parts if part["type"] == "text"]
    return "".join(texts)


def _read_answer(text: str, truth: Solution) -> Response | None:
    """The answer, or None where the text has not the shape asked for or cannot be read."""
    if len(_TAG.findall(text)) != 4 or _SHAPE.fullmatch(text) is None:
        return None
    if truth.kind == "choice":
        response = parse_choice(text, truth.options)
    else:
        assert truth.shown_size_wh is not None and truth.size_wh is not None
        response = parse_inspection(
            text,
            shown_size_wh=truth.shown_size_wh,
            original_size_wh=truth.size_wh,
            frame=truth.frame,
        )
    return response if response.status == "ok" else None


def _publish(response: Response | None, truth: Solution) -> float:
    return compute_outcome(response, truth) + compute_roam(response, truth)


def _read(response: Response | None, truth: Solution) -> float:
    return float(response is not None)


def _shorten(response: Response | None, truth: Solution) -> float:
    if response is None:
        return 0.0
    over = (len(response.reasoning.split()) - SOFT_WORDS) / (HARD_WORDS - SOFT_WORDS)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, max(0.0, over)))
