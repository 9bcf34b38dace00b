"""How an answer and its reasoning fit the truth and each other, as docs/method.md defines it.

An answer that could not be read is None here, and fits nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from anomalyr1.geometry import box_intersection, grid_words, match_boxes
from anomalyr1.reasoning import (
    conclude_choice,
    conclude_verdict,
    find_kinds,
    find_places,
    name_kind,
)
from anomalyr1.solutions import Solution
from anomalyr1.types import Question, Region, Response


def compute_roam(response: Response | None, truth: Solution) -> float:
    """ROAM, in [0, 1]: the published table for a question, its extension for an inspection."""
    if response is None:
        return 0.0
    outcome = compute_outcome(response, truth)
    if truth.kind == "choice":
        concluded: str | None = conclude_choice(response.reasoning, truth.options)
        answered, detail = response.choice, 1.0
    else:
        concluded = conclude_verdict(response.reasoning)
        answered, detail = response.label, _detail(response, truth)
    if concluded not in (None, answered):
        return 0.0
    table = 0.05 + 0.75 * outcome if concluded is None else 0.1 + 0.9 * outcome
    return table - 0.3 * outcome * (1 - detail)


def compute_outcome(response: Response | None, truth: Solution) -> float:
    """How right an answer is, in [0, 1], whatever the reasoning."""
    if response is None:
        return 0.0
    if truth.kind == "choice":
        return float(response.choice == truth.letter)
    if response.label != truth.label:
        return 0.0
    marked = compute_box_iou(response, truth)
    if marked is None:
        return 1.0
    kinds = compute_label_share(response, truth)
    if kinds is not None:
        marked = (2 * marked + kinds) / 3
    return 0.5 + 0.5 * marked


def compute_box_iou(response: Response | None, truth: Solution) -> float | None:
    """Total IoU of the matched boxes over the larger number of boxes; None without true boxes."""
    if not truth.regions:
        return None
    if response is None:
        return 0.0
    predicted = [region.box_xyxy for region in response.regions]
    true = [region.box_xyxy for region in truth.regions]
    total = math.fsum(overlap for _row, _column, overlap in match_boxes(predicted, true))
    return total / max(len(predicted), len(true))


def compute_label_share(response: Response | None, truth: Solution) -> float | None:
    """The defects' kinds that are named, over the larger number of defects; those of unknown kind
    are left out, and None if all are."""
    true = Counter(kind for region in truth.regions if (kind := name_kind(region.defect_type)))
    if not true:
        return None
    if response is None:
        return 0.0
    named = Counter(name_kind(region.defect_type) for region in response.regions)
    unknown = len(truth.regions) - true.total()
    return (true & named).total() / max(true.total(), len(response.regions) - unknown)


def find_contradiction(
    response: Response,
    question: Question | None = None,
    *,
    size_wh: tuple[int, int] | None = None,
) -> bool:
    """Whether the reasoning of a read answer says other than the answer.

    Of a `question`: it concludes another option. Of an inspection: it concludes the other verdict,
    or names kinds of defect of which the answer holds none, or, where the picture's (width,
    height) in original pixels is given, places of which no box of the answer touches any. What is
    not said contradicts nothing, nor does an answer that could not be read.

    >>> find_contradiction(Response("ok", "So the part is normal.", label="anomalous"))
    True
    """
    reasoning = response.reasoning
    if response.status != "ok":
        return False
    if question is not None:
        return conclude_choice(reasoning, question.options) not in (None, response.choice)
    if conclude_verdict(reasoning) not in (None, response.label):
        return True
    if not response.regions:
        return False
    answered = _kinds(response.regions)
    named = find_kinds(reasoning, answered) if answered else frozenset()
    places = find_places(reasoning) if size_wh is not None else frozenset()
    return bool(named and not named & answered) or bool(
        size_wh is not None and places and not places & _touched_places(response.regions, size_wh)
    )


def _detail(response: Response, truth: Solution) -> float:
    """How well the kinds and places that the reasoning names fit truth and answer, in [0, 1]; 1
    where neither is known."""
    aspects = []
    answered, true = _kinds(response.regions), _kinds(truth.regions)
    if true:
        named = find_kinds(response.reasoning, true | answered)
        credit = (len(named & answered & true) + len(named & answered)) / 2
        aspects.append(credit / len(named) if named else 0.5)
    if truth.regions:
        assert truth.size_wh is not None
        found = {
            grid_words(region.box_xyxy, truth.size_wh)
            for region in truth.regions
            if any(box_intersection(region.box_xyxy, box.box_xyxy) > 0 for box in response.regions)
        }
        places = find_places(response.reasoning)
        aspects.append(len(places & found) / len(places) if places else 0.5)
    return sum(aspects) / len(aspects) if aspects else 1.0


def _kinds(regions: Sequence[Region]) -> set[str]:
    return {name_kind(region.defect_type) for region in regions} - {""}


def _touched_places(regions: Sequence[Region], size_wh: tuple[int, int]) -> set[str]:
    width, height = size_wh
    cells = [
        (width * column / 3, height * row / 3, width * (column + 1) / 3, height * (row + 1) / 3)
        for column in range(3)
        for row in range(3)
    ]
    return {
        grid_words(cell, size_wh)
        for cell in cells
        if any(box_intersection(cell, region.box_xyxy) > 0 for region in regions)
    }
