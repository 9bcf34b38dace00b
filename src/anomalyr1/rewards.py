"""ROAM and the other rewards, in TRL's convention: one number a completion, None without a truth.

Each reward is one function `(completions, solution, **columns)`; docs/method.md defines them.
The truth comes as the column `solution`, which `solutions` writes and checks: a reward trusts it,
never guesses, and hides no error. What the model wrote is read by `parsing` and `reasoning`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from anomalyr1.geometry import box_intersection, grid_words, match_boxes
from anomalyr1.parsing import parse_choice, parse_inspection
from anomalyr1.reasoning import (
    conclude_choice,
    conclude_verdict,
    find_kinds,
    find_places,
    name_kind,
)
from anomalyr1.solutions import Solution, read_solution, render_solution
from anomalyr1.types import InputError, Question, Response

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
    >>> from anomalyr1.types import Record
    >>> question = Question("Which defect is it?", {"A": "Scratch", "B": "Dent"}, "B")
    >>> record = Record("7", Path("7.png"), question=question)
    >>> truth = render_solution(record, (64, 48), (64, 48), "absolute")
    >>> text = "<think>So the answer is a dent.</think><answer>B</answer>"
    >>> roam_reward([text], [truth])
    [1.0]
    """
    return _score(completions, solution, _roam)


def outcome_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """How right the answer is, in [0, 1], whatever the reasoning; 0 where it cannot be read."""
    return _score(completions, solution, _outcome)


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
    return _score(completions, solution, _localise)


def label_reward(
    completions: Sequence[Completion], solution: Sequence[str | None], **columns: Any
) -> list[float | None]:
    """Kinds of defect that are named as often as they occur, over the larger number of defects;
    None where no true defect's kind is known."""
    return _score(completions, solution, _classify)


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


def find_contradiction(response: Response, question: Question | None = None) -> bool:
    """Whether the reasoning of a read answer concludes another option, or the other verdict.

    Without a `question` the answer is an inspection's. A reasoning that concludes nothing and an
    answer that could not be read contradict nothing.

    >>> find_contradiction(Response("ok", "So the part is normal.", label="anomalous"))
    True
    """
    if response.status != "ok":
        return False
    if question is None:
        return conclude_verdict(response.reasoning) not in (None, response.label)
    return conclude_choice(response.reasoning, question.options) not in (None, response.choice)


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


def _roam(response: Response | None, truth: Solution) -> float:
    if response is None:
        return 0.0
    outcome = _outcome(response, truth)
    if truth.kind == "choice":
        concluded: str | None = conclude_choice(response.reasoning, truth.options)
        answered, detail = response.choice, 1.0
    else:
        concluded = conclude_verdict(response.reasoning)
        answered, detail = response.label, _detail(response, truth)
    if concluded is None:
        return 0.05 + 0.75 * outcome
    if concluded != answered:
        return 0.0
    return 0.1 + 0.9 * outcome - 0.2 * outcome * (1 - detail)


def _outcome(response: Response | None, truth: Solution) -> float:
    if response is None:
        return 0.0
    if truth.kind == "choice":
        return float(response.choice == truth.letter)
    if response.label != truth.label:
        return 0.0
    marked = _localise(response, truth)
    if marked is None:
        return 1.0
    kinds = _classify(response, truth)
    if kinds is not None:
        marked = (2 * marked + kinds) / 3
    return 0.5 + 0.5 * marked


def _publish(response: Response | None, truth: Solution) -> float:
    return _outcome(response, truth) + _roam(response, truth)


def _localise(response: Response | None, truth: Solution) -> float | None:
    if not truth.regions:
        return None
    if response is None:
        return 0.0
    predicted = [region.box_xyxy for region in response.regions]
    true = [region.box_xyxy for region in truth.regions]
    total = math.fsum(overlap for _row, _column, overlap in match_boxes(predicted, true))
    return total / max(len(predicted), len(true))


def _classify(response: Response | None, truth: Solution) -> float | None:
    """Defects whose kind is unknown are left out of the larger number; None if all are."""
    true = Counter(kind for region in truth.regions if (kind := name_kind(region.defect_type)))
    if not true:
        return None
    if response is None:
        return 0.0
    named = Counter(name_kind(region.defect_type) for region in response.regions)
    unknown = len(truth.regions) - true.total()
    return (true & named).total() / max(true.total(), len(response.regions) - unknown)


def _detail(response: Response, truth: Solution) -> float:
    """How well the reasoning's kinds and places fit the truth and the answer, in [1/3, 1]; its
    verdict is right. 1 where no kind and no place is known."""
    aspects = [1.0]
    answered = {name_kind(region.defect_type) for region in response.regions}
    true = {name_kind(region.defect_type) for region in truth.regions} - {""}
    if true:
        aspects.append(_share(find_kinds(response.reasoning, true | answered), true & answered))
    if truth.regions:
        assert truth.size_wh is not None
        found = {
            grid_words(region.box_xyxy, truth.size_wh)
            for region in truth.regions
            if any(box_intersection(region.box_xyxy, box.box_xyxy) > 0 for box in response.regions)
        }
        aspects.append(_share(find_places(response.reasoning), found))
    return sum(aspects) / len(aspects)


def _share(named: frozenset[str], supported: set[str]) -> float:
    """The share of what is named that truth and answer bear out; silence is halfway."""
    return len(named & supported) / len(named) if named else 0.5


def _read(response: Response | None, truth: Solution) -> float:
    return float(response is not None)


def _shorten(response: Response | None, truth: Solution) -> float:
    if response is None:
        return 0.0
    over = (len(response.reasoning.split()) - SOFT_WORDS) / (HARD_WORDS - SOFT_WORDS)
    return 0.5 + 0.5 * math.cos(math.pi * min(1.0, max(0.0, over)))
