"""A small model's boxes and words are those of the regions that the prompt lists, and nothing
follows its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from anomalyr1.data.wording import KIND_WORDS  # noqa: E402
from anomalyr1.engines.answer_grammar import AnswerGrammar  # noqa: E402
from anomalyr1.engines.answer_tokens import read_answer_tokens  # noqa: E402
from anomalyr1.training.nano import build_tokenizer  # noqa: E402
from anomalyr1.types import HintRegion, Listed  # noqa: E402

Box = tuple[int, int, int, int]

LISTED = ((12, 30, 44, 60), (12, 35, 80, 61), (90, 12, 99, 30))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer(2560, 0)


def as_listed(
    listed: Sequence[Box] | Sequence[HintRegion],
    options: dict[str, str] | None = None,
    strength: str = "",
) -> Listed:
    regions = (
        item if isinstance(item, HintRegion) else HintRegion(item, 90, "centre") for item in listed
    )
    return Listed(tuple(regions), tuple((options or {}).items()), strength)


def find_every_allowed(
    tokenizer: Any,
    written: str,
    listed: Sequence[Box] | Sequence[HintRegion],
    before: str = "Map: [7, 7, 7, 7]",
    options: dict[str, str] | None = None,
    strength: str = "",
) -> set[int]:
    """The tokens that may come next."""
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    grammar = AnswerGrammar(tokens, [as_listed(listed, options, strength)])
    # An announced number begins behind its space, which is a token of its own.
    due = written.endswith((" ", "["))
    ids = tokenizer(before + written + "1" * due)["input_ids"]
    ids = ids[:-1] if due else ids
    size = len(tokenizer.get_vocab())
    scores = torch.zeros(1, size)
    for length in range(3, len(ids) + 1):
        scores = grammar(torch.tensor([ids[:length]]), torch.zeros(1, size))
    return set(torch.nonzero(scores[0] == 0)[:, 0].tolist())


def find_allowed(
    tokenizer: Any,
    written: str,
    listed: Sequence[Box] | Sequence[HintRegion],
    *rest: Any,
    **given: Any,
) -> set[int] | None:
    """The tokens that may come next; None where all may but the word of a tag without its "<", the
    key of a box without its brace, the end of a list that is not whole, a second beginning, and
    marks in words."""
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    allowed = find_every_allowed(tokenizer, written, listed, *rest, **given)
    size = len(tokenizer.get_vocab())
    if len(allowed) > size // 2:
        allowed |= {tokens.name, tokens.key, tokens.thinking, *tokens.list_ends, *tokens.marks}
    return None if len(allowed) == size else allowed


def as_numbers(tokenizer: Any, ids: set[int] | None) -> set[int] | None:
    return None if ids is None else {int(tokenizer.decode([token])) for token in ids}


@pytest.mark.parametrize(
    ("written", "allowed"),
    [
        ('"bbox_2d": [', {12, 90}),
        ('"bbox_2d": [12, ', {30, 35}),
        ('"bbox_2d": [12, 35, ', {80}),
        ('"bbox_2d": [12, 35, 80, ', {61}),
        ('"bbox_2d": [12, 35, 80, 61], ', None),
        ('"bbox_2d": [12, 35, 80, 61], "label": "dent"}, {"bbox_2d": [', {12, 90}),
        ('"bbox_2d": [12, 35, 80, 61], "label": "dent"}, {"bbox_2d": [12, ', {30}),
        ('"bbox_2d": [90, 12, 99, 30]}, {"bbox_2d": [', {12}),
        ("In 12, 35, ", None),
        ('"bbox_2d": [one, ', None),
        ("", None),
    ],
)
def test_a_box_is_one_of_the_listed_ones_that_is_not_written_yet(
    tokenizer: Any, written: str, allowed: set[int] | None
) -> None:
    assert as_numbers(tokenizer, find_allowed(tokenizer, written, LISTED)) == allowed


@pytest.mark.parametrize(
    ("written", "text"), [('"bbox_2d": [12', ","), ('"bbox_2d": [12,', " "), ('"x": 12,', None)]
)
def test_a_listed_box_that_is_begun_is_gone_on_with(
    tokenizer: Any, written: str, text: str | None
) -> None:
    allowed = find_allowed(tokenizer, written, LISTED)
    assert (None if allowed is None else tokenizer.decode(sorted(allowed))) == text


@pytest.mark.parametrize("listed", [LISTED, ()])
def test_no_fifth_number_stands_in_a_box(tokenizer: Any, listed: Any) -> None:
    allowed = find_every_allowed(tokenizer, '</think><answer>[{"bbox_2d": [12, 35, 80, 61', listed)
    texts = {tokenizer.decode([token]) for token in allowed}
    assert not [text for text in texts if text.strip().isdigit() or text in (",", " ")]
    assert "]" in texts


def find_ends(tokenizer: Any) -> tuple[int, int]:
    """What ends a defect that another follows, and what ends the last."""
    another, last = (tokenizer(text)["input_ids"][0] for text in ('"}, {', '"}]}</answer>'))
    assert tokenizer.decode([another]) == '"}' and tokenizer.decode([last]) == '"}]}</'
    return another, last


@pytest.mark.parametrize(
    ("listed", "goes_on", "ends"),
    [(LISTED[:1], False, True), (LISTED, True, False), ((), True, True)],
)
def test_the_list_ends_when_all_listed_boxes_are_written_and_not_before(
    tokenizer: Any, listed: Sequence[Box], goes_on: bool, ends: bool
) -> None:
    written = '"bbox_2d": [12, 30, 44, 60], "label": "dent", "description": "a dent'
    allowed = find_every_allowed(tokenizer, written, listed)
    another, last = find_ends(tokenizer)
    assert (another in allowed, last in allowed) == (goes_on, ends)


def test_before_the_first_box_a_list_may_end(tokenizer: Any) -> None:
    """An anomalous part may have no defect that can be pointed at."""
    allowed = find_every_allowed(tokenizer, '<answer>{"verdict": "anomalous", "defects":', LISTED)
    assert find_ends(tokenizer)[1] in allowed


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


OPTIONS = {"A": "Thread pull.", "B": "Thread, bent", "C": "2.5 holes", "D": "Thread pull."}
FITTING = "It is odd. What fits best is:"


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ("", {" Thread", " "}),
        (" Thread", {" pull", ","}),
        (" Thread pull", {"."}),
        (" Thread,", {" bent"}),
        (" 2", {"."}),
        (" 2.", {"5"}),
        (" 2.5 holes", {"."}),
    ],
)
def test_the_option_that_fits_is_quoted_word_for_word(
    tokenizer: Any, written: str, texts: set[str]
) -> None:
    allowed = find_allowed(tokenizer, FITTING + written, (), "", OPTIONS)
    assert allowed is not None
    firsts = {tokenizer(text)["input_ids"][0] for text in texts}
    assert firsts <= allowed and len(allowed) == len(texts)


PLACES = {"A": "Top", "B": "Top left.", "C": "Centre", "D": "left"}


@pytest.mark.parametrize(
    ("said", "begun", "texts"),
    [
        ("It is bright at the centre, at the bottom.", "", {" Centre"}),
        ("It is bright at the centre. There is a cut at the top.", "", {" Top"}),
        ("There is a cut at the top left.", " Top", {" left"}),
        ("There is a cut at the top, not at the left.", "", {" left"}),
        ("There is a cut at the bottom.", "", {" Top", " Centre", " left"}),
    ],
)
def test_the_option_that_was_named_last_is_the_one_that_fits(
    tokenizer: Any, said: str, begun: str, texts: set[str]
) -> None:
    written = f"{said} What fits best is:{begun}"
    allowed = find_allowed(tokenizer, written, (), "", PLACES)
    assert allowed == {tokenizer(text)["input_ids"][0] for text in texts}


@pytest.mark.parametrize(
    ("quoted", "letter"), [(" Thread pull.", "A"), (" Thread, bent.", "B"), (" 2.5 holes.", "C")]
)
def test_from_there_on_no_other_letter_is_named(tokenizer: Any, quoted: str, letter: str) -> None:
    told = f"{FITTING}{quoted} So the answer is"
    allowed = find_allowed(tokenizer, told, (), "", OPTIONS)
    assert allowed is not None
    forms = {other: tokenizer(f" {other}")["input_ids"][-1] for other in "ABCDE"}
    assert [other for other, form in forms.items() if form in allowed] == [letter]
    asked = find_allowed(tokenizer, f"{told} {letter}.</think><answer", (), "", OPTIONS)
    assert asked == {tokenizer(f"<answer>{letter}")["input_ids"][-1]}


def test_an_answer_to_a_question_is_a_letter_of_its_options(tokenizer: Any) -> None:
    allowed = find_allowed(tokenizer, "It is odd.</think><answer", (), "", OPTIONS)
    assert allowed == {tokenizer(f"<answer>{letter}")["input_ids"][-1] for letter in OPTIONS}
    ended = find_allowed(tokenizer, "It is odd.</think><answer>C", (), "", OPTIONS)
    assert ended == {tokenizer("</answer>")["input_ids"][0]}
    free = find_allowed(tokenizer, "It is odd.</think><answer", ())
    assert free is not None and len(free) == len(tokenizer.get_vocab()) - 1, "all but the end"


def test_options_under_other_names_than_letters_are_left_alone(tokenizer: Any) -> None:
    named = {"1": "A dent", "2": "A hole"}
    assert find_allowed(tokenizer, FITTING, (), "", named) is None


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


@pytest.mark.parametrize(
    ("written", "opens"),
    [
        ('"label": "dent"}, {"', True),
        ('"defects": [{"', True),
        ('"description": "a shallow slit where another', False),
        ('"bbox_2d": [12, 35, 80, 61], "', False),
    ],
)
def test_the_key_of_a_box_stands_where_a_defect_begins(
    tokenizer: Any, written: str, opens: bool
) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None and tokenizer.decode([tokens.key]) == "bbox_2d"
    ids = tokenizer(written, return_tensors="pt")["input_ids"]
    scores = torch.zeros(1, len(tokenizer.get_vocab()))
    scores = AnswerGrammar(tokens, [as_listed(())])(ids, scores)
    assert (scores[0, tokens.key] == 0) == opens


@pytest.mark.parametrize(("before", "opens"), [("a shallow", False), ("<", True), ("</", True)])
def test_the_word_of_a_tag_stands_in_a_tag_only(tokenizer: Any, before: str, opens: bool) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    ids = tokenizer(f"It is {before}answer>", return_tensors="pt")["input_ids"]
    place = ids[0].tolist().index(tokens.name)
    scores = torch.zeros(1, len(tokenizer.get_vocab()))
    scores = AnswerGrammar(tokens, [Listed()])(ids[:, :place], scores)
    assert (scores[0, tokens.name] == 0) == opens


@pytest.mark.parametrize(
    ("written", "refused"),
    [
        ('"bbox_2d": [100, 37, ', 100),
        ('"bbox_2d": [100, 37, 120, ', 37),
        ('"bbox_2d": [100, ', None),
        ('"bbox_2d": [100, 37, 120, 50, ', None),
    ],
)
def test_without_a_list_only_numbers_that_leave_no_area_are_left_out(
    tokenizer: Any, written: str, refused: int | None
) -> None:
    allowed = find_allowed(tokenizer, written, ())
    numbers = {int(word) for word in tokenizer.get_vocab() if word.isdecimal()}
    out = set() if allowed is None else set(range(len(tokenizer.get_vocab()))) - allowed
    expected = set() if refused is None else {value for value in numbers if value <= refused}
    assert (as_numbers(tokenizer, out) or set()) == expected


def test_each_row_has_a_list_of_its_own(tokenizer: Any) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    grammar = AnswerGrammar(tokens, [as_listed(LISTED[:1]), as_listed(LISTED[2:])])
    ids = torch.tensor([[0, 0, tokens.opening]] * 2)
    scores = grammar(ids, torch.zeros(2, len(tokenizer.get_vocab())))
    assert [
        as_numbers(tokenizer, set(torch.nonzero(row == 0)[:, 0].tolist())) for row in scores
    ] == [{12}, {90}]


def test_what_was_left_out_before_is_not_made_to_follow(tokenizer: Any) -> None:
    tokens = read_answer_tokens(tokenizer)
    assert tokens is not None
    ids = tokenizer("<answer>B</answer>")["input_ids"]
    scores = torch.zeros(1, len(tokenizer.get_vocab()))
    scores[0, tokens.end] = -torch.inf
    constrained = AnswerGrammar(tokens, [Listed()])(torch.tensor([ids]), scores.clone())
    scores[0, [tokens.name, tokens.key, *tokens.marks]] = -torch.inf
    assert torch.equal(constrained, scores), "nothing would be left"


def test_a_tokenizer_that_writes_digits_has_no_such_grammar() -> None:
    class Digits:
        def get_vocab(self) -> dict[str, int]:
            return {str(digit): digit for digit in range(10)}

    assert read_answer_tokens(Digits()) is None
