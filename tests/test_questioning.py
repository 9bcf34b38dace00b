"""MMAD's questions asked: every answer written as it comes, kills survived, faults said."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_inspector
from endpoints import Serve
from endpoints import say as say_online
from miniature import SOURCES, write_miniature
from PIL import Image
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.data.mmad import SUBTASKS, load_mmad, name_subtask
from anomalyr1.data.records import validate_record, write_records
from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.evaluation.answer_checks import check_answers
from anomalyr1.evaluation.answers import load_answers
from anomalyr1.images import load_image
from anomalyr1.inspector import Inspector
from anomalyr1.preparation import Preparer, load_detector
from anomalyr1.prompts import build_choice_prompt
from anomalyr1.questioning import answer_into, choose_questions
from anomalyr1.types import Completion, InputError, Prompt, Record

COMPARED = ("answers.jsonl", "scores.csv", "scores.json", "scores_strict.csv")


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_miniature(tmp_path_factory.mktemp("mmad"))


def evaluate(*arguments: object) -> str:
    result = CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def choose(folder: Path, limit: int | None = None) -> list[Record]:
    return choose_questions(load_mmad(folder), limit=limit)


def say(text: str) -> Inspector:
    return make_inspector(lambda prompt, pictures: text, hint=False)


def test_the_miniature_has_all_subtasks_of_all_sources_and_valid_records(miniature: Path) -> None:
    records = load_mmad(miniature).records
    asked = {
        (record.dataset, name_subtask(record.question.question_type))
        for record in records
        if record.question
    }
    assert {dataset for dataset, _ in asked} == set(SOURCES)
    assert {kind for _, kind in asked} == set(SUBTASKS)
    for record in records:
        validate_record(record)


def test_the_miniature_runs_end_to_end_with_nano(tmp_path: Path) -> None:
    data, out = write_miniature(tmp_path / "data", num_queries=2), tmp_path / "out"
    said = " ".join(evaluate("mmad", "--data", data, "--model", "nano", "--out", out).split())
    assert "model nano" in said and "shots 1" in said and "template random" in said
    answers = load_answers(out)
    assert {one.dataset for one in answers} == set(SOURCES)
    assert {one.subtask for one in answers} == set(SUBTASKS)
    assert all(one.details["template_id"].startswith("choice-") for one in answers)
    for name in ("num_tokens", "num_prompt_tokens"):
        assert all(one.details[name] > 0 for one in answers)
    scores = json.loads((out / "scores_strict.json").read_text())
    assert scores["scores"]["Average"]["Average"]["n"] == len(answers)
    assert scores["settings"]["shots"] == 1
    page = (out / "report.html").read_text()
    body = page[page.index("<body>") :]
    assert body.index("Overlap with training: not known") < body.index("<h1>nano</h1>")
    assert all(f"<th>{dataset}</th>" in body for dataset in SOURCES) and "Human expert" in body
    assert check_answers(answers, load_mmad(data).records) == []


def test_questions_put_in_one_call_are_answered_as_they_are_one_by_one(tmp_path: Path) -> None:
    data = write_miniature(tmp_path / "data", size=96, num_queries=1)
    engine = TransformersEngine.load("nano", device="cpu", dtype="float32")
    preparer = Preparer(engine, load_detector("auto", "nano"))
    asked = [preparer.prepare_record(record, build_choice_prompt) for record in choose(data)]
    pictures: list[int] = []
    tower = engine._backbone.visual.register_forward_pre_hook(
        lambda _module, _positional, named: pictures.append(len(named["grid_thw"])),
        with_kwargs=True,
    )
    together = engine.generate([one.prompt for one in asked], [one.shown for one in asked])
    tower.remove()
    # A stream is transformers' own generation of one prompt, which nothing is shared with.
    alone = ["".join(engine.stream(one.prompt, one.shown)) for one in asked]
    assert [said.text for said in together] == alone
    assert {name_subtask(one.record.question.question_type) for one in asked} == set(SUBTASKS)
    assert sum(pictures) == len({shown.tobytes() for one in asked for shown in one.shown})


def test_the_overlap_with_training_is_printed_and_kept(miniature: Path, tmp_path: Path) -> None:
    key = next(iter(json.loads((miniature / "mmad.json").read_text())))
    dataset, category = key.split("/")[:2]
    write_records(tmp_path / "train.jsonl", [Record("a", miniature / key, dataset, category)])
    flags = ["--limit", 3, "--manifest", tmp_path / "train.jsonl", "--out", tmp_path / "out"]
    said = " ".join(evaluate("mmad", "--data", miniature, "--model", "random", *flags).split())
    told = "Overlap with training: 1 of 1 test pictures are training pictures"
    assert told in said and "1 of 1 products were trained on" in said
    assert json.loads((tmp_path / "out/scores.json").read_text())["settings"]["overlap"] in said
    assert told in (tmp_path / "out/report.html").read_text()


def test_scores_of_answers_from_anywhere_tell_the_overlap_of_their_pictures(
    miniature: Path, tmp_path: Path
) -> None:
    record = choose(miniature)[0]
    (answer,) = answer_into(tmp_path / "run", say("<answer>A</answer>"), [record], {})
    file, trained = tmp_path / "run/answers.jsonl", tmp_path / "train.jsonl"
    write_records(trained, [Record("a", miniature / answer.image, answer.dataset, "bottle")])
    flags = ["--manifest", trained, "--out", tmp_path / "scores"]
    told = "Overlap with training: 1 of 1 test pictures are training pictures"
    assert told in " ".join(evaluate("score", file, "--data", miniature, *flags).split())
    document = json.loads((tmp_path / "scores/scores.json").read_text())
    assert document["settings"]["overlap"].startswith(told)
    page = (tmp_path / "scores/report.html").read_text()
    assert page.index(told) < page.index("<h1>")
    assert "the test pictures are not there (--data)" in evaluate("score", file, *flags)


@pytest.mark.parametrize("model", ["random", "majority", "detector:patch-memory"])
def test_baselines_stand_in_the_same_table(model: str, miniature: Path, tmp_path: Path) -> None:
    evaluate("mmad", "--data", miniature, "--model", model, "--out", tmp_path)
    rows = json.loads((tmp_path / "scores_strict.json").read_text())["scores"]
    detection = rows["Average"]["Anomaly Detection"]
    assert detection["unread"] == 0 and detection["n"] == 16
    classified = rows["Average"]["Object Classification"]
    if model == "detector:patch-memory":
        assert classified["unread"] == classified["n"] and classified["value"] == 0.0
        assert detection["value"] > 50
    elif model == "majority":
        assert classified["unread"] == 0
        assert detection["value"] == pytest.approx(50.0, abs=30)


def test_the_product_is_named_only_by_the_domain_knowledge(miniature: Path) -> None:
    prompts: list[Prompt] = []

    def script(prompt: Prompt, pictures: object) -> str:
        prompts.append(prompt)
        return "<answer>A</answer>"

    mmad = load_mmad(miniature)
    for knows in (False, True):
        records = choose_questions(mmad, shots=1, domain_knowledge=knows, limit=1)
        list(make_inspector(script, hint=False).answer_records(records))
    plain, knowing = (
        json.dumps([part for m in one.messages for part in m.parts]) for one in prompts
    )
    assert "Product:" not in plain and "is even" not in plain
    assert "is even" in knowing


def test_shots_and_templates_choose_the_references_of_the_question_file(miniature: Path) -> None:
    mmad = load_mmad(miniature)
    assert choose_questions(mmad, shots=0)[0].reference_paths == ()
    similar = choose_questions(mmad, shots=1, template="similar")[0]
    random = choose_questions(mmad, shots=1, template="random")[0]
    assert similar.reference_paths == mmad.records[0].similar_paths[:1]
    assert random.reference_paths == mmad.records[0].random_paths[:1]


def find_nearest(url: str, pictures: dict[str, Image.Image]) -> str:
    """The name of the picture that one was sent of, smaller, in a data URL."""
    with Image.open(BytesIO(base64.b64decode(url.partition(",")[2]))) as sent:
        seen = np.asarray(sent.convert("RGB"), float)
        size_wh = sent.size
    return min(pictures, key=lambda name: np.abs(seen - pictures[name].resize(size_wh)).mean())


@pytest.mark.parametrize(
    ("flags", "shown", "knows"),
    [
        (["--shots", 0], "", False),
        (["--shots", 0, "--template", "similar", "--domain-knowledge"], "", True),
        (["--shots", 1, "--template", "similar"], "similar_templates", False),
        (["--shots", 1, "--template", "random", "--domain-knowledge"], "random_templates", True),
    ],
)
def test_the_settings_of_a_run_are_what_its_prompts_held(
    miniature: Path, tmp_path: Path, serve: Serve, flags: list[object], shown: str, knows: bool
) -> None:
    endpoint = serve(lambda number, request: say_online("<answer>A</answer>"))
    asked = ["--data", miniature, "--model", f"openai:{endpoint.url}#m", "--limit", 2]
    evaluate("mmad", *asked, *flags, "--out", tmp_path)
    entry = next(iter(json.loads((miniature / "mmad.json").read_text()).values()))
    templates = {
        name: load_image(miniature / name)
        for name in (*entry["similar_templates"], *entry["random_templates"])
    }
    for request in endpoint.requests:
        content = request["messages"][-1]["content"]
        text = "".join(part["text"] for part in content if part["type"] == "text")
        sent = [part["image_url"]["url"] for part in content if part["type"] == "image_url"]
        assert len(sent) == (2 if shown else 1)
        assert ("A whole washer is even." in text) == knows
        if shown:
            assert [find_nearest(sent[0], templates)] == entry[shown]
    settings = json.loads((tmp_path / "scores.json").read_text())["settings"]
    kind = shown.removesuffix("_templates") or None
    assert (settings["shots"], settings["template"]) == (len(shown[:1]), kind)
    assert settings["domain_knowledge"] == knows
    assert {one.details["template_id"] for one in load_answers(tmp_path)} == {settings["prompt"]}


def test_a_subset_is_a_data_set_or_a_subtask_and_anything_else_is_refused(miniature: Path) -> None:
    mmad = load_mmad(miniature)
    chosen = choose_questions(mmad, subset=["VisA", "Anomaly Detection"])
    assert {(r.dataset, r.question.question_type) for r in chosen if r.question} == {
        ("VisA", "Anomaly Detection")
    }
    with pytest.raises(InputError, match="--subset 'Visa' matches no question"):
        choose_questions(mmad, subset=["Visa"])


def test_a_batch_that_was_cut_in_two_is_put_to_the_model_as_it_was(
    miniature: Path, tmp_path: Path
) -> None:
    batches: list[int] = []
    inspector = say("<answer>A</answer>")
    generate = inspector.engine.generate
    records = choose(miniature, 12)

    def watch(prompts: list[Prompt], *arguments: Any, **options: Any) -> Iterable[Completion]:
        batches.append(len(prompts))
        return generate(prompts, *arguments, **options)

    inspector.engine.generate = watch  # type: ignore[method-assign]
    list(answer_into(tmp_path / "whole", inspector, records, {}, batch_size=4))
    whole = (tmp_path / "whole" / "answers.jsonl").read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1, len(whole)):
        folder = tmp_path / f"cut{cut}"
        list(answer_into(folder, inspector, records, {}, batch_size=4))
        (folder / "answers.jsonl").write_bytes(whole[:cut])
        batches.clear()
        list(answer_into(folder, inspector, records, {}, batch_size=4))
        assert (folder / "answers.jsonl").read_bytes() == whole
        assert set(batches) <= {4}


def test_a_failed_question_is_recorded_and_asked_again_and_ends_in_its_place(
    miniature: Path, tmp_path: Path
) -> None:
    records = choose(miniature, 6)
    failing = {records[1].record_id}

    def script(prompt: Prompt, pictures: object) -> str | Completion:
        if prompt.record_id in failing:
            return Completion(prompt.record_id, "", finish_reason="error", problem="HTTP 500")
        return "<answer>A</answer>"

    inspector = make_inspector(script, hint=False)
    first = list(answer_into(tmp_path / "a", inspector, records, {}, batch_size=2))
    assert first[1].details["error"] == "HTTP 500" and first[1].given == ""
    assert sum(one.given == "A" for one in first) == 5
    failing.clear()
    list(answer_into(tmp_path / "a", inspector, records, {}, batch_size=2))
    list(answer_into(tmp_path / "b", inspector, records, {}, batch_size=2))
    names = [tmp_path / name / "answers.jsonl" for name in "ab"]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_a_refusal_is_recorded_as_one(miniature: Path, tmp_path: Path) -> None:
    def script(prompt: Prompt, pictures: object) -> Completion:
        return Completion(prompt.record_id, "I cannot.", finish_reason="refusal", problem="refused")

    records = choose(miniature, 1)
    (one,) = answer_into(tmp_path, make_inspector(script, hint=False), records, {})
    assert (one.given, one.details["status"], one.details["raw_text"]) == (
        "",
        "refused",
        "I cannot.",
    )


def test_a_model_that_is_gone_stops_the_run_with_its_reason(
    miniature: Path, tmp_path: Path
) -> None:
    def script(prompt: Prompt, pictures: object) -> Completion:
        return Completion(prompt.record_id, "", finish_reason="error", problem="connection refused")

    records = choose(miniature, 12)
    with pytest.raises(InputError, match=r"6 questions in a row have no .*connection refused"):
        list(answer_into(tmp_path, make_inspector(script), records, {}, batch_size=2))


def test_answers_to_other_questions_and_other_settings_are_refused(
    miniature: Path, tmp_path: Path
) -> None:
    records = choose(miniature, 4)
    list(answer_into(tmp_path, say("<answer>A</answer>"), records, {"shots": 1}))
    with pytest.raises(InputError, match="other settings"):
        list(answer_into(tmp_path, say(""), records, {"shots": 0}))
    with pytest.raises(InputError, match=r"line 1: answers .* which is not asked"):
        list(answer_into(tmp_path, say(""), records[1:], {"shots": 1}))
    answers = load_answers(tmp_path)
    with pytest.raises(InputError, match="is not asked in the data"):
        check_answers(answers, records[1:])
    with pytest.raises(InputError, match="answered more often than it is asked"):
        check_answers([*answers, answers[0]], records)
    assert check_answers([*answers, answers[0]], [*records, records[0]]) == []
    heading = replace(answers[0], question=f"Question 1: {answers[0].question} \n")
    assert check_answers([heading, *answers[1:]], records) == []
    with pytest.raises(InputError, match="right is"):
        check_answers([replace(answers[0], correct_answer="?")], records)


def test_questions_whose_files_are_missing_are_told_and_left_out(
    miniature: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mmad"
    shutil.copytree(miniature, folder)
    entries = json.loads((folder / "mmad.json").read_text())
    picture = next(key for key in entries if key.startswith("VisA/"))
    template = next(
        entry["random_templates"][0] for key, entry in entries.items() if key.startswith("GoodsAD/")
    )
    (folder / picture).unlink()
    (folder / template).unlink()
    entries[picture]["mask_path"] = "ground_truth/none.png"
    (folder / "mmad.json").write_text(json.dumps(entries))
    asked = ["evaluate", "mmad", "--data", str(folder), "--model", "random", "--shots", "1"]
    stopped = CliRunner().invoke(cli.app, [*asked, "--out", str(tmp_path / "a")])
    assert isinstance(stopped.exception, InputError)
    said = str(stopped.exception)
    assert "2 pictures, templates or masks" in said, "masks are not needed"
    assert Path(picture).name in said and template in said
    some = [*asked, "--subset", "DS-MVTec", "--out", str(tmp_path / "b")]
    assert CliRunner().invoke(cli.app, some).exit_code == 0, "what is not asked is not needed"
    left = CliRunner().invoke(cli.app, [*asked, "--allow-missing", "--out", str(tmp_path / "c")])
    assert left.exit_code == 0, left.output
    assert "questions are left out" in left.output and Path(template).name in left.output
    answered = {answer.dataset for answer in load_answers(tmp_path / "c")}
    assert answered == {"DS-MVTec", "MVTec-LOCO", "VisA"}


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import anomalyr1.reporting.lines as lines
from anomalyr1.cli import app
left = [{count}]
write = os.write
def dying(descriptor, data):
    left[0] -= 1
    if left[0] < 0 and len(data) > 1:
        write(descriptor, data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return write(descriptor, data)
lines.os.write = dying
app({arguments!r})
"""


@pytest.mark.parametrize("count", [0, 1, 2, 7, 22])
def test_a_run_killed_within_a_line_goes_on_to_the_same_bytes(
    count: int, miniature: Path, tmp_path: Path
) -> None:
    arguments = ["evaluate", "mmad", "--data", str(miniature), "--model", "random"]
    evaluate(*arguments[1:], "--out", tmp_path / "whole")
    killed = [*arguments, "--out", str(tmp_path / "killed")]
    script = KILLED.format(tests=str(Path(__file__).parent), count=count, arguments=killed)
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -signal.SIGKILL
    evaluate(*killed[1:])
    for name in COMPARED:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
