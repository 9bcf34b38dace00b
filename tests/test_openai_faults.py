"""Models behind an endpoint that is busy, broken, slow or gone, or that refuses the key."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from builders import NORMAL, make_picture, make_record
from endpoints import Reply, Serve, ask, fail, make_engine, say
from PIL import Image

from anomalyr1.engines.openai_engine import OpenAIEngine
from anomalyr1.inspector import Inspector
from anomalyr1.prompts import build_inspection_prompt
from anomalyr1.types import InputError, Question, Record, RefusedError


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_a_busy_or_broken_server_is_asked_again_with_growing_pauses(
    status: int, serve: Serve
) -> None:
    endpoint = serve(lambda number, request: fail(status) if number < 3 else say(NORMAL))
    pauses: list[float] = []
    (made,) = ask(make_engine(endpoint, pauses, pause_s=1.0))
    assert made.text == NORMAL
    assert len(endpoint.requests) == 4
    assert 0.5 <= pauses[0] <= 1 <= pauses[1] <= 2 <= pauses[2] <= 4


def test_a_server_that_names_its_pause_is_given_it(serve: Serve) -> None:
    endpoint = serve(
        lambda number, request: fail(429, retry_after="17") if number == 0 else say(NORMAL)
    )
    pauses: list[float] = []
    ask(make_engine(endpoint, pauses))
    assert pauses == [17.0]


def test_a_server_that_stays_broken_is_an_error_that_says_so(
    serve: Serve,
) -> None:
    endpoint = serve(lambda number, request: fail(503, "overloaded"))
    (made,) = ask(make_engine(endpoint, retries=2))
    assert (made.finish_reason, made.text) == ("error", "")
    assert "HTTP 503, tried 3 times" in made.problem and "overloaded" in made.problem
    assert len(endpoint.requests) == 3


@pytest.mark.parametrize(
    ("reply", "told"),
    [
        (fail(400, "picture too large"), "HTTP 400: .*picture too large"),
        (fail(413, "too much"), "HTTP 413"),
        (fail(422, "no"), "HTTP 422"),
        ((200, b"<html>busy</html>", {}), "."),
        ((200, {"choices": []}, {}), "no choice"),
        ((200, {}, {}), "no choice"),
        ((200, b'{"choices": [', {}), "."),
    ],
)
def test_any_other_fault_is_recorded_and_not_tried_again(
    reply: Reply, told: str, serve: Serve
) -> None:
    endpoint = serve(lambda number, request: reply)
    pauses: list[float] = []
    (made,) = ask(make_engine(endpoint, pauses))
    assert made.finish_reason == "error"
    assert re.search(told, made.problem), made.problem
    assert (len(endpoint.requests), pauses) == (1, [])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_would_fail_every_request_stops_at_once(status: int, serve: Serve) -> None:
    with pytest.raises(InputError, match=r"OPENAI_API_KEY|check the URL"):
        ask(make_engine(serve(lambda number, request: fail(status))))


@pytest.mark.parametrize("what", ["inspect_records", "answer_records"])
def test_a_refused_key_ends_a_run_after_as_many_requests_as_are_under_way(
    what: str, serve: Serve, tmp_path: Path
) -> None:
    endpoint = serve(lambda number, request: fail(401))
    picture = make_picture(tmp_path / "a.png")
    question = Question("Is it whole?", {"A": "Yes", "B": "No"}, "A")
    records = [Record(str(number), picture, question=question) for number in range(30)]
    inspector = Inspector(make_engine(endpoint, concurrency=2))
    with pytest.raises(RefusedError, match="OPENAI_API_KEY"):
        list(getattr(inspector, what)(records, batch_size=4))
    assert len(endpoint.requests) <= 4


def test_a_server_that_does_not_answer_in_time_is_an_error(serve: Serve) -> None:
    release = threading.Event()

    def hang(number: int, request: object) -> Reply:
        release.wait(5)
        return say(NORMAL)

    (made,) = ask(make_engine(serve(hang), timeout_s=0.1))
    release.set()
    assert (made.finish_reason, made.problem) == ("error", "no answer within 0.1 s")


def test_a_server_that_is_not_there_is_an_error() -> None:
    engine = OpenAIEngine("http://127.0.0.1:9/v1", "m")
    (made,) = ask(engine)
    assert made.finish_reason == "error"
    assert made.problem == "http://127.0.0.1:9/v1/ cannot be reached: is the server running?"


def test_a_stream_that_breaks_off_or_cannot_begin_is_an_error(
    serve: Serve,
) -> None:
    def chunk(text: str) -> str:
        choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
        body = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        return f"data: {json.dumps(body | {'choices': [choice]})}\n\n"

    broken = chunk("so far") + 'data: {"error": {"message": "out of memory"}}\n\n'
    endpoint = serve(
        lambda number, request: fail(400, "no") if number else (200, broken.encode(), {})
    )
    engine = make_engine(endpoint)
    prompt = build_inspection_prompt(make_record(Path("a.png")), num_references=0, hint=None)
    pieces = engine.stream(prompt, [Image.new("RGB", (64, 48))])
    assert next(pieces) == "so far"
    with pytest.raises(InputError, match="out of memory"):
        next(pieces)
    with pytest.raises(InputError, match="HTTP 400: no"):
        list(engine.stream(prompt, [Image.new("RGB", (64, 48))]))
