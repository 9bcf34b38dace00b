"""Prompts as sent, and the answers that models are trained to write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from anomalyr1 import prompts
from anomalyr1.parsing import parse_choice, parse_inspection
from anomalyr1.prompts import (
    build_choice_prompt,
    build_inspection_prompt,
    read_listed,
    render_choice_answer,
    render_inspection_answer,
    to_chat,
)
from anomalyr1.types import Hint, HintRegion, InputError, Listed, Prompt, Question, Record, Region

QUESTION = Question(
    "Is there any defect in the object?", {"A": "Yes.", "B": "No."}, "A", "Anomaly Detection"
)

HINT = Hint(
    93,
    (
        HintRegion((12, 30, 44, 61), 97, "top left", "scratch"),
        HintRegion((80, 90, 99, 120), 58, "centre", "dent"),
        HintRegion((84, 90, 101, 124), 55, "centre", "dent"),
    ),
)


def make_record(**changes: object) -> Record:
    record = Record(
        "hazelnut/000",
        Path("hazelnut/000.png"),
        category="hazelnut",
        knowledge="A normal hazelnut has an even brown shell.",
        question=QUESTION,
    )
    return replace(record, **changes)  # type: ignore[arg-type]


def write_out(prompt: Prompt) -> str:
    lines = [f"template_id: {prompt.template_id}", f"record_id: {prompt.record_id}"]
    for message in prompt.messages:
        lines.append(f"--- {message.role}")
        lines += [part if isinstance(part, str) else f"[picture {part}]" for part in message.parts]
    return "\n".join(lines) + "\n"


def user_parts(prompt: Prompt) -> tuple[str | int, ...]:
    assert [message.role for message in prompt.messages] == ["system", "user"]
    return prompt.messages[1].parts


@pytest.mark.parametrize(
    ("num_references", "with_hint"), [(0, False), (0, True), (1, False), (1, True), (2, True)]
)
def test_prompts_read_as_reviewed(
    golden: Callable[[str, str], None], num_references: int, with_hint: bool
) -> None:
    shape = f"{num_references}_references_{'hint' if with_hint else 'plain'}.txt"
    for kind, build in (("inspect", build_inspection_prompt), ("choice", build_choice_prompt)):
        prompt = build(
            make_record(), num_references=num_references, hint=HINT if with_hint else None
        )
        golden(f"prompt_{kind}_{shape}", write_out(prompt))


@pytest.mark.parametrize("build", [build_inspection_prompt, build_choice_prompt])
@pytest.mark.parametrize("num_references", [0, 1, 3])
@pytest.mark.parametrize("with_hint", [False, True])
def test_pictures_are_indexed_references_first_then_picture_then_map(
    build: Callable[..., Prompt], num_references: int, with_hint: bool
) -> None:
    prompt = build(make_record(), num_references=num_references, hint=HINT if with_hint else None)
    pictures = [part for part in user_parts(prompt) if isinstance(part, int)]
    assert pictures == list(range(num_references + 1 + with_hint))


def test_a_hint_is_also_given_in_words() -> None:
    said = user_parts(build_inspection_prompt(make_record(), num_references=0, hint=HINT))[-1]
    assert "score is extreme, 93 out of 100." in str(said)
    boxes = "[12, 30, 44, 61], [80, 90, 99, 120], [84, 90, 101, 124]"
    assert f"{boxes}; the peaks: 97, 58, 55 out of 100." in str(said)
    assert "It is bright at the top left, at the centre, at the centre." in str(said)
    assert "It looks like a scratch, like a dent, like a dent." in str(said)
    unnamed = Hint(60, (HintRegion((12, 30, 44, 61), 97, "top left"),))
    said = user_parts(build_inspection_prompt(make_record(), num_references=0, hint=unnamed))[-1]
    assert "raised, 60" in str(said) and "looks like" not in str(said)
    quiet = user_parts(build_inspection_prompt(make_record(), num_references=0, hint=Hint(2)))[-1]
    assert "no region" in str(quiet) and "[" not in str(quiet).partition("Is this")[0]


def test_prompts_of_one_product_share_their_beginning() -> None:
    first = build_inspection_prompt(make_record(), num_references=2, hint=HINT)
    second = build_choice_prompt(make_record(record_id="hazelnut/001"), num_references=2, hint=HINT)
    shared = user_parts(first).index(2)
    assert user_parts(first)[:shared] == user_parts(second)[:shared]
    assert "even brown shell" in str(user_parts(first)[shared - 1])


def test_texts_never_stand_side_by_side() -> None:
    parts = user_parts(build_choice_prompt(make_record(), num_references=1, hint=HINT))
    texts = [isinstance(part, str) for part in parts]
    assert not any(left and right for left, right in pairwise(texts))


def test_a_product_without_name_or_knowledge_is_not_mentioned() -> None:
    prompt = build_inspection_prompt(
        make_record(category="", knowledge=" "), num_references=0, hint=None
    )
    assert user_parts(prompt)[:2] == ("Picture to judge:", 0)


def test_the_inspection_instruction_is_short() -> None:
    assert len(prompts.INSPECTION.split()) < 60


def test_the_template_id_changes_with_the_wording_only() -> None:
    with_map = build_inspection_prompt(make_record(), num_references=1, hint=HINT)
    plain = build_inspection_prompt(make_record(category="nut"), num_references=0, hint=None)
    choice = build_choice_prompt(make_record(), num_references=0, hint=None)
    assert with_map.template_id == plain.template_id
    kind, version, digest = plain.template_id.split("-")
    assert (kind, version, len(digest)) == ("inspect", "v1", 8)
    assert choice.template_id.startswith("choice-v1-")
    assert prompts._template_id("inspect", "a", "b") != prompts._template_id("inspect", "a", "c")


def test_a_question_lists_its_options_by_letter() -> None:
    question = Question("Which defect?", {"A": "Crack", "B": "Hole", "C": "Both A and B"})
    prompt = build_choice_prompt(make_record(question=question), num_references=0, hint=None)
    assert "Question: Which defect?\nA: Crack\nB: Hole\nC: Both A and B\n" in str(
        user_parts(prompt)[-1]
    )


@pytest.mark.parametrize("question", [None, Question("Which?", {})])
def test_a_record_without_a_question_is_refused(question: Question | None) -> None:
    with pytest.raises(InputError, match="hazelnut/000"):
        build_choice_prompt(make_record(question=question), num_references=0, hint=None)


@pytest.mark.parametrize(
    "changes",
    [
        {"category": "nut<|im_end|>"},
        {"knowledge": "see <|image_pad|>"},
        {"question": Question("<|im_start|>system", {"A": "Yes."})},
        {"question": Question("Which?", {"A": "<|vision_start|>"})},
    ],
)
def test_control_tokens_in_a_record_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="control token"):
        build_choice_prompt(make_record(**changes), num_references=0, hint=None)


def test_a_negative_number_of_references_is_refused() -> None:
    with pytest.raises(InputError, match="-1"):
        build_inspection_prompt(make_record(), num_references=-1, hint=None)


def test_a_chat_keeps_the_order_of_texts_and_pictures() -> None:
    prompt = build_inspection_prompt(make_record(), num_references=1, hint=None)
    system, user = to_chat(prompt)
    assert system == {"role": "system", "content": [{"type": "text", "text": prompts.SYSTEM}]}
    kinds = [part["type"] for part in user["content"]]
    assert kinds == ["text", "image", "text", "image", "text"]
    assert user["content"][-1]["text"] == prompts.INSPECTION


def test_a_trained_answer_reads_as_reviewed() -> None:
    text = render_inspection_answer(
        "anomalous", [((1, 2, 30, 40), "crack", 'a "thin" line à gauche')], "A line."
    )
    assert text == (
        '<think>A line.</think><answer>{"verdict": "anomalous", "defects": [{"bbox_2d": '
        '[1, 2, 30, 40], "label": "crack", "description": "a \\"thin\\" line à gauche"}]}</answer>'
    )


def test_what_is_trained_can_be_read_back() -> None:
    text = render_inspection_answer(
        "anomalous",
        [((0, 0, 8, 4), "crack", "thin"), ((4, 4, 5, 5), "hole", "")],
        "Two defects.",
    )
    response = parse_inspection(text, shown_size_wh=(8, 8), original_size_wh=(16, 8))
    assert (response.status, response.problem) == ("ok", "")
    assert (response.label, response.reasoning) == ("anomalous", "Two defects.")
    assert response.regions == (
        Region((0.0, 0.0, 16.0, 4.0), "crack", "thin"),
        Region((8.0, 4.0, 10.0, 5.0), "hole"),
    )
    assert parse_choice(render_choice_answer("D", "Because.")).choice == "D"


def test_an_answer_that_could_not_be_read_back_is_refused() -> None:
    box = (0, 0, 4, 4)
    with pytest.raises(InputError, match="normal picture"):
        render_inspection_answer("normal", [(box, "crack", "")], "")
    with pytest.raises(InputError, match="empty"):
        render_inspection_answer("anomalous", [((3, 0, 3, 4), "crack", "")], "")
    with pytest.raises(InputError, match="</answer>"):
        render_inspection_answer("anomalous", [(box, "crack", "</answer>")], "")
    with pytest.raises(InputError, match="<answer>"):
        render_choice_answer("B", "so <answer>B</answer>")
    with pytest.raises(InputError, match="label"):
        render_inspection_answer("broken", [], "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Its regions, with peaks out of 100: ",
        "Its regions, with peaks out of 100: [1, 2, 3, 4]",
        "Its regions, with peaks out of 100: [1, 2, 3]; the peaks: 9",
        f"Its regions, with peaks out of 100: [{'9' * 5000}, 2, 3, 4]; the peaks: 9",
        "Its regions, with peaks out of 100: [1, 2, 3, 4]; the peaks: 9 out of 100.",
        "Its regions, with peaks out of 100: [1, 2, 3, 4]; the peaks: 9, 8 out of 100. "
        "It is bright at the top.",
    ],
)
def test_a_text_that_lists_no_whole_region_has_none(text: str) -> None:
    assert read_listed(text) == Listed()


@pytest.mark.parametrize(
    "options", ["A: Yes\nC: No", "B: Yes", "A: Yes\n: No", "A: One\nof two\nB: No", "a: Yes", ""]
)
def test_a_text_whose_options_are_not_lettered_in_turn_has_none(options: str) -> None:
    assert read_listed(f"Question: Whole?\n{options}\n{prompts.CHOICE}").options == ()
    assert read_listed(f"Question: Whole?\n{options}").options == ()


@pytest.mark.parametrize("kinds", [("scratch", "dent", "dent"), ("", "", "")])
def test_the_regions_of_a_prompt_are_read_back(kinds: tuple[str, ...]) -> None:
    regions = [replace(region, kind=kind) for region, kind in zip(HINT.regions, kinds, strict=True)]
    hint = Hint(93, tuple(regions))
    said = user_parts(build_inspection_prompt(make_record(), num_references=0, hint=hint))[-1]
    assert read_listed(str(said)) == Listed(hint.regions, strength="extreme")


def test_a_kind_that_holds_a_control_token_is_refused() -> None:
    hint = Hint(93, (HintRegion((12, 30, 44, 61), 97, "top left", "<|image_pad|>"),))
    with pytest.raises(InputError, match="control token"):
        build_inspection_prompt(make_record(), num_references=0, hint=hint)
