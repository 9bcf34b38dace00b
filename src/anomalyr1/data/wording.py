"""Words for a synthetic defect, written from its truth: severity, place, cause, effect, reasoning.

Wording is varied from a seed so that a model learns the facts and not one sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from anomalyr1.geometry import grid_words
from anomalyr1.prompts import AT_THE, word_regions, word_score
from anomalyr1.types import Box, Hint, HintRegion, Label, Region


@dataclass(frozen=True, slots=True)
class KindWords:
    """How one kind of defect is described: looks, likely causes, effects on the part."""

    looks: tuple[str, ...]
    causes: tuple[str, ...]
    effects: tuple[str, ...]


KIND_WORDS: dict[str, KindWords] = {
    "scratch": KindWords(
        ("a thin line", "a shallow groove", "a fine straight mark"),
        ("contact with a hard edge", "careless handling"),
        ("the finish is spoiled", "the coating is weakened"),
    ),
    "crack": KindWords(
        ("a jagged dark line", "a branching fracture", "an irregular split"),
        ("stress in the material", "an impact"),
        ("the part may break", "the strength is reduced"),
    ),
    "hole": KindWords(
        ("a dark pit", "a small opening", "a round void"),
        ("trapped gas", "a puncture"),
        ("the part may leak", "the section is weakened"),
    ),
    "dent": KindWords(
        ("a shaded hollow", "a pressed-in spot", "a shallow depression"),
        ("a knock during transport", "pressure from a tool"),
        ("the fit may suffer", "the shape is out of tolerance"),
    ),
    "stain": KindWords(
        ("a blot", "a coloured spot", "a smeared patch"),
        ("spilled fluid", "oil or ink"),
        ("the look is spoiled", "coating may not hold there"),
    ),
    "discolouration": KindWords(
        ("a patch of another shade", "an area of changed tone", "an uneven tone"),
        ("overheating", "uneven treatment"),
        ("the look is spoiled", "the material may have changed"),
    ),
    "missing part": KindWords(
        ("an area where material is absent", "an empty place", "a gap"),
        ("an assembly step left out", "material torn away"),
        ("the function is lost", "the part is incomplete"),
    ),
    "misplaced part": KindWords(
        ("a piece out of its place", "a shifted element", "a piece where none belongs"),
        ("wrong assembly", "a loose fixture"),
        ("the fit may suffer", "the function is at risk"),
    ),
    "bent": KindWords(
        ("a distorted outline", "a warped area", "a deformed section"),
        ("excess force", "a jam in the machine"),
        ("the part may not fit", "the alignment is lost"),
    ),
    "chipped edge": KindWords(
        ("a notch in the edge", "a broken-off corner", "a bite out of the rim"),
        ("an impact on the edge", "brittle material"),
        ("the edge no longer seals", "the edge may crumble further"),
    ),
    "cut": KindWords(
        ("a sharp slit", "a clean tear", "a narrow gash"),
        ("a blade", "a sharp burr"),
        ("the material may tear further", "the surface is open"),
    ),
    "thread pull": KindWords(
        ("a drawn thread", "a raised fibre line", "a pulled strand"),
        ("snagging", "uneven tension"),
        ("the weave may run", "the look is spoiled"),
    ),
    "contamination": KindWords(
        ("a foreign particle", "a speck of debris", "a stray fibre"),
        ("dust in the process", "poor cleaning"),
        ("the surface is not clean", "the next step may fail"),
    ),
    "misprint": KindWords(
        ("a smeared print", "a doubled print", "a broken print"),
        ("a slipping print head", "too much ink"),
        ("the mark cannot be read", "the label is not valid"),
    ),
}


DECIDED_BEHIND = "I take that for"
TAKEN_FOR: dict[Label, str] = {
    "normal": f"{DECIDED_BEHIND} no defect.",
    "anomalous": f"{DECIDED_BEHIND} a defect.",
}
"""What a reasoning makes of the map's score: the verdict in one word, so that the likelier verdict
is the likelier text, however many ways there are to go on from each."""

FITS_BEST = "What fits best is:"
"""What stands before the option that a reasoning on a multiple-choice question settles on."""

MOST_NAMED = 3
"""Places or kinds that a reasoning names at most."""

SEVERITIES = ("slight", "clear", "severe")


def bare_option(text: str) -> str:
    """An option as a reasoning quotes it: without the full stop that may end it."""
    return text.rstrip(" .")


def begin_small(text: str) -> str:
    """An option or its beginning as it stands within a sentence.

    >>> begin_small("Top left"), begin_small("PCB")
    ('top left', 'PCB')
    """
    return text if text[1:2].isupper() else text[:1].lower() + text[1:]


def severity_word(severity: float) -> str:
    """A word for a severity in [0, 1]: slight, clear or severe."""
    return SEVERITIES[min(2, int(severity * 3))]


def describe_defect(
    kind: str, severity: float, box_xyxy: Box, size_wh: tuple[int, int], rng: np.random.Generator
) -> str:
    """A short description, such as "slight crack, a jagged dark line at the top left"."""
    look = KIND_WORDS[kind].looks[int(rng.integers(3))]
    return f"{severity_word(severity)} {kind}, {look}{AT_THE}{grid_words(box_xyxy, size_wh)}"


_NORMAL_SEEN = (
    "The surface and outline look regular.",
    "Shape, texture and colour are as expected.",
    "Nothing is missing, broken or stained.",
)
_CONCLUSION = ("So the part is {label}.", "Therefore the part is {label}.")


def write_reasoning(
    label: Label,
    regions: Sequence[Region],
    size_wh: tuple[int, int],
    rng: np.random.Generator,
    *,
    hint: Hint | None,
) -> str:
    """A reasoning text true to the record: evidence, place, kind, likely cause, conclusion.

    `regions` have boxes in units of a picture of `size_wh`, those of the `hint` as it has them;
    their `description` is quoted, or else their type named. An anomalous record may have none. The
    anomaly map is spoken of only where the prompt holds one, with the prompt's own words.
    """
    sentences = [word_score(hint.score), TAKEN_FOR[label]] if hint is not None else []
    if label == "normal":
        sentences.append(_pick(_NORMAL_SEEN, rng))
    elif not regions:
        sentences.append("Something is unlike a normal part.")
    else:
        boxes = {region.box_xyxy for region in regions}
        seen = [region for region in (hint.regions if hint else ()) if region.box in boxes]
        if seen:
            sentences.append(describe_regions(seen))
        first = regions[0]
        count = count_defects(len(regions)) + (", first" if len(regions) > 1 else "")
        sentences.append(f"{count} a {first.description or first.defect_type or 'defect'}.")
        words = KIND_WORDS.get(first.defect_type)
        if words is not None:
            sentences.append(f"Likely cause: {_pick(words.causes, rng)}.")
    sentences.append(_pick(_CONCLUSION, rng).format(label=label))
    return " ".join(sentences)


def describe_regions(regions: Sequence[HintRegion]) -> str:
    """A reasoning's words for some of a hint's regions: each place and kind once, three at most."""
    places = dict.fromkeys(region.place for region in regions)
    kinds = dict.fromkeys(region.kind for region in regions)
    return word_regions(list(places)[:MOST_NAMED], list(kinds)[:MOST_NAMED])


def count_defects(number: int) -> str:
    """How a reasoning begins to tell of a number of defects, 1 or more: in words, since a small
    model takes the last number it has written for the end of a box.

    >>> count_defects(1), count_defects(3), count_defects(9)
    ('There is', 'There are three defects', 'There are many defects')
    """
    if number == 1:
        return "There is"
    word = ("two", "three", "four", "five")[number - 2] if number < 6 else "many"
    return f"There are {word} defects"


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
