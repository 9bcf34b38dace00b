"""Models behind an endpoint: the official client against a real server on loopback, with faults."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import NORMAL, anomalous, make_picture, make_record
from miniature import write_miniature
from PIL import Image
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.cli.inspect import run_inspection
from anomalyr1.data.records import write_records
from anomalyr1.engines.chat_messages import encode_picture
from anomalyr1.engines.openai_engine import OpenAIEngine, OpenAISettings, split_name
from anomalyr1.evaluation.answers import load_answers
from anomalyr1.inspector import Inspector
from anomalyr1.models import build_inspector
from anomalyr1.prompts import build_inspection_prompt
from anomalyr1.questioning import answer_into
from anomalyr1.types import Completion, InputError, Question, Record, RefusedError

Reply = tuple[int, dict[str, Any] | bytes, dict[str, str]]


def say(text: str | None, **fields: Any) -> Reply:
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": fields.pop("finish", "stop")}
    body = {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}, **fields,
    }  # fmt: skip
    return 200, body, {}


def fail(status: int, message: str = "broken", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"error": {"message": message, "type": "error"}}, named


@dataclass
class Endpoint:
    """A server that answers by `script(number of the request, request)` and counts."""

    script: Callable[[int, dict[str, Any]], Reply]
    requests: list[dict[str, Any]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    servers = []

    def start(script: Callable[[int, dict[str, Any]], Reply]) -> Endpoint:
        endpoint = Endpoint(script)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                request = json.loads(content) | {"key": self.headers["authorization"]}
                request["path"] = self.path
                with endpoint.lock:
                    number = len(endpoint.requests)
                    endpoint.requests.append(request)
                    endpoint.under_way += 1
                    endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
                status, body, headers = endpoint.script(number, request)
                with endpoint.lock:
                    endpoint.under_way -= 1
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
        return endpoint

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def make_engine(
    endpoint: Endpoint, pauses: list[float] | None = None, **settings: Any
) -> OpenAIEngine:
    noted = [] if pauses is None else pauses
    return OpenAIEngine(endpoint.url, "m", settings=OpenAISettings(**settings), sleep=noted.append)


def ask(
    engine: OpenAIEngine, count: int = 1, size_wh: tuple[int, int] = (64, 48)
) -> list[Completion]:
    record = make_record(Path("part.png"))
    prompt = build_inspection_prompt(record, num_references=1, hint=None)
    picture = Image.new("RGB", size_wh, "grey")
    return list(engine.generate([prompt] * count, [[picture, picture]] * count))


def test_the_prompt_travels_in_the_format_of_the_official_client(
    serve: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    endpoint = serve(lambda number, request: say(NORMAL))
    (made,) = ask(make_engine(endpoint, prices=(10.0, 100.0)))
    assert (made.text, made.num_tokens, made.num_prompt_tokens) == (NORMAL, 7, 100)
    (request,) = endpoint.requests
    assert (request["path"], request["model"], request["temperature"]) == (
        "/v1/chat/completions",
        "m",
        0.0,
    )
    assert request["key"] == "Bearer secret"
    system, user = request["messages"]
    assert system == {"role": "system", "content": "You inspect products for defects."}
    assert [part["type"] for part in user["content"]] == [
        "text", "image_url", "text", "image_url", "text",
    ]  # fmt: skip
    url = user["content"][1]["image_url"]["url"]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == made.image_sizes_wh[0] == (56, 56)


def test_a_small_picture_travels_without_loss_and_a_large_one_as_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 513, 3)).astype(np.uint8)
    for picture, kind in ((noise[:, :512], "PNG"), (noise, "JPEG")):
        uri = encode_picture(Image.fromarray(picture))
        sent = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert (sent.format, sent.size) == (kind, picture.shape[1::-1])
        assert np.array_equal(np.asarray(sent), picture) == (kind == "PNG")


def test_sizes_and_log_probabilities_that_make_no_sense_are_left_out(
    serve: Callable[..., Endpoint],
) -> None:
    odd: list[Any] = [None, 3, {}, {"image_sizes_wh": [[56, 56]]}, {"image_sizes_wh": [[0, 1], 2]}]

    def script(number: int, request: object) -> Reply:
        status, body, headers = say(NORMAL, anomalyr1=odd[number])
        assert isinstance(body, dict)
        body["choices"][0]["logprobs"] = [None, 3, {"content": None}, {"content": [{}]}, []][number]
        return status, body, headers

    endpoint = serve(script)
    for made in ask(make_engine(endpoint, concurrency=1, logprobs=True), len(odd)):
        assert (made.text, made.token_logprobs) == (NORMAL, ())
        assert made.image_sizes_wh == ((56, 56), (56, 56))
    assert all(request["logprobs"] for request in endpoint.requests)


def test_cost_and_tokens_are_counted(serve: Callable[..., Endpoint]) -> None:
    engine = make_engine(serve(lambda number, request: say(NORMAL)), prices=(10.0, 100.0))
    ask(engine, 3)
    usage = engine.usage
    assert (usage.num_requests, usage.num_prompt_tokens, usage.num_tokens) == (3, 300, 21)
    assert usage.cost == pytest.approx((300 * 10 + 21 * 100) / 1e6)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
def test_a_busy_or_broken_server_is_asked_again_with_growing_pauses(
    status: int, serve: Callable[..., Endpoint]
) -> None:
    endpoint = serve(lambda number, request: fail(status) if number < 3 else say(NORMAL))
    pauses: list[float] = []
    (made,) = ask(make_engine(endpoint, pauses, pause_s=1.0))
    assert made.text == NORMAL
    assert len(endpoint.requests) == 4
    assert 0.5 <= pauses[0] <= 1 <= pauses[1] <= 2 <= pauses[2] <= 4


def test_a_server_that_names_its_pause_is_given_it(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(
        lambda number, request: fail(429, retry_after="17") if number == 0 else say(NORMAL)
    )
    pauses: list[float] = []
    ask(make_engine(endpoint, pauses))
    assert pauses == [17.0]


def test_a_server_that_stays_broken_is_an_error_that_says_so(
    serve: Callable[..., Endpoint],
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
    reply: Reply, told: str, serve: Callable[..., Endpoint]
) -> None:
    endpoint = serve(lambda number, request: reply)
    pauses: list[float] = []
    (made,) = ask(make_engine(endpoint, pauses))
    assert made.finish_reason == "error"
    assert re.search(told, made.problem), made.problem
    assert (len(endpoint.requests), pauses) == (1, [])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_would_fail_every_request_stops_at_once(
    status: int, serve: Callable[..., Endpoint]
) -> None:
    with pytest.raises(InputError, match=r"OPENAI_API_KEY|check the URL"):
        ask(make_engine(serve(lambda number, request: fail(status))))


@pytest.mark.parametrize("what", ["inspect_records", "answer_records"])
def test_a_refused_key_ends_a_run_after_as_many_requests_as_run_at_once(
    what: str, serve: Callable[..., Endpoint], tmp_path: Path
) -> None:
    endpoint = serve(lambda number, request: fail(401))
    picture = make_picture(tmp_path / "a.png")
    question = Question("Is it whole?", {"A": "Yes", "B": "No"}, "A")
    records = [Record(str(number), picture, question=question) for number in range(12)]
    inspector = Inspector(make_engine(endpoint, concurrency=2))
    with pytest.raises(RefusedError, match="OPENAI_API_KEY"):
        list(getattr(inspector, what)(records))
    assert len(endpoint.requests) <= 12


@pytest.mark.parametrize("file", ["answers.jsonl", "findings.jsonl"])
def test_what_came_is_on_disk_before_a_slow_answer_behind_it_which_holds_up_no_other_request(
    file: str, serve: Callable[..., Endpoint], tmp_path: Path
) -> None:
    release, slow_came, all_asked = (threading.Event() for _ in range(3))

    def script(number: int, request: dict[str, Any]) -> Reply:
        if number == 7:
            all_asked.set()
        if "part 3" in str(request["messages"]):
            release.wait(5)
            slow_came.set()
        return say("<answer>A</answer>")

    def start(folder: Path) -> Iterator[object]:
        inspector = Inspector(make_engine(endpoint, concurrency=2))
        if file == "answers.jsonl":
            return answer_into(folder, inspector, records, {})
        return run_inspection(inspector, records, folder, {}, batch_size=8, seed=0)

    def read_lines(folder: Path) -> list[dict[str, Any]]:
        lines = (folder / file).read_text().splitlines()
        return [json.loads(line) | {"seconds": 0} for line in lines]

    endpoint = serve(script)
    picture = make_picture(tmp_path / "a.png")
    asked = [
        Question(f"Is part {number} whole?", {"A": "Yes", "B": "No"}, "A") for number in range(8)
    ]
    records = [
        Record(f"{number}#0", picture, category=f"part {number}", question=question)
        for number, question in enumerate(asked)
    ]
    cut = start(tmp_path / "cut")
    for _ in range(3):
        next(cut)
    assert [len(read_lines(tmp_path / "cut")), slow_came.is_set()] == [3, False]
    assert all_asked.wait(5) and not slow_came.is_set()
    release.set()
    cut.close()  # type: ignore[attr-defined]
    assert len(read_lines(tmp_path / "cut")) == 3
    for folder in ("cut", "whole"):
        assert len(list(start(tmp_path / folder))) == 8
    assert read_lines(tmp_path / "cut") == read_lines(tmp_path / "whole")


def test_a_server_that_does_not_answer_in_time_is_an_error(serve: Callable[..., Endpoint]) -> None:
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
    assert made.finish_reason == "error" and "APIConnectionError" in made.problem


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        (say(None, message={"refusal": "I will not."}), "I will not.", "refusal"),
        (say("", finish="content_filter"), "", "refusal"),
        (say("<think>lon", finish="length"), "<think>lon", "length"),
        (say(None), "", "stop"),
        (say("<answer>A</answer>", message={"reasoning_content": "I see."}),
         "<think>I see.</think><answer>A</answer>", "stop"),
    ],
)  # fmt: skip
def test_refusals_and_cut_answers_are_told_apart(
    reply: Reply, text: str, reason: str, serve: Callable[..., Endpoint]
) -> None:
    (made,) = ask(make_engine(serve(lambda number, request: reply)))
    assert (made.text, made.finish_reason) == (text, reason)


def test_requests_run_side_by_side_but_never_more_than_allowed(
    serve: Callable[..., Endpoint],
) -> None:
    meeting = threading.Barrier(3, timeout=5)

    def together(number: int, request: object) -> Reply:
        meeting.wait()
        return say(NORMAL)

    endpoint = serve(together)
    made = ask(make_engine(endpoint, concurrency=3), 9)
    assert endpoint.most_under_way == 3
    assert [one.text for one in made] == [NORMAL] * 9


def test_a_stream_that_breaks_off_or_cannot_begin_is_an_error(
    serve: Callable[..., Endpoint],
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


def test_a_name_that_is_no_endpoint_is_refused() -> None:
    assert split_name("openai:http://h:1/v1#a/b#c") == ("http://h:1/v1", "a/b#c")
    for wrong in ("openai:", "openai:http://h/v1", "openai:#m", "openai:ftp://h#m"):
        with pytest.raises(InputError, match="openai:URL#NAME"):
            split_name(wrong)


def test_inspect_takes_an_endpoint_and_brings_boxes_to_the_original_picture(
    tmp_path: Path, serve: Callable[..., Endpoint]
) -> None:
    def script(number: int, request: dict[str, Any]) -> Reply:
        if number == 0:
            return say(anomalous((28, 28, 56, 56)))
        return fail(400, "bad") if number == 1 else say(None, message={"refusal": "no"})

    endpoint = serve(script)
    records = [make_record(make_picture(tmp_path / f"{n}.png", (112, 224))) for n in range(3)]
    inspector = build_inspector(f"openai:{endpoint.url}#m", hint="none", masks="none")
    assert isinstance(inspector, Inspector)
    found = [one.finding for one in inspector.inspect_records(records, batch_size=1)]
    assert found[0].verdict == "anomalous"
    assert found[0].defects[0].box_xyxy == (28, 28, 56, 56)
    assert (found[1].verdict, found[1].error) == ("unread", "HTTP 400: bad")
    assert (found[2].verdict, found[2].status, found[2].error) == ("unread", "refused", None)


def test_records_and_mmad_take_an_endpoint_through_the_same_door(
    tmp_path: Path, serve: Callable[..., Endpoint]
) -> None:
    letters: list[int] = []

    def script(number: int, request: dict[str, Any]) -> Reply:
        asked = request["messages"][-1]["content"][-1]["text"]
        if "letter of the right option" not in asked:
            return say(NORMAL)
        letters.append(number)
        return fail(500) if letters[2:3] == [number] else say("<answer>A</answer>")

    endpoint = serve(script)
    record = make_record(make_picture(tmp_path / "a.png"), label="normal")
    write_records(tmp_path / "records.jsonl", [record])
    model = f"openai:{endpoint.url}#m"
    shared = ["--model", model, "--hint", "none"]
    run = CliRunner().invoke
    out = tmp_path / "records"
    done = run(cli.app, ["evaluate", "records", str(tmp_path / "records.jsonl"), *shared,
                         "--prices", "1,2", "--out", str(out)])  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "requests: 1, 0 of them again; tokens: 100 read, 7 written; cost 0.0001" in done.output
    data = write_miniature(tmp_path / "mmad", size=96, num_queries=1)
    flags = ["--retries", "0", "--prices", "1,2", "--limit", "9", "--out", str(tmp_path / "o")]
    done = run(cli.app, ["evaluate", "mmad", "--data", str(data), *shared, *flags])
    assert done.exit_code == 1, done.output
    assert "1 questions have no answer, the first for: HTTP 500" in " ".join(done.output.split())
    assert "tokens: 800 read, 56 written; cost 0.0009" in done.output, done.output
    assert len(endpoint.requests) == 10
    answers = load_answers(tmp_path / "o")
    assert [one.given for one in answers].count("A") == 8
    (failed,) = [one for one in answers if one.details["status"] == "error"]
    assert "HTTP 500" in str(failed.details["error"])
