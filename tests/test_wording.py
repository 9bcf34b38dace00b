"""Words for synthetic defects: true to the record, varied from a seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from anomalyr1.data.defects import DEFECT_KINDS
from anomalyr1.data.wording import (
    KIND_WORDS,
    TAKEN_FOR,
    describe_defect,
    describe_regions,
    severity_word,
    write_reasoning,
)
from anomalyr1.prompts import build_inspection_prompt
from anomalyr1.types import Hint, HintRegion, Record, Region

TOP_LEFT = (0.0, 0.0, 20.0, 20.0)
BOTTOM_RIGHT = (80.0, 80.0, 99.0, 99.0)
HINT = Hint(71)


def _scratch(box: tuple[float, float, float, float] = TOP_LEFT) -> Region:
    return Region(box, "scratch", "slight scratch, a thin line at the top left")


def test_every_kind_of_defect_has_three_looks_and_a_cause_and_an_effect() -> None:
    assert set(KIND_WORDS) == set(DEFECT_KINDS)
    for words in KIND_WORDS.values():
        assert len(words.looks) == 3 and words.causes and words.effects


@pytest.mark.parametrize(
    ("severity", "word"),
    [(0.0, "slight"), (0.33, "slight"), (0.34, "clear"), (0.67, "severe"), (1.0, "severe")],
)
def test_severity_has_a_word(severity: float, word: str) -> None:
    assert severity_word(severity) == word


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_a_description_names_severity_kind_and_place(kind: str) -> None:
    text = describe_defect(kind, 0.9, BOTTOM_RIGHT, (100, 100), np.random.default_rng(0))
    assert text.startswith(f"severe {kind}, ") and text.endswith(" at the bottom right")


@pytest.mark.parametrize("with_hint", [True, False])
@pytest.mark.parametrize("regions", [[], [_scratch()], [_scratch(), _scratch(BOTTOM_RIGHT)]])
def test_reasoning_speaks_of_the_map_only_where_there_is_one_and_ends_in_the_verdict(
    regions: list[Region], with_hint: bool
) -> None:
    label = "anomalous" if regions else "normal"
    for seed in range(8):
        text = write_reasoning(
            label,
            regions,
            (100, 100),
            np.random.default_rng(seed),
            hint=HINT if with_hint else None,
        )
        assert ("map" in text.lower()) == with_hint
        assert text.endswith(f"the part is {label}.")
        assert ("scratch" in text) == bool(regions)
    assert ("There are two defects" in text) == (len(regions) > 1)


def test_reasoning_names_each_place_and_kind_once_and_three_at_most() -> None:
    places, kinds = (
        ("top", "top", "left", "right", "centre"),
        ("hole", "cut", "cut", "hole", "dent"),
    )
    regions = [HintRegion((0, 0, 9, 9), 9, *said) for said in zip(places, kinds, strict=True)]
    assert describe_regions(regions) == (
        "It is bright at the top, at the left, at the right. It looks like a hole, like a cut, "
        "like a dent."
    )


def test_reasoning_says_the_map_in_the_words_of_the_prompt() -> None:
    here = HintRegion((0, 0, 20, 20), 97, "top left", "scratch")
    other = HintRegion((40, 40, 50, 50), 60, "centre", "hole")
    hint = Hint(71, (here,))
    seeds = np.random.default_rng(0)
    text = write_reasoning("anomalous", [_scratch()], (100, 100), seeds, hint=hint)
    prompt = build_inspection_prompt(Record("1", Path("1.png")), num_references=0, hint=hint)
    told = "It is bright at the top left. It looks like a scratch."
    assert told in str(prompt.messages[1].parts[-1])
    assert text.startswith(f"The map's score is high. {TAKEN_FOR['anomalous']} {told} There is a")
    normal = write_reasoning("normal", [], (100, 100), seeds, hint=hint)
    assert normal.startswith(f"The map's score is high. {TAKEN_FOR['normal']}")
    regions = [_scratch(), _scratch(BOTTOM_RIGHT)]
    both = write_reasoning("anomalous", regions, (100, 100), seeds, hint=Hint(71, (here, other)))
    assert told in both, "of the regions that are no defect, nothing is said"


def test_wording_varies_between_seeds_and_repeats_for_one() -> None:
    texts = [
        write_reasoning(
            "anomalous", [_scratch()], (100, 100), np.random.default_rng(seed), hint=HINT
        )
        for seed in (*range(10), 0)
    ]
    assert len(set(texts)) > 2 and texts[0] == texts[-1]


@pytest.mark.parametrize("with_hint", [True, False])
@pytest.mark.parametrize(
    ("region", "said"),
    [
        (None, "unlike a normal part"),
        (Region(TOP_LEFT), "a defect"),
        (Region(TOP_LEFT, "rust"), "a rust"),
    ],
)
def test_an_anomalous_record_without_boxes_or_words_still_has_a_reasoning(
    region: Region | None, said: str, with_hint: bool
) -> None:
    regions = [] if region is None else [region]
    text = write_reasoning(
        "anomalous", regions, (100, 100), np.random.default_rng(0), hint=HINT if with_hint else None
    )
    assert said in text and "  " not in text and "the ." not in text
