"""Questions are true to their record, have one right option, and survive a shuffle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import make_picture

from anomalyr1.data.defects import DEFECT_KINDS
from anomalyr1.data.drawing import OBJECTS, SURFACES
from anomalyr1.data.question_facts import (
    CATEGORY_FACTS,
    FACT_QUESTIONS,
    fits_kind,
    kinds_alike,
    known_kinds,
    may_be_called,
    spoken,
)
from anomalyr1.data.question_options import (
    build_question,
    rewrite_option_references,
    shuffle_options,
    speaks_of_letters,
)
from anomalyr1.data.question_reasoning import write_choice_reasoning
from anomalyr1.data.question_texts import SUBTASKS
from anomalyr1.data.questions import ask, write_questions
from anomalyr1.data.wording import KIND_WORDS, describe_defect
from anomalyr1.parsing import parse_choice
from anomalyr1.prompts import build_choice_prompt, render_choice_answer
from anomalyr1.reasoning.choice import conclude_choice
from anomalyr1.types import Box, Hint, HintRegion, InputError, Question, Record, Region

SIZE = (90, 90)
TOP_LEFT = (2.0, 2.0, 20.0, 20.0)
BOTTOM = (35.0, 65.0, 55.0, 85.0)


def seeded(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def make_anomalous(
    *kinds: str, boxes: tuple[Box, ...] = (TOP_LEFT, BOTTOM), **fields: str
) -> Record:
    regions = tuple(
        Region(box, kind, describe_defect(kind, 0.9, box, SIZE, seeded(1)))
        for kind, box in zip(kinds, boxes, strict=False)
    )
    values: dict[str, str] = {"category": "nut", "defect_type": kinds[0] if kinds else "", **fields}
    return Record("r", Path("r.png"), label="anomalous", regions=regions, **values)  # type: ignore[arg-type]


def questions(record: Record, seed: int = 0, **options: object) -> dict[str, Question]:
    written = write_questions(record, seeded(seed), size_wh=SIZE, **options)  # type: ignore[arg-type]
    return {question.question_type: question for question in written}


def answer_text(question: Question) -> str:
    assert question.answer is not None
    return question.options[question.answer].rstrip(".")


def test_an_anomalous_part_has_questions_of_all_seven_subtasks_in_order() -> None:
    assert tuple(questions(make_anomalous("scratch"))) == SUBTASKS


def test_a_normal_part_has_questions_on_the_object_and_whether_there_is_a_defect() -> None:
    record = Record("r", Path("r.png"), label="normal", category="etched_board")
    assert set(questions(record)) == {
        "Anomaly Detection", "Object Classification", "Object Analysis"
    }  # fmt: skip


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_every_question_has_one_right_option_of_two_to_five_and_repeats_for_its_seed(
    kind: str,
) -> None:
    record = make_anomalous(kind)
    for seed in range(12):
        written = questions(record, seed)
        assert written == questions(record, seed)
        for question in written.values():
            assert 2 <= len(question.options) <= 5
            assert question.answer in question.options
            assert len({text.casefold() for text in question.options.values()}) == len(
                question.options
            )
            assert not speaks_of_letters(question)


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_answers_are_the_records_truth(kind: str) -> None:
    words, record = KIND_WORDS[kind], make_anomalous(kind)
    for seed in range(8):
        written = questions(record, seed)
        assert answer_text(written["Anomaly Detection"]) == "Yes"
        assert answer_text(written["Defect Classification"]).lower() == kind
        assert answer_text(written["Defect Localization"]) == "Top left"
        assert any(look in record.regions[0].description for look in words.looks)
        assert any(
            look in answer_text(written["Defect Description"]).lower() for look in words.looks
        )
        assert answer_text(written["Defect Analysis"]).lower() in words.causes + words.effects
        assert answer_text(written["Object Classification"]) == "Nut"


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_wrong_options_are_not_another_word_for_the_right_one(kind: str) -> None:
    alike = kinds_alike(frozenset((kind,)))
    for seed in range(20):
        written = questions(make_anomalous(kind), seed)
        for name in ("Defect Classification", "Defect Analysis"):
            question = written[name]
            wrong = [
                text.rstrip(".").lower()
                for letter, text in question.options.items()
                if letter != question.answer
            ]
            if name == "Defect Classification":
                assert not alike.intersection(wrong)
            assert not any(fits_kind(text, kind) for text in wrong if name == "Defect Analysis")


def test_yes_and_no_come_in_either_order() -> None:
    orders = {
        questions(make_anomalous("dent"), seed)["Anomaly Detection"].options["A"].rstrip(".")
        for seed in range(12)
    }
    assert orders == {"Yes", "No"}


def test_the_answer_is_under_every_letter_about_equally_often() -> None:
    letters = [
        build_question("?", "a", ["b", "c", "d"], "", seeded(seed)).answer for seed in range(400)
    ]
    assert all(70 < letters.count(letter) < 130 for letter in "ABCD")


def test_a_place_that_a_defect_reaches_into_is_no_wrong_option() -> None:
    wide = (5.0, 5.0, 50.0, 20.0)  # its middle is at the top left, its end at the top
    record = make_anomalous("crack", "stain", boxes=(wide, BOTTOM))
    for seed in range(30):
        places = [
            text.rstrip(".")
            for text in questions(record, seed)["Defect Localization"].options.values()
        ]
        assert not {"Top", "Bottom"} & set(places)


def test_a_defect_over_the_whole_picture_has_no_question_on_its_place() -> None:
    record = make_anomalous("stain", boxes=((0.0, 0.0, 90.0, 90.0),))
    assert "Defect Localization" not in questions(record)


@pytest.mark.parametrize("kind", ["", "combined", "bad", "logical_anomaly"])
def test_what_the_truth_does_not_tell_is_not_asked(kind: str) -> None:
    record = Record("r", Path("r.png"), label="anomalous", defect_type=kind)
    assert set(questions(record)) == {"Anomaly Detection"}


def test_kinds_of_a_data_set_are_told_apart_by_its_own_other_kinds() -> None:
    record = Record("r", Path("r.png"), label="anomalous", defect_type="pin_hole")
    question = questions(record, other_kinds=("pin_hole", "mousebite", "short", "good"))[
        "Defect Classification"
    ]
    assert {text.rstrip(".") for text in question.options.values()} == {
        "Pin hole", "Mousebite", "Short"
    }  # fmt: skip


def test_an_unknown_category_is_asked_for_but_not_about() -> None:
    record = Record("r", Path("r.png"), label="normal", category="rubber_seal")
    written = questions(record)
    assert answer_text(written["Object Classification"]) == "Rubber seal"
    assert "Object Analysis" not in written


def test_a_mask_alone_tells_the_place(tmp_path: Path) -> None:
    from PIL import Image

    picture = make_picture(tmp_path / "part.png", SIZE)
    mask = np.zeros((90, 90), np.uint8)
    mask[65:80, 70:85] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    record = Record(
        "r", picture, label="anomalous", mask_path=tmp_path / "mask.png", defect_type="dent"
    )
    written = {item.question_type: item for item in write_questions(record, seeded(0))}
    assert answer_text(written["Defect Localization"]) == "Bottom right"


def test_a_record_without_label_and_an_unknown_subtask_are_refused() -> None:
    with pytest.raises(InputError, match="record r has no label"):
        write_questions(Record("r", Path("r.png")), seeded(0), size_wh=SIZE)
    with pytest.raises(InputError, match="subtask 'Defects' is unknown"):
        write_questions(make_anomalous("dent"), seeded(0), size_wh=SIZE, subtasks=["Defects"])


def test_facts_are_there_for_every_drawn_category_and_different() -> None:
    assert set(CATEGORY_FACTS) == {spoken(category) for category in (*SURFACES, *OBJECTS)}
    shapes = [
        fact.text for facts in CATEGORY_FACTS.values() for fact in facts if fact.topic == "shape"
    ]
    assert len(set(shapes)) == len(CATEGORY_FACTS)
    topics = {fact.topic for facts in CATEGORY_FACTS.values() for fact in facts}
    assert topics == set(FACT_QUESTIONS)


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("scratches", {"scratch"}),
        ("pin-hole", {"hole"}),
        ("missing_part", {"missing part"}),
        ("Discoloration", {"discolouration"}),
        ("squeeze", {"dent", "bent"}),
        ("logical", set()),
    ],
)
def test_names_of_data_sets_are_read_as_the_kinds_they_may_mean(name: str, kinds: set[str]) -> None:
    assert known_kinds(name) == kinds


@pytest.mark.parametrize(
    ("category", "other", "same"),
    [("metal_nut", "nut", True), ("hazelnut", "nut kernel", True), ("gear", "washer", False)],
)
def test_a_product_is_not_a_wrong_name_for_itself(category: str, other: str, same: bool) -> None:
    assert may_be_called(category, other) == same


def test_asking_hides_the_category_only_where_it_is_the_answer() -> None:
    record = make_anomalous("dent", knowledge="A nut has six sides.")
    written = questions(record)
    hidden = ask(record, written["Object Classification"])
    assert (hidden.category, hidden.knowledge) == ("", "")
    shown = ask(record, written["Defect Analysis"])
    assert shown.category == "nut" and shown.record_id == "r/defect-analysis"
    assert build_choice_prompt(shown, num_references=0, hint=None).record_id == "r/defect-analysis"


@pytest.mark.parametrize("with_hint", [True, False])
@pytest.mark.parametrize("record", [make_anomalous("scratch", "stain"), make_anomalous("bent")])
def test_reasoning_ends_in_the_right_letter_and_speaks_of_the_map_only_where_there_is_one(
    record: Record, with_hint: bool
) -> None:
    for seed in range(6):
        for question in questions(record, seed).values():
            text = write_choice_reasoning(
                record, question, seeded(seed), hint=Hint(70) if with_hint else None, size_wh=SIZE
            )
            about_object = question.question_type.startswith("Object")
            assert ("The map's score is high." in text) == (with_hint and not about_object)
            assert f" {question.answer}" in text.split(". ")[-1]
            answer = render_choice_answer(str(question.answer), text)
            assert parse_choice(answer, question.options).choice == question.answer


def test_the_option_that_fits_is_quoted_before_its_letter_is_named() -> None:
    record = make_anomalous("hole")
    options = {"A": "A dent.", "B": "A round opening, 2.5 mm wide.", "C": "A stain"}
    question = Question("?", options, "B", "Defect Description")
    text = write_choice_reasoning(record, question, seeded(0), hint=None, size_wh=SIZE)
    assert " What fits best is: A round opening, 2.5 mm wide. " in text and "stain" not in text
    assert conclude_choice(text, options) == "B"
    assert conclude_choice(text[: text.index("What")], options) is None


def test_what_the_map_says_is_told_before_what_fits() -> None:
    record = make_anomalous("hole")
    hint = Hint(70, (HintRegion((1, 2, 30, 40), 90, "top left", "hole"),))
    question = questions(record)["Defect Classification"]
    text = write_choice_reasoning(record, question, seeded(0), hint=hint, size_wh=SIZE)
    told = "It is bright at the top left. It looks like a hole."
    assert text.startswith(f"The map's score is high. I take that for a defect. {told} There is")


def test_reasoning_varies_and_an_answerless_question_has_none() -> None:
    record = make_anomalous("hole")
    question = questions(record)["Defect Localization"]
    texts = {
        write_choice_reasoning(record, question, seeded(seed), hint=Hint(70), size_wh=SIZE)
        for seed in range(20)
    }
    assert len(texts) > 3
    with pytest.raises(InputError, match="no answer among its options"):
        write_choice_reasoning(
            record, Question("?", {"A": "x", "B": "y"}), seeded(0), hint=None, size_wh=SIZE
        )


DUST = {"A": "Dust", "B": "Oil", "C": "Rust."}


@pytest.mark.parametrize(
    ("option", "rewritten"),
    [
        ("Both A and B.", "All of these: Dust; Oil"),
        ("A and C", "All of these: Dust; Rust"),
        ("Options A, B and C are correct", "All of these: Dust; Oil; Rust"),
        ("Either (A) or (C)", "One of these: Dust; Rust"),
        ("A or B", "One of these: Dust; Oil"),
        ("Neither A nor B", "None of these: Dust; Oil"),
        ("All of the above.", "All of these: Dust; Oil; Rust"),
        ("None of the above", "None of these: Dust; Oil; Rust"),
        ("Only B", "Only: Oil"),
        # not references, or not to be resolved
        ("A", "A"),
        ("Both sides", "Both sides"),
        ("Vitamin A and B", "Vitamin A and B"),
        ("A dark line and a stain", "A dark line and a stain"),
        ("None", "None"),
        ("Both A and D", "Both A and D"),
        ("Both of the above", "Both of the above"),
    ],
)
def test_options_that_speak_of_letters_are_rewritten_to_the_texts_they_mean(
    option: str, rewritten: str
) -> None:
    done = rewrite_option_references(Question("?", {**DUST, "D": option}, "D"))
    assert done.options == {**DUST, "D": rewritten} and done.answer == "D"
    assert rewrite_option_references(done) == done


def test_shuffling_keeps_the_answer_and_moves_the_options() -> None:
    question = Question("?", {**DUST, "D": "Both A and B"}, "D", "Defect Analysis")
    seen = set()
    for seed in range(30):
        shuffled = shuffle_options(question, seeded(seed))
        assert list(shuffled.options) == list("ABCD")
        assert shuffled.options[str(shuffled.answer)] == "All of these: Dust; Oil"
        assert shuffled == shuffle_options(question, seeded(seed))
        seen.add(shuffled.answer)
    assert seen == set("ABCD")


def test_a_question_whose_references_cannot_be_resolved_keeps_its_order() -> None:
    question = Question("?", {"A": "Dust", "B": "Both A and B", "C": "Oil"}, "B")
    assert all(shuffle_options(question, seeded(seed)) == question for seed in range(5))


def test_shuffling_refuses_an_answer_that_is_no_option() -> None:
    with pytest.raises(InputError, match="answer 'E'"):
        shuffle_options(Question("?", DUST, "E"), seeded(0))


@pytest.mark.parametrize("texts", [["a"], ["a", "A."], list("abcdef")])
def test_a_question_has_two_to_five_options_all_different(texts: list[str]) -> None:
    with pytest.raises(InputError, match="2 to 5"):
        build_question("?", texts[0], texts[1:], "", seeded(0))
