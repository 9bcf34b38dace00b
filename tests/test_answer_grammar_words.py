"""A small model's words are those of the regions that the prompt lists, its marks stand where an
answer has its shape, and nothing follows its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from allowed_tokens import LISTED, Box, find_allowed, find_every_allowed  # noqa: E402

from anomalyr1.data.wording import KIND_WORDS  # noqa: E402
from anomalyr1.engines.answer_grammar import AnswerGrammar  # noqa: E402
from anomalyr1.engines.answer_tokens import read_answer_tokens  # noqa: E402
from anomalyr1.types import HintRegion, Listed  # noqa: E402


@pytest.mark.parametrize(
    ("written", "marks"),
    [
        ("<think>The map's score is high", set()),
        ('</think><answer>{"verdict": "anomalous", "defects": [{"label": "dent', {'",'}),
        ('</think><answer>[{"label": "dent", "description": "a dent', {'"}', '"}]}</'}),
    ],
)
def test_words_hold_no_marks_but_what_ends_them(
    tokenizer: Any, written: str, marks: set[str]
) -> None:
    allowed = find_every_allowed(tokenizer, written, (), "Judge this part.")
    words = tokenizer.convert_ids_to_tokens(sorted(allowed))
    assert {word for word in words if set(word) & set('"{}[]')} == marks
    assert len(allowed) > len(tokenizer.get_vocab()) - 40


@pytest.mark.parametrize(
    ("written", "options"),
    [
        ("<answer>", None),
        ("<think>Good.</think><answer>", None),
        ('<answer>{"verdict": "anomalous", "defects": [{"label": "dent", "description', None),
        ("<think>It says ", {"A": "Dent", "B": "Hole"}),
        ("<think>It says ", {"first": "Dent", "second": "Hole"}),
    ],
)
def test_marks_stand_where_an_answer_has_its_shape_and_in_a_question(
    tokenizer: Any, written: str, options: dict[str, str] | None
) -> None:
    allowed = find_every_allowed(tokenizer, written, (), "Judge this part.", options)
    assert {'"', '":', "{"} <= set(tokenizer.convert_ids_to_tokens(sorted(allowed)))


def test_a_text_begins_once(tokenizer: Any) -> None:
    (begun, *_rest) = tokenizer("<think>")["input_ids"]
    assert begun in find_every_allowed(tokenizer, "", (), "Map")
    assert begun not in find_every_allowed(tokenizer, "<think>It is", (), "Judge this part.")


@pytest.mark.parametrize(
    ("listed", "told"),
    [
        (LISTED[:1], "There is"),
        (LISTED[:2], "There are two defects"),
        (LISTED, "There are three defects"),
        (LISTED * 3, "There are many defects"),
    ],
)
def test_as_many_defects_are_told_as_will_be_boxed(
    tokenizer: Any, listed: Sequence[Box], told: str
) -> None:
    ids = tokenizer(f" {told}")["input_ids"]
    for length in range(1, len(ids)):
        written = "It is bright." + tokenizer.decode(ids[:length])
        assert find_every_allowed(tokenizer, written, listed) == {ids[length]}
    after = find_allowed(tokenizer, f"It is bright. {told}", listed)
    assert after is None


@pytest.mark.parametrize(
    ("listed", "options"),
    [((), None), (LISTED, {"A": "Dent", "B": "Hole"}), (LISTED, {"one": "Dent", "two": "Hole"})],
)
def test_the_number_of_defects_is_free_without_a_list_and_in_a_question(
    tokenizer: Any, listed: Sequence[Box], options: dict[str, str] | None
) -> None:
    assert find_allowed(tokenizer, "It is bright. There", listed, options=options) is None


NAMED = (
    HintRegion((12, 30, 44, 60), 97, "top", "scratch"),
    HintRegion((12, 35, 80, 61), 55, "bottom left", "missing part"),
)
FIRST = '"bbox_2d": [12, 30, 44, 60], "label'
SECOND = '"bbox_2d": [12, 35, 80, 61], "label'
OTHER = '"bbox_2d": [13, 35, 80, 61], "label'


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("There is a clear", {"scratch", "missing"}),
        (FIRST + '": "', {"scratch"}),
        (FIRST + '": "scratch", "description": "severe', {"scratch"}),
        (FIRST + '": "scratch"}, {' + SECOND + '": "', {"missing"}),
        (OTHER + '": "', None),
        ("It has a", None),
        ("Like a clear", {"scratch", "missing"}),
    ],
)
def test_a_region_is_called_no_other_kind_than_the_prompt_does(
    tokenizer: Any, written: str, named: set[str] | None
) -> None:
    allowed = find_allowed(tokenizer, written, NAMED, "Judge this part. ")
    words = {kind: tokenizer(f" {kind}")["input_ids"][0] for kind in KIND_WORDS}
    found = {kind.split()[0] for kind, token in words.items() if allowed and token in allowed}
    assert (allowed is None) if named is None else (found == named)
    hair = tokenizer(" hair")["input_ids"][0]
    assert allowed is None or hair in allowed, "words that are no kind of the map's stay"


@pytest.mark.parametrize(
    ("written", "named"),
    [
        ("It lies at the", {"top", "bottom"}),
        ("It lies at the bottom", {"left"}),
        ("It lies at the top", set()),
        ("It lies at the rim", None),
        (FIRST + '": "scratch", "description": "clear scratch at the', {"top"}),
        (SECOND + '": "hole", "description": "clear hole at the', {"bottom"}),
        (SECOND + '": "hole", "description": "clear hole at the bottom', {"left"}),
        (OTHER + '": "hole", "description": "clear hole at the', None),
        ("It is in the", None),
    ],
)
def test_a_region_lies_at_no_other_place_than_the_prompt_says(
    tokenizer: Any, written: str, named: set[str] | None
) -> None:
    allowed = find_allowed(tokenizer, written, NAMED, "Judge this part. ")
    words = ("top", "bottom", "left", "right", "centre")
    tokens = {word: tokenizer(f" {word}")["input_ids"][0] for word in words}
    found = {word for word, token in tokens.items() if allowed and token in allowed}
    if named is None:
        assert allowed is None
    elif written.endswith("at the top"):
        assert found == {"top", "bottom", "centre"}, "nothing goes on to another place"
    else:
        assert found == named


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (" It is bright", " at"),
        (" It is bright at", " the"),
        (" It is bright at the", " bottom top"),
        (" It is bright at the bottom", " left"),
        (" It is bright at the top", ", ."),
        (" It is bright at the top,", " at"),
        (" It is bright at the top, at the", " bottom"),
        (" It is bright at the top, at the bottom left", "."),
        (" It looks", " like"),
        (" It looks like a", " missing scratch"),
        (" It looks like a missing", " part"),
        (" It looks like a scratch, like a", " missing"),
        (" It looks like a scratch, like a missing part", "."),
        (" I take that", " for"),
        (" I take that for", " a no"),
        (" I take that for no", " defect"),
        (" I take that for a defect", "."),
        (" It is bright at the top.", None),
        (" It is even", None),
        (FIRST + '": "x", "description": "Odd. It looks', None),
    ],
)
def test_a_sentence_on_the_map_names_each_thing_once_and_ends(
    tokenizer: Any, written: str, text: str | None
) -> None:
    allowed = find_allowed(tokenizer, written, (*NAMED, NAMED[0]), "Judge this part.")
    if text is None:
        assert allowed is None
    else:
        assert allowed is not None
        words = sorted(tokenizer.decode([token]) for token in allowed)
        assert words == sorted(word if word in ",." else f" {word}" for word in text.split())


@pytest.mark.parametrize(
    ("strength", "written", "text"),
    [
        ("faint", "<think>The map's score is", " faint"),
        ("faint", "<think>The map's score is faint", "."),
        ("", "<think>The map's score is", None),
    ],
)
def test_the_score_is_told_in_the_prompts_word(
    tokenizer: Any, strength: str, written: str, text: str | None
) -> None:
    allowed = find_allowed(tokenizer, written, (), "Judge this part.", strength=strength)
    assert allowed == (None if text is None else set(tokenizer(text)["input_ids"]))


def test_three_places_are_named_at_most(tokenizer: Any) -> None:
    places = ("top", "left", "right", "centre")
    listed = [HintRegion((n, n, n + 9, n + 9), 9, place) for n, place in enumerate(places)]
    written = " It is bright at the left, at the right, at the top"
    allowed = find_allowed(tokenizer, written, listed, "Judge this part.")
    assert allowed == {tokenizer(".")["input_ids"][0]}


@pytest.mark.parametrize(("liking", "goes_on"), [(9.0, True), (0.0, False)])
def test_a_refused_kind_that_was_about_to_come_leaves_only_those_that_are_listed(
    tokenizer: Any, liking: float, goes_on: bool
) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    ids = tokenizer("There is a clear", return_tensors="pt")["input_ids"]
    scores = torch.zeros(1, len(tokenizer.get_vocab()))
    scores[0, sorted(tokens.kinds["hole"])] = liking
    scores = AnswerGrammar(tokens, [Listed(NAMED)])(ids, scores)
    allowed = set(torch.nonzero(scores[0] > -torch.inf)[:, 0].tolist())
    listed = tokens.kinds["scratch"] | tokens.kinds["missing part"]
    assert not allowed & tokens.kinds["hole"] and allowed >= listed
    assert (allowed == listed) == goes_on


def test_kinds_are_free_where_a_region_has_none(tokenizer: Any) -> None:
    assert find_allowed(tokenizer, "There is a clear", LISTED, "Judge this part. ") is None


@pytest.mark.parametrize(
    ("written", "is_over"),
    [
        ('"}]}</answer>', True),
        ('"defects": []}</answer>', True),
        ("<answer>B</answer>", True),
        ("</think>", False),
    ],
)
def test_nothing_follows_the_answer(tokenizer: Any, written: str, is_over: bool) -> None:
    allowed = find_allowed(tokenizer, written, LISTED)
    assert allowed == ({tokenizer.eos_token_id} if is_over else None)


@pytest.mark.parametrize(
    "written", ["<answer>", '</think><answer>{"verdict": "normal', "<answer>B"]
)
def test_an_answer_does_not_end_before_its_tag(tokenizer: Any, written: str) -> None:
    allowed = find_allowed(tokenizer, written, ())
    assert allowed is not None and tokenizer.eos_token_id not in allowed
    assert tokenizer("</answer>")["input_ids"][0] in allowed


@pytest.mark.parametrize(("before", "opens"), [("a shallow", False), ("<", True), ("</", True)])
def test_the_word_of_a_tag_stands_in_a_tag_only(tokenizer: Any, before: str, opens: bool) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    ids = tokenizer(f"It is {before}answer>", return_tensors="pt")["input_ids"]
    place = ids[0].tolist().index(tokens.name)
    scores = torch.zeros(1, len(tokenizer.get_vocab()))
    scores = AnswerGrammar(tokens, [Listed()])(ids[:, :place], scores)
    assert (scores[0, tokens.name] == 0) == opens


def test_what_was_left_out_before_is_not_made_to_follow(tokenizer: Any) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    ids = tokenizer("<answer>B</answer>")["input_ids"]
    scores = torch.zeros(1, len(tokenizer.get_vocab()))
    scores[0, tokens.end] = -torch.inf
    constrained = AnswerGrammar(tokens, [Listed()])(torch.tensor([ids]), scores.clone())
    scores[0, [tokens.name, tokens.key, *tokens.marks]] = -torch.inf
    assert torch.equal(constrained, scores), "nothing would be left"
