"""The vLLM engine beside a stand-in that records what vLLM is asked; vLLM itself needs a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from builders import NORMAL, anomalous
from PIL import Image
from recording_vllm import LoRARequest, Recorder, install

from anomalyr1.engines.vllm_engine import ANSWER_SCHEMA, VllmEngine
from anomalyr1.models import build_engine, build_inspector, check_model, name_model
from anomalyr1.prompts import (
    VERDICT_PROBE,
    build_choice_prompt,
    build_inspection_prompt,
    render_inspection_answer,
)
from anomalyr1.types import InputError, Prompt, Question, Record

RECORD = Record("part", Path("part.png"), category="plate")
PICTURE = Image.new("RGB", (196, 168), "grey")


def say(answer: str) -> Callable[[str], str]:
    """A model that writes `answer` from wherever a prompt has begun it."""

    def write(prompt: str) -> str:
        if prompt.endswith(VERDICT_PROBE):
            return "anomalous"
        rest = answer.partition("<answer>")[2]
        return rest.removesuffix("</answer>") if prompt.endswith("<answer>") else answer

    return write


def ask(num_references: int = 0) -> Prompt:
    return build_inspection_prompt(RECORD, num_references=num_references, hint=None)


def ask_letter() -> Prompt:
    record = replace(RECORD, question=Question("Broken?", {"A": "Yes.", "B": "No."}))
    return build_choice_prompt(record, num_references=0, hint=None)


def start(
    monkeypatch: pytest.MonkeyPatch, answer: str = NORMAL, source: str = "nano", **shares: float
) -> tuple[VllmEngine, Recorder]:
    recorder = Recorder(say(answer), shares)
    install(monkeypatch, recorder)
    return VllmEngine.load(source), recorder


def test_an_inspection_reasons_freely_and_answers_in_guided_json(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = anomalous((28, 28, 84, 84))
    engine, recorder = start(monkeypatch, answer, anomal=0.3, norm=0.1, the=0.5)
    (made,) = engine.generate([ask()], [[PICTURE]])
    assert made.text == answer
    assert made.finish_reason == "stop"
    assert len(made.token_logprobs) == made.num_tokens > 0
    assert made.p_anomalous == pytest.approx(0.75)
    reasoning, guided, probe = recorder.requests
    assert reasoning.sampling.stop == ["<answer>"]
    assert reasoning.sampling.structured_outputs is None
    assert guided.prompt == reasoning.prompt + answer[: answer.index("<answer>")] + "<answer>"
    assert guided.sampling.structured_outputs is not None
    assert guided.sampling.structured_outputs.json == ANSWER_SCHEMA
    assert probe.prompt == reasoning.prompt + VERDICT_PROBE
    assert (probe.sampling.max_tokens, probe.sampling.logprobs) == (1, 20)
    assert {request.sampling.temperature for request in recorder.requests} == {0.0}


def test_the_guide_takes_what_models_are_trained_to_write() -> None:
    rendered = render_inspection_answer("anomalous", [((1, 2, 3, 4), "crack", "a crack")], "Why.")
    answer = json.loads(rendered[rendered.index("<answer>") + 8 : -len("</answer>")])
    jsonschema.validate(answer, ANSWER_SCHEMA)
    for wrong in (
        {**answer, "verdict": "fine"},
        {**answer, "more": 1},
        {"verdict": "normal"},
        {**answer, "defects": [{**answer["defects"][0], "bbox_2d": [1, 2, 3]}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, ANSWER_SCHEMA)


def test_a_letter_is_not_guided_and_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, recorder = start(monkeypatch, "<think>So.</think><answer>A</answer>", anomalous=1.0)
    (made,) = engine.generate([ask_letter()], [[PICTURE]])
    assert (made.text, made.p_anomalous) == ("<think>So.</think><answer>A</answer>", None)
    (request,) = recorder.requests
    assert (request.sampling.stop, request.sampling.structured_outputs) == ([], None)


def test_a_text_that_is_cut_before_or_in_its_answer_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, _ = start(monkeypatch, f"<think>{'so ' * 50}</think>{NORMAL[20:]}")
    (cut,) = engine.generate([ask()], [[PICTURE]], max_new_tokens=5)
    assert (cut.finish_reason, cut.num_tokens) == ("length", 5)
    engine, _ = start(monkeypatch, anomalous((28, 28, 84, 84)))
    (cut,) = engine.generate([ask()], [[PICTURE]], max_new_tokens=4)
    assert cut.finish_reason == "length" and cut.num_tokens == 4
    assert not cut.text.endswith("</answer>")
    engine, _ = start(monkeypatch, "I cannot tell.")
    (unread,) = engine.generate([ask()], [[PICTURE]])
    assert (unread.text, unread.finish_reason) == ("I cannot tell.", "stop")


def test_pictures_travel_with_the_prompts_that_index_them(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, recorder = start(monkeypatch)
    other = Image.new("RGB", (140, 140))
    made = engine.generate([ask(1), ask()], [[other, PICTURE], [PICTURE]])
    assert [one.image_sizes_wh for one in made] == [((140, 140), (196, 168)), ((196, 168),)]
    two, one = recorder.requests[:2]
    assert [len(two.pictures), len(one.pictures)] == [2, 1]
    assert two.prompt.count("<|image_pad|>") == 2 and two.pictures[0] is other
    assert recorder.options["enable_prefix_caching"] is True
    assert recorder.options["limit_mm_per_prompt"]["image"] >= 6
    assert engine.generate([], []) == []


def test_an_adapter_is_a_lora_request_on_its_base(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = {"base_model_name_or_path": "nano", "peft_type": "LORA", "r": 12}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    engine, recorder = start(monkeypatch, source=str(tmp_path))
    engine.generate([ask()], [[PICTURE]])
    assert recorder.options["max_lora_rank"] == 16 and recorder.options["enable_lora"]
    assert Path(recorder.options["model"]).name == "nano"
    assert {type(request.lora) for request in recorder.requests} == {LoRARequest}
    assert recorder.requests[0].lora == LoRARequest("adapter", 1, str(tmp_path))
    (tmp_path / "adapter_config.json").write_text(json.dumps({**config, "r": 1024}))
    with pytest.raises(InputError, match="rank 1024"):
        VllmEngine.load(str(tmp_path))


def test_a_prompt_that_vllm_refuses_is_an_error_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine, _ = start(monkeypatch)
    record = replace(RECORD, knowledge="very " * 15_000)
    prompt = build_inspection_prompt(record, num_references=0, hint=None)
    with pytest.raises(InputError, match=r"vLLM refuses a prompt: .*maximum model length"):
        engine.generate([prompt], [[PICTURE]])


def test_the_door_and_the_flag_lead_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder(say(NORMAL))
    install(monkeypatch, recorder)
    assert name_model("nano", "vllm") == "vllm:nano"
    engine = build_engine("vllm:nano")
    assert (engine.engine_id, engine.settings.max_references) == ("vllm:nano", 1)
    assert build_inspector("vllm:nano", hint="none", masks="none").model == "vllm:nano"
    with pytest.raises(InputError, match="does not exist"):
        check_model("vllm:/no/such/folder")


def test_without_vllm_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(InputError, match="pip install vllm"):
        VllmEngine.load("nano")


def test_vllm_is_not_imported_before_it_is_used() -> None:
    script = "import sys, anomalyr1.engines.vllm_engine; assert 'vllm' not in sys.modules"
    done: Any = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
