"""The transformers engine on a tiny random model: batches, pictures, verdicts, failures."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from anomalyr1.checkpoint import Checkpoint, load_checkpoint, resolve_source, save_checkpoint
from anomalyr1.engines.scripted import ScriptedEngine
from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.prompts import VERDICT_PROBE, build_choice_prompt, build_inspection_prompt
from anomalyr1.training.nano import SPECIAL_TOKENS, NanoShape, build_nano
from anomalyr1.types import Completion, Hint, InputError, Prompt, Question, Record

torch = pytest.importorskip("torch")

TINY = NanoShape(1024, 64, 2, 64, 2, 112 * 112)
RECORD = Record("7", Path("7.png"), category="part")


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return build_nano(TINY, seed=0)


@pytest.fixture(scope="module")
def saved(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "model"
    save_checkpoint(tiny, folder)
    return folder


def make_picture(level: int = 90, size_wh: tuple[int, int] = (60, 48)) -> Image.Image:
    rng = np.random.default_rng(level)
    pixels = level + rng.integers(-20, 20, (size_wh[1], size_wh[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


def ask(num_references: int = 0, *, with_hint: bool = False) -> Prompt:
    return build_inspection_prompt(
        RECORD, num_references=num_references, hint=Hint(70) if with_hint else None
    )


def ask_choice() -> Prompt:
    question = Question("Is there a defect?", {"A": "Yes.", "B": "No."})
    record = replace(RECORD, question=question)
    return build_choice_prompt(record, num_references=0, hint=None)


def without_picture(prompt: Prompt) -> Prompt:
    messages = tuple(
        replace(message, parts=tuple(part for part in message.parts if isinstance(part, str)))
        for message in prompt.messages
    )
    return replace(prompt, messages=messages)


def test_a_saved_checkpoint_has_the_same_weights_and_special_tokens(
    tiny: Checkpoint, saved: Path
) -> None:
    loaded = load_checkpoint(str(saved), device="cpu")
    assert (loaded.frame, loaded.settings, loaded.name) == ("absolute", tiny.settings, str(saved))
    for name, value in tiny.model.state_dict().items():
        assert torch.equal(value, loaded.model.state_dict()[name]), name
    tokenizer = loaded.processor.tokenizer
    for token in SPECIAL_TOKENS:
        assert tokenizer.decode(tokenizer.encode(token)) == token
        assert len(tokenizer.encode(token)) == 1


def test_a_checkpoint_loads_and_speaks_without_torchvision(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # any import of it fails
    engine = TransformersEngine.load(str(saved), device="cpu")
    assert engine.generate([ask()], [[make_picture()]], max_new_tokens=1)[0].num_tokens == 1


def test_pictures_may_be_none_one_or_three_in_one_batch(tiny: Checkpoint) -> None:
    engine = TransformersEngine(tiny)
    prompts = [without_picture(ask()), ask(), ask(1, with_hint=True)]
    shown = [[], [make_picture()], [make_picture(60), make_picture(), make_picture(120)]]
    together = engine.generate(prompts, shown, max_new_tokens=6)
    for prompt, pictures, completion in zip(prompts, shown, together, strict=True):
        alone = engine.generate([prompt], [pictures], max_new_tokens=6)[0]
        assert (alone.text, alone.num_tokens) == (completion.text, completion.num_tokens)
        assert alone.p_anomalous == pytest.approx(completion.p_anomalous, abs=1e-4)
        assert len(completion.image_sizes_wh) == len(pictures)
    assert all(side % 28 == 0 for side in together[1].image_sizes_wh[0])


def product(index: int, *, question: bool) -> tuple[Prompt, list[Any]]:
    """A prompt of a product with two reference pictures, its own picture and knowledge."""
    record = replace(RECORD, knowledge="A normal part is even and has no marks. " * 3)
    build = build_choice_prompt if question else build_inspection_prompt
    asked = Question(f"What is number {index}?", {"A": "A scratch.", "B": "A dent."})
    if question:
        record = replace(record, question=asked)
    prompt = build(record, num_references=2, hint=None)
    return prompt, [make_picture(100), make_picture(140), make_picture(20 + 30 * (index // 3))]


def test_answers_over_shared_fronts_are_those_of_one_by_one(tiny: Checkpoint) -> None:
    asked = [product(index, question=index % 3 > 0) for index in range(9)]
    prompts, shown = [prompt for prompt, _ in asked], [pictures for _, pictures in asked]
    alone = [
        TransformersEngine(tiny).generate([prompt], [pictures], max_new_tokens=8)[0]
        for prompt, pictures in asked
    ]
    for most in (32768, 900, 1):
        engine = TransformersEngine(tiny, max_cache_tokens=most)
        together = [
            completion
            for begin in (0, 5)
            for completion in engine.generate(
                prompts[begin : begin + 5], shown[begin : begin + 5], max_new_tokens=8
            )
        ]
        for one, other in zip(alone, together, strict=True):
            assert (one.text, one.num_tokens) == (other.text, other.num_tokens)
            assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)
            assert one.p_anomalous == pytest.approx(other.p_anomalous, abs=1e-5)


def test_references_are_seen_once_by_all_prompts_and_by_the_next_call(tiny: Checkpoint) -> None:
    asked = [product(index, question=True) for index in range(6)]
    prompts, shown = [prompt for prompt, _ in asked], [pictures for _, pictures in asked]
    seen: list[int] = []
    handle = tiny.model.model.visual.register_forward_pre_hook(
        lambda _module, _arguments, settings: seen.append(len(settings["grid_thw"])),
        with_kwargs=True,
    )
    engine = TransformersEngine(tiny)
    try:
        engine.generate(prompts, shown, max_new_tokens=1)
        first = sum(seen)
        engine.generate(prompts[:1], [[*shown[0][:2], make_picture(90)]], max_new_tokens=1)
        again = sum(seen) - first
        with torch.no_grad():
            weight = tiny.model.lm_head.weight
            weight.copy_(weight.clone())
        engine.generate(prompts[:1], [shown[0]], max_new_tokens=1)
    finally:
        handle.remove()
    assert (first, again) == (4, 1), "two references and two pictures, then one picture"
    assert sum(seen) - first - again == 3, "a model that was trained sees them anew"


def test_the_engine_tokenises_as_the_processor_does(tiny: Checkpoint) -> None:
    engine = TransformersEngine(tiny)
    prompt, shown = product(0, question=False)
    (prepared,) = engine._prepare([prompt], [shown])
    inputs = engine._inputs(prompt, shown)
    assert torch.equal(prepared.tokens.ids, inputs["input_ids"][0])
    patches = torch.cat([patches for _start, patches, _grid in prepared.tokens.pictures])
    assert torch.equal(patches, inputs["pixel_values"])
    whole = engine._processor.tokenizer(prepared.text + VERDICT_PROBE)["input_ids"]
    assert whole[: len(prepared.tokens.ids)] == prepared.tokens.ids.tolist()


def test_a_cut_text_is_said_to_be_cut(tiny: Checkpoint) -> None:
    (completion,) = TransformersEngine(tiny).generate([ask()], [[make_picture()]], max_new_tokens=1)
    assert (completion.finish_reason, completion.num_tokens) == ("length", 1)
    assert len(completion.token_logprobs) == 1


def test_token_logprobs_are_those_of_a_forward_pass(tiny: Checkpoint) -> None:
    engine = TransformersEngine(tiny)
    (completion,) = engine.generate([ask()], [[make_picture()]], max_new_tokens=5)
    inputs = engine._inputs(ask(), [make_picture()])
    length = inputs["input_ids"].shape[1]
    with torch.inference_mode():
        ids = tiny.model.generate(**inputs, max_new_tokens=5, do_sample=False)
        whole = {**inputs, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if "mm_token_type_ids" in whole:
            types = torch.zeros_like(ids)
            types[:, :length] = inputs["mm_token_type_ids"]
            whole["mm_token_type_ids"] = types
        logprobs = tiny.model(**whole).logits[0].float().log_softmax(-1)
    expected = [
        float(logprobs[place - 1, ids[0, place]])
        for place in range(length, length + completion.num_tokens)
    ]
    assert completion.token_logprobs == pytest.approx(expected, abs=1e-3)


def test_sampling_repeats_for_a_seed(tiny: Checkpoint) -> None:
    engine = TransformersEngine(tiny)

    def sample(seed: int) -> str:
        return engine.generate(
            [ask()], [[make_picture()]], max_new_tokens=8, temperature=1.0, seed=seed
        )[0].text

    assert sample(1) == sample(1) != sample(2)


def test_only_prompts_that_ask_for_a_verdict_have_a_score(tiny: Checkpoint) -> None:
    engine = TransformersEngine(tiny)
    shown = [[make_picture()], [make_picture()]]
    choice, inspection = engine.generate([ask_choice(), ask()], shown, max_new_tokens=2)
    assert choice.p_anomalous is None
    assert inspection.p_anomalous is not None and 0.0 <= inspection.p_anomalous <= 1.0


def test_no_prompts_give_no_completions(tiny: Checkpoint) -> None:
    assert TransformersEngine(tiny).generate([], []) == []


def test_a_prompt_longer_than_the_context_is_refused(tiny: Checkpoint) -> None:
    record = replace(RECORD, knowledge="very " * 5000)
    prompt = build_inspection_prompt(record, num_references=0, hint=None)
    with pytest.raises(InputError, match=r"prompt of 7 has \d+ tokens.*fewer or smaller"):
        TransformersEngine(tiny).generate([prompt], [[make_picture()]])


def test_a_failure_while_streaming_reaches_the_caller(
    tiny: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_settings: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(tiny.model, "generate", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(TransformersEngine(tiny).stream(ask(), [make_picture()]))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "has no config.json"),
        (("config.json",), "holds no weights"),
        (("config.json", "pytorch_model.bin"), r"only pickled weights \(pytorch_model\.bin\)"),
    ],
)
def test_a_folder_that_is_no_safe_checkpoint_is_refused(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    for name in files:
        (tmp_path / name).write_text("{}")
    with pytest.raises(InputError, match=message):
        resolve_source(str(tmp_path))


def test_a_missing_folder_is_named_and_a_hub_id_is_passed_on() -> None:
    with pytest.raises(InputError, match=r"\./nowhere does not exist"):
        resolve_source("./nowhere")
    assert resolve_source("Qwen/Qwen2.5-VL-3B-Instruct") == "Qwen/Qwen2.5-VL-3B-Instruct"


def test_another_model_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="'bert' model; supported are qwen2_5_vl"):
        load_checkpoint(str(tmp_path))


def test_a_scripted_engine_says_what_it_is_told() -> None:
    engine = ScriptedEngine(lambda prompt, shown: f"{prompt.record_id} has {len(shown)}")
    (completion,) = engine.generate([ask()], [[make_picture()]])
    assert (completion.text, completion.image_sizes_wh) == ("7 has 1", ((60, 48),))
    assert "".join(engine.stream(ask(), [make_picture()])).strip() == completion.text
    whole = Completion("7", "said", num_tokens=1)
    assert ScriptedEngine(lambda *_: whole).generate([ask()], [[]]) == [whole]
