"""Where an answer decides, and the score that is read there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image

from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.engines.verdicts import Begun, begin_verdict, name_verdict, read_verdicts
from anomalyr1.prompts import (
    VERDICT_PROBE,
    build_choice_prompt,
    build_inspection_prompt,
    to_chat,
)
from anomalyr1.types import Hint, HintRegion, Label, Question, Record

torch = pytest.importorskip("torch")

DECIDED = "<think>The map's score is high. I take that for"


@pytest.mark.parametrize(
    ("text", "begun", "anomalous"),
    [
        (f"{DECIDED} a defect. So.</think>", DECIDED, " a defect."),
        (f"{DECIDED} no defect. Not: I take that for a defect.", DECIDED, " a defect."),
        ("<think>It is odd.</think><answer>", VERDICT_PROBE, "anomalous"),
        ("<think>It is odd.</think>I take that for a defect.", VERDICT_PROBE, "anomalous"),
        ("", VERDICT_PROBE, "anomalous"),
    ],
)
def test_a_verdict_is_asked_for_where_the_reasoning_decides_first(
    text: str, begun: str, anomalous: str
) -> None:
    probe, words = begin_verdict(text)
    assert (probe, words["anomalous"]) == (begun, anomalous)


@pytest.mark.parametrize(
    ("piece", "label"),
    [
        (" a", "anomalous"),
        (" no", "normal"),
        (" n", "normal"),
        (" ", None),
        ("", None),
        ("a", None),
    ],
)
def test_a_piece_that_begins_both_verdicts_or_none_counts_for_none(
    piece: str, label: str | None
) -> None:
    _probe, words = begin_verdict(DECIDED)
    assert name_verdict(piece, words) == label


def test_inspections_alone_have_a_score_and_only_where_a_verdict_is_likely() -> None:
    question = Question("Is there any defect?", {"A": "Yes.", "B": "No."}, "A", "Anomaly Detection")
    record = Record("1", Path("1.png"), question=question)
    inspection = build_inspection_prompt(record, num_references=0, hint=None)
    choice = build_choice_prompt(record, num_references=0, hint=None)
    shares: dict[str, dict[Label, float]] = {
        DECIDED: {"anomalous": 0.3, "normal": 0.1},
        VERDICT_PROBE: {"anomalous": 1e-7, "normal": 1e-7},
    }
    asked: list[list[int]] = []

    def probe(begun: Mapping[int, Begun]) -> list[dict[Label, float]]:
        asked.append(list(begun))
        return [shares[before] for before, _words in begun.values()]

    texts = ["<answer>A</answer>", "<think>It is odd.", f"{DECIDED} a defect."]
    found = read_verdicts([choice, inspection, inspection], texts, probe)
    assert found == [None, None, pytest.approx(0.75)]
    assert read_verdicts([choice], texts[:1], probe) == [None]
    assert asked == [[1, 2]], "nothing is computed for questions alone"


def test_the_bundled_model_is_scored_where_it_decides() -> None:
    engine = TransformersEngine.load("nano", device="cpu", dtype="float32")
    region = HintRegion((28, 28, 84, 84), 97, "centre", "hole")
    prompts = [
        build_inspection_prompt(Record("1", Path("1.png")), num_references=0, hint=hint)
        for hint in (Hint(2), Hint(96, (region,)))
    ]
    pictures = [Image.new("RGB", (112, 112), "grey")] * 2
    said = engine.generate(prompts, [pictures, pictures])
    scores = [completion.p_anomalous for completion in said]
    tokenizer = engine._processor.tokenizer
    for prompt, completion in zip(prompts, said, strict=True):
        before, decides, _after = completion.text.partition("I take that for")
        assert decides
        chat = engine._processor.apply_chat_template(
            to_chat(prompt), tokenize=False, add_generation_prompt=True
        )
        inputs = engine._processor(
            text=[chat + before + decides], images=pictures, return_tensors="pt"
        )
        with torch.inference_mode():
            logits = engine._model(**inputs).logits[0, -1].float()
        a, no = (
            tokenizer(word, add_special_tokens=False)["input_ids"][0] for word in (" a", " no")
        )
        expected = float((logits[a] - logits[no]).sigmoid())
        assert completion.p_anomalous == pytest.approx(expected, abs=0.01)
    assert scores[0] is not None and scores[1] is not None and scores[0] < 0.5 < scores[1]
