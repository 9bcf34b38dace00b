"""Runs on a model behind an endpoint: many requests at once, and the commands."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from builders import NORMAL, anomalous, make_picture, make_record
from endpoints import Reply, Serve, ask, fail, make_engine, say
from miniature import write_miniature
from PIL import Image
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.cli.inspect import run_inspection
from anomalyr1.data.records import write_records
from anomalyr1.evaluation.answers import load_answers
from anomalyr1.inspector import Inspector
from anomalyr1.models import build_inspector
from anomalyr1.prompts import build_inspection_prompt
from anomalyr1.questioning import answer_into
from anomalyr1.types import Question, Record


@pytest.mark.parametrize("file", ["answers.jsonl", "findings.jsonl"])
def test_what_came_is_on_disk_before_a_slow_answer_behind_it_while_later_requests_go_on(
    file: str, serve: Serve, tmp_path: Path
) -> None:
    release, slow_came, all_asked = (threading.Event() for _ in range(3))
    meeting = threading.Barrier(2, timeout=30)
    last = 3 + 8 - 1  # part 3 is waited for, and 8 are under way

    def script(number: int, request: dict[str, Any]) -> Reply:
        if number == last:
            all_asked.set()
        if "part 3" in str(request["messages"]):
            release.wait(30)
            slow_came.set()
        elif not release.is_set():
            meeting.wait()
            release.wait(0.05)  # long enough for a request too many to come
        return say("<answer>A</answer>")

    def start(folder: Path) -> Iterator[object]:
        inspector = Inspector(make_engine(endpoint, concurrency=3))
        if file == "answers.jsonl":
            return answer_into(folder, inspector, records, {})
        return run_inspection(inspector, records, folder, {}, batch_size=8, seed=0)

    def read_lines(folder: Path) -> list[dict[str, Any]]:
        lines = (folder / file).read_text().splitlines()
        return [json.loads(line) | {"seconds": 0} for line in lines]

    endpoint = serve(script)
    picture = make_picture(tmp_path / "a.png")
    asked = [
        Question(f"Is part {number} whole?", {"A": "Yes", "B": "No"}, "A") for number in range(20)
    ]
    records = [
        Record(f"{number}#0", picture, category=f"part {number}", question=question)
        for number, question in enumerate(asked)
    ]
    cut = start(tmp_path / "cut")
    for _ in range(3):
        next(cut)
    assert [len(read_lines(tmp_path / "cut")), slow_came.is_set()] == [3, False]
    fourth = threading.Thread(target=next, args=(cut,))
    fourth.start()
    assert all_asked.wait(30) and not slow_came.is_set()
    assert (len(endpoint.requests), endpoint.most_under_way) == (last + 1, 3)
    release.set()
    fourth.join()
    cut.close()  # type: ignore[attr-defined]
    assert len(read_lines(tmp_path / "cut")) == 4
    for folder in ("cut", "whole"):
        assert len(list(start(tmp_path / folder))) == 20
    assert read_lines(tmp_path / "cut") == read_lines(tmp_path / "whole")


def test_requests_run_side_by_side_but_never_more_than_allowed(
    serve: Serve,
) -> None:
    meeting = threading.Barrier(3, timeout=5)

    def together(number: int, request: object) -> Reply:
        meeting.wait()
        return say(NORMAL)

    endpoint = serve(together)
    made = ask(make_engine(endpoint, concurrency=3), 9)
    assert endpoint.most_under_way == 3
    assert [one.text for one in made] == [NORMAL] * 9


def test_requests_that_wait_are_taken_back_where_their_answers_are_dropped(serve: Serve) -> None:
    release, both_came = threading.Event(), threading.Event()

    def script(number: int, request: object) -> Reply:
        if number == 1:
            both_came.set()
        release.wait(30)
        return say(NORMAL)

    endpoint = serve(script)
    engine = make_engine(endpoint, concurrency=2)
    prompt = build_inspection_prompt(make_record(Path("a.png")), num_references=0, hint=None)
    answers = engine.generate([prompt] * 6, [[Image.new("RGB", (64, 48))]] * 6)
    assert both_came.wait(30)
    del answers
    release.set()
    ask(engine)  # goes behind whatever still waits
    assert len(endpoint.requests) == 3


def test_inspect_takes_an_endpoint_and_brings_boxes_to_the_original_picture(
    tmp_path: Path, serve: Serve
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
    tmp_path: Path, serve: Serve
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
