"""Where an answer decides, and the words there whose probabilities are the anomaly score."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import get_args

from anomalyr1.data.wording import DECIDED_BEHIND, TAKEN_FOR
from anomalyr1.prompts import INSPECTION_TEMPLATE_ID, VERDICT_PROBE
from anomalyr1.types import Label, Prompt

Begun = tuple[str, Mapping[Label, str]]
"""What stands before a verdict, and how each verdict goes on from there."""

_LEAST_SHARE = 1e-6


def read_verdicts(
    prompts: Sequence[Prompt],
    texts: Sequence[str],
    probe: Callable[[Mapping[int, Begun]], Iterable[Mapping[Label, float]]],
) -> list[float | None]:
    """P(anomalous) / (P(anomalous) + P(normal)) where the answers `texts` to `prompts` decide.

    None for prompts that ask for a letter, and where neither word is likely. `probe` is asked once,
    or not at all: given what to put behind which prompt (see `begin_verdict`), it gives in the same
    order each verdict's probability there.
    """
    begun = {
        index: begin_verdict(text)
        for index, (prompt, text) in enumerate(zip(prompts, texts, strict=True))
        if prompt.template_id == INSPECTION_TEMPLATE_ID
    }
    verdicts: list[float | None] = [None] * len(prompts)
    for index, shares in zip(begun, probe(begun) if begun else (), strict=True):
        total = sum(shares.values())
        verdicts[index] = shares["anomalous"] / total if total > _LEAST_SHARE else None
    return verdicts


def begin_verdict(text: str) -> Begun:
    """What makes the next word the verdict when it is put behind the prompt that a model answered
    with `text`, and how each verdict goes on from there.

    A model that was taught to decide in a sentence of its reasoning is scored there; of any other
    the verdict is asked for at once, before a reasoning has settled it.

    >>> begin_verdict("<think>It is odd. I take that for a defect. So")[0]
    '<think>It is odd. I take that for'
    >>> begin_verdict("<think>It is odd.</think>")[0] == VERDICT_PROBE
    True
    """
    before, decides, _after = text.partition(DECIDED_BEHIND)
    if decides and "</think>" not in before:
        return before + decides, {
            label: said.removeprefix(DECIDED_BEHIND) for label, said in TAKEN_FOR.items()
        }
    return VERDICT_PROBE, {label: label for label in get_args(Label)}


def name_verdict(piece: str, words: Mapping[Label, str]) -> Label | None:
    """The verdict that a token's text begins, None where it begins none or more than one.

    >>> name_verdict("anomal", {"normal": "normal", "anomalous": "anomalous"})
    'anomalous'
    """
    begun = [label for label, word in words.items() if piece and word.startswith(piece)]
    return begun[0] if len(begun) == 1 else None
