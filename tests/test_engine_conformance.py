"""What every engine promises, on every engine that can run here, beside nano's own answers.

openai is nano behind this package's server on loopback; scripted speaks what nano says; vllm is
in test_vllm_engine.py, since it needs a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from browsing import Served
from builders import make_record
from PIL import Image, ImageDraw

from anomalyr1.engines import Engine
from anomalyr1.engines.openai_engine import OpenAIEngine, OpenAISettings
from anomalyr1.engines.scripted import ScriptedEngine
from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.hints import draw_hint
from anomalyr1.inspector import Inspector
from anomalyr1.parsing import parse_inspection
from anomalyr1.prompts import build_choice_prompt, build_inspection_prompt
from anomalyr1.types import Hint, HintRegion, InputError, Prompt, Question, Record, Response

RECORD = Record("part", Path("part.png"), category="plate")
SIZE_WH = (196, 168)
"""Shown as it is: in nano's range of sizes, with sides of whole patches."""

Ask = tuple[Prompt, list[Image.Image]]


@pytest.fixture(scope="module")
def nano() -> TransformersEngine:
    return TransformersEngine.load("nano", device="cpu")


@pytest.fixture(scope="module", params=["transformers", "openai", "scripted"])
def engine(
    request: pytest.FixtureRequest,
    nano: TransformersEngine,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Engine]:
    if request.param == "transformers":
        yield nano
    elif request.param == "scripted":
        yield ScriptedEngine(lambda prompt, shown: nano.generate([prompt], [shown])[0].text)
    else:
        served = Served(tmp_path_factory.mktemp("station") / "data", Inspector(nano))
        asking = OpenAISettings(logprobs=True, retries=0, timeout_s=60)
        yield OpenAIEngine(f"http://127.0.0.1:{served.port}/v1", "nano", settings=asking)
        served.close()


def draw_part(
    level: int = 150, *, mark: bool = False, size_wh: tuple[int, int] = SIZE_WH
) -> Image.Image:
    noise = np.random.default_rng(level).integers(-9, 9, (size_wh[1], size_wh[0], 3))
    picture = Image.fromarray((level + noise).astype(np.uint8))
    if mark:
        ImageDraw.Draw(picture).line((40, 30, 90, 70), fill=(20, 20, 25), width=4)
    return picture


def ask_with_map() -> Ask:
    """One reference, the picture and its map, with a region told in words."""
    anomaly_map = np.full((21, 24), 0.05, np.float32)
    anomaly_map[4:9, 5:11] = 0.95
    hint = Hint(93, (HintRegion((40, 30, 90, 70), 95, "centre", "hole"),))
    prompt = build_inspection_prompt(RECORD, num_references=1, hint=hint)
    return prompt, [draw_part(140), draw_part(mark=True), draw_hint(anomaly_map, SIZE_WH)]


def ask_alone() -> Ask:
    prompt = build_inspection_prompt(RECORD, num_references=0, hint=None)
    return prompt, [draw_part(120)]


def ask_letter() -> Ask:
    question = Question("Is there a defect?", {"A": "Yes.", "B": "No."})
    record = replace(RECORD, record_id="letter", question=question)
    return build_choice_prompt(record, num_references=1, hint=None), [draw_part(), draw_part(90)]


def ask_too_much() -> Ask:
    record = replace(RECORD, knowledge="very " * 15_000)
    return build_inspection_prompt(record, num_references=0, hint=None), [draw_part()]


ASKS: list[Callable[[], Ask]] = [ask_with_map, ask_alone, ask_letter]


@pytest.mark.parametrize("ask", ASKS, ids=lambda ask: ask.__name__)
def test_greedy_answers_are_those_of_nano(
    engine: Engine, nano: TransformersEngine, ask: Callable[[], Ask]
) -> None:
    prompt, shown = ask()
    (expected,) = nano.generate([prompt], [shown])
    (made,) = engine.generate([prompt], [shown])
    assert made.text == expected.text != ""
    assert (made.record_id, made.finish_reason) == (prompt.record_id, "stop")
    assert made.num_tokens > 0


def test_prompts_with_one_two_and_three_pictures_share_a_call_and_keep_their_order(
    engine: Engine,
) -> None:
    asked = [ask() for ask in ASKS]
    together = engine.generate([prompt for prompt, _ in asked], [shown for _, shown in asked])
    for (prompt, shown), made in zip(asked, together, strict=True):
        (alone,) = engine.generate([prompt], [shown])
        assert (made.record_id, made.text) == (prompt.record_id, alone.text)
        assert made.image_sizes_wh == tuple(picture.size for picture in shown)


def test_no_prompts_give_no_completions(engine: Engine) -> None:
    assert list(engine.generate([], [])) == []


def read(engine: Engine, asked: Ask, original_wh: tuple[int, int]) -> Response:
    prompt, shown = asked
    (made,) = engine.generate([prompt], [shown])
    return parse_inspection(
        made.text,
        shown_size_wh=made.image_sizes_wh[1],
        original_size_wh=original_wh,
        frame=engine.frame,
        finish_reason=made.finish_reason,
    )


def test_boxes_come_back_in_pixels_of_the_original(
    engine: Engine, nano: TransformersEngine
) -> None:
    original_wh = (784, 672)
    response = read(engine, ask_with_map(), original_wh)
    assert response.status == "ok" and response.label == "anomalous"
    expected = read(nano, ask_with_map(), original_wh)
    assert response.regions == expected.regions != ()


def test_a_picture_larger_than_the_model_sees_is_told_at_the_size_it_saw(
    engine: Engine, nano: TransformersEngine
) -> None:
    prompt, _ = ask_alone()
    large = draw_part(size_wh=(336, 280))
    (made,) = engine.generate([prompt], [[large]], max_new_tokens=1)
    scripted = isinstance(engine, ScriptedEngine)
    assert made.image_sizes_wh == ((336, 280) if scripted else nano.shown_size((336, 280)),)


def test_log_probabilities_are_one_a_token_and_depend_on_the_order_of_the_pictures(
    engine: Engine, nano: TransformersEngine
) -> None:
    prompt, shown = ask_letter()
    (made,) = engine.generate([prompt], [shown])
    if isinstance(engine, ScriptedEngine):
        assert made.token_logprobs == ()
        return
    (expected,) = nano.generate([prompt], [shown])
    assert len(made.token_logprobs) == made.num_tokens
    assert made.token_logprobs == pytest.approx(expected.token_logprobs, abs=1e-4)
    (swapped,) = engine.generate([prompt], [shown[::-1]])
    assert swapped.token_logprobs[0] != pytest.approx(made.token_logprobs[0], abs=1e-4)


def test_a_text_that_is_cut_says_so_and_is_the_beginning_of_the_whole(engine: Engine) -> None:
    prompt, shown = ask_with_map()
    (whole,) = engine.generate([prompt], [shown])
    (cut,) = engine.generate([prompt], [shown], max_new_tokens=5)
    assert (cut.finish_reason, cut.num_tokens) == ("length", 5)
    assert cut.text and whole.text.startswith(cut.text)


def test_a_stream_is_the_greedy_text_in_pieces(engine: Engine) -> None:
    prompt, shown = ask_with_map()
    pieces = list(engine.stream(prompt, shown))
    (whole,) = engine.generate([prompt], [shown])
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text


@pytest.mark.parametrize(("limit", "reason"), [(5, "length"), (None, "stop")])
def test_a_stream_ends_where_it_is_told_to_and_says_why(
    engine: Engine, limit: int | None, reason: str
) -> None:
    prompt, shown = ask_with_map()
    stream = engine.stream(prompt, shown, max_new_tokens=limit)
    pieces: list[str] = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            assert end.value == reason
            break
    (same,) = engine.generate([prompt], [shown], max_new_tokens=limit)
    assert "".join(pieces) == same.text


def test_a_closed_stream_stops_the_model_which_then_takes_the_next_prompt(
    engine: Engine, nano: TransformersEngine
) -> None:
    prompt, shown = ask_with_map()
    num_tokens = nano.generate([prompt], [shown])[0].num_tokens
    is_scripted = isinstance(engine, ScriptedEngine)  # its text is whole before the first piece
    passes: list[int] = []
    never = threading.Event()

    def count(*_arguments: object) -> None:
        passes.append(1)
        if not is_scripted:
            never.wait(0.02)  # the server needs a moment to see that the client has hung up

    handle = nano._model.register_forward_pre_hook(count)
    try:
        pieces = engine.stream(prompt, shown)
        next(pieces)
        pieces.close()
        other, pictures = ask_letter()
        (made,) = engine.generate([other], [pictures], max_new_tokens=1)
    finally:
        handle.remove()
    assert made.num_tokens == 1
    if not is_scripted:
        assert 0 < len(passes) < num_tokens / 2


def test_a_prompt_that_does_not_fit_is_an_error_that_says_so(engine: Engine) -> None:
    prompt, shown = ask_too_much()
    try:
        (made,) = engine.generate([prompt], [shown])
    except InputError as error:
        assert "the model's context" in str(error)
    else:
        assert (made.finish_reason, made.text) == ("error", "")
        assert "the model's context" in made.problem


def test_one_record_that_fails_leaves_the_others_as_they_are(
    engine: Engine, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        draw_part(100 + 20 * number).save(path)
    records: Sequence[Record] = [make_record(path) for path in paths]
    inspector = Inspector(engine)
    expected = [one.finding for one in inspector.inspect_records([records[0], records[2]])]
    failing = replace(records[1], knowledge="very " * 15_000)
    found = [one.finding for one in inspector.inspect_records([records[0], failing, records[2]])]
    assert found[1].verdict == "unread" and "context" in str(found[1].error)
    for one, other in zip((found[0], found[2]), expected, strict=True):
        assert (one.raw_text, one.verdict, one.error) == (other.raw_text, other.verdict, None)
