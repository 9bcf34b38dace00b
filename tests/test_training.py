from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders import make_picture
from PIL import Image

from anomalyr1.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.geometry import box_iou
from anomalyr1.parsing import parse_inspection
from anomalyr1.prompts import VERDICT_PROBE, build_inspection_prompt, to_chat
from anomalyr1.training.dataset import (
    ChosenRows,
    HintedRecord,
    RowSettings,
    build_row,
    save_anomaly,
)
from anomalyr1.training.nano import NanoShape, build_nano, build_tokenizer
from anomalyr1.types import Anomaly, Record, Region

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="training needs the extra 'train'")

TINY = NanoShape(1024, 64, 2, 64, 2, 84 * 84)


@pytest.fixture(scope="module")
def tiny() -> Checkpoint:
    return build_nano(TINY, seed=0)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    folder = tmp_path_factory.mktemp("records")
    made = []
    for number in range(6):
        path = make_picture(folder / f"{number}.png", (120, 100), 60 + 20 * number)
        box = (12.0 + number, 20.0, 60.0, 71.0)
        mask = np.zeros((100, 120), np.uint8)
        mask[20:71, 12 + number : 60] = 255
        Image.fromarray(mask).save(folder / f"{number}_mask.png")
        spoiled = number % 2 == 0
        made.append(
            Record(
                str(number),
                path,
                category="part",
                label="anomalous" if spoiled else "normal",
                mask_path=folder / f"{number}_mask.png" if spoiled else None,
                regions=(Region(box, "crack", "clear crack"),) if spoiled else (),
                reference_paths=(path,),
            )
        )
        levels = np.zeros((24, 28), np.float32)
        levels[5:17, 3:14] = 0.9 if spoiled else 0.1
        save_anomaly(path.with_suffix(".npz"), Anomaly(levels, float(levels.max())))
    return made


def hinted(records: list[Record]) -> list[HintedRecord]:
    return [
        HintedRecord(record, record.image_path.with_suffix(".npz"), number % 2)
        for number, record in enumerate(records)
    ]


def test_every_coordinate_is_one_token_and_text_comes_back() -> None:
    tokenizer = build_tokenizer(2560, 0)
    assert len(tokenizer) == 2560
    assert all(len(tokenizer.encode(str(number))) == 1 for number in range(672))
    text = 'Größe <think>a\n{"bbox_2d": [1, 22, 333, 4]}'
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_target_answer_reads_back_as_its_record(tiny: Checkpoint, records: list[Record]) -> None:
    settings = RowSettings(without_reasoning=0.0)
    row = build_row(hinted(records)[0], tiny.processor, "absolute", settings, seed=0)
    assert len(row["images"]) == 2
    response = parse_inspection(
        row["completion"][0]["content"][0]["text"],
        shown_size_wh=(84, 56),
        original_size_wh=(120, 100),
    )
    assert response.label == "anomalous"
    assert box_iou(response.regions[0].box_xyxy, records[0].regions[0].box_xyxy) > 0.75


def test_rows_are_chosen_by_the_seed(records: list[Record], tmp_path: Path) -> None:
    settings = RowSettings(without_hint=0.5, with_reference=0.5)
    first = ChosenRows(records, tmp_path, settings, seed=1)
    assert list(first) == list(ChosenRows(records, tmp_path, settings, seed=1))
    assert list(first) != list(ChosenRows(records, tmp_path, settings, seed=2))
    assert first[1:3] == [first[1], first[2]] and first[-1] == list(first)[-1]
    with pytest.raises(IndexError):
        first[len(first)]


def test_the_dense_stage_moves_the_vision_tower(records: list[Record]) -> None:
    from anomalyr1.training.see import train_vision

    checkpoint = build_nano(TINY, seed=0)
    tower = checkpoint.model.model.visual
    before = {name: value.clone() for name, value in tower.named_parameters()}
    rows = hinted(records)
    steps = list(
        train_vision(
            checkpoint.model,
            checkpoint.processor,
            rows,
            seed=0,
            num_steps=3,
            batch_size=3,
            num_workers=0,
        )
    )
    assert [step for step, _ in steps] == [1, 2, 3]
    assert set(steps[0][1]) == {"kind", "box", "place"}
    moved = [not torch.equal(before[name], value) for name, value in tower.named_parameters()]
    assert all(moved)


def sft_settings(max_steps: int) -> dict[str, object]:
    return {
        "max_steps": max_steps,
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "use_cpu": True,
        "bf16": False,
        "activation_checkpointing": False,
        "save_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }


def test_a_resumed_run_ends_with_the_weights_of_one_that_was_not_stopped(
    records: list[Record], tmp_path: Path
) -> None:
    from anomalyr1.training.sft import train_sft

    weights = []
    for stops in ((2,), (1, 2)):
        out = tmp_path / f"run{len(stops)}"
        for max_steps in stops:
            checkpoint = build_nano(TINY, seed=0)
            start = {name: value.clone() for name, value in checkpoint.model.named_parameters()}
            train_sft(
                checkpoint,
                hinted(records),
                RowSettings(),
                sft_settings(max_steps),
                out,
                seed=0,
                resume=max_steps == 2 and len(stops) == 2,
            )
        weights.append(dict(checkpoint.model.named_parameters()))
        assert all(not torch.equal(start[name], value) for name, value in weights[-1].items())
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-6), name


def test_tokens_that_decide_the_verdict_weigh_what_the_rows_say(
    records: list[Record], tmp_path: Path
) -> None:
    from anomalyr1.training.sft import train_sft

    def train(verdict_weight: float, without_reasoning: float, *, shown: bool = True) -> float:
        rows = [replace(row, hint_path=row.hint_path if shown else None) for row in hinted(records)]
        trainer = train_sft(
            build_nano(TINY, seed=0),
            rows,
            RowSettings(without_reasoning=without_reasoning, verdict_weight=verdict_weight),
            {**sft_settings(1), "logging_steps": 1},
            tmp_path / f"{verdict_weight}-{without_reasoning}-{shown}",
            seed=0,
            resume=False,
        )
        return float(trainer.state.log_history[0]["loss"])

    untrained = float(np.log(1024))
    assert train(2.0, 1.0) - train(0.0, 1.0) == pytest.approx(2 * untrained, rel=0.3)
    assert train(2.0, 0.0) - train(0.0, 0.0) == pytest.approx(2 * untrained, rel=0.3)
    unmarked = train(0.0, 0.0, shown=False)
    assert train(2.0, 0.0, shown=False) == pytest.approx(unmarked), "the map decides nothing there"


def test_a_verdict_is_found_only_where_an_answer_begins_with_it() -> None:
    from anomalyr1.training.sft import find_verdicts

    labels = torch.tensor(
        [
            [-100, 7, 8, 3, 4, -100],
            [-100, -100, -100, 7, 8, 5],
            [-100, 1, 7, 8, 3, -100],
            [-100, -100, -100, -100, 7, 8],
        ]
    )
    found = find_verdicts(labels, [[7, 8], [1, 7, 8]], [9, 9]).nonzero().tolist()
    assert found == [[0, 3], [1, 5], [2, 4]]


def test_the_word_that_an_option_begins_with_is_found_wherever_it_stands() -> None:
    from anomalyr1.training.sft import find_verdicts

    labels = torch.tensor([[-100, 5, 8, 9, 3, 4], [-100, -100, 7, 2, 8, 9], [8, 9, 1, 8, 9, 2]])
    found = find_verdicts(labels, [[7]], [8, 9]).nonzero().tolist()
    assert found == [[0, 4], [1, 3], [2, 2], [2, 5]]
    assert not find_verdicts(labels[:, :2], [[7]], [8, 9]).any()


def test_a_checkpoint_written_and_loaded_says_the_same(
    tiny: Checkpoint, records: list[Record], tmp_path: Path
) -> None:
    save_checkpoint(tiny, tmp_path / "model")
    loaded = load_checkpoint(str(tmp_path / "model"))
    assert loaded.settings == tiny.settings
    prompts = [
        build_inspection_prompt(record, num_references=number % 2, hint=None)
        for number, record in enumerate(records[:3])
    ]
    picture = Image.open(records[0].image_path).convert("RGB")
    pictures = [[picture], [picture, picture.rotate(90, expand=True)], [picture]]
    said = TransformersEngine(tiny).generate(prompts, pictures, max_new_tokens=12)
    again = TransformersEngine(loaded).generate(prompts, pictures, max_new_tokens=12)
    alone = [
        TransformersEngine(loaded).generate([prompt], [shown], max_new_tokens=12)[0]
        for prompt, shown in zip(prompts, pictures, strict=True)
    ]
    assert [one.text for one in said] == [one.text for one in again] == [one.text for one in alone]
    for one in said:
        assert len(one.token_logprobs) == one.num_tokens
        assert all(value <= 0 for value in one.token_logprobs)
        assert one.finish_reason == ("length" if one.num_tokens == 12 else "stop")
        assert one.p_anomalous is None or 0 <= one.p_anomalous <= 1
    assert said[1].image_sizes_wh == ((84, 56), (56, 84))


def test_the_score_is_the_share_of_anomalous_at_the_verdict(
    tiny: Checkpoint, records: list[Record]
) -> None:
    engine = TransformersEngine(tiny)
    prompt = build_inspection_prompt(records[0], num_references=0, hint=None)
    picture = Image.open(records[0].image_path).convert("RGB")
    (completion,) = engine.generate([prompt], [[picture]], max_new_tokens=2)
    chat = tiny.processor.apply_chat_template(
        to_chat(prompt), tokenize=False, add_generation_prompt=True
    )
    inputs = tiny.processor(text=[chat + VERDICT_PROBE], images=[picture], return_tensors="pt")
    with torch.inference_mode():
        shares = tiny.model(**inputs).logits[0, -1].float().softmax(-1)
    tokenizer = tiny.processor.tokenizer
    sums = [
        sum(
            float(shares[token])
            for token in range(len(tokenizer))
            if tokenizer.decode([token]) and word.startswith(tokenizer.decode([token]))
        )
        for word in ("anomalous", "normal")
    ]
    assert completion.p_anomalous == pytest.approx(sums[0] / sum(sums), rel=1e-4)


def test_streamed_pieces_join_to_the_generated_text(
    tiny: Checkpoint, records: list[Record]
) -> None:
    from dataclasses import replace

    small = replace(tiny, settings=replace(tiny.settings, max_new_tokens=8))
    engine = TransformersEngine(small)
    prompt = build_inspection_prompt(records[0], num_references=0, hint=None)
    picture = Image.open(records[0].image_path).convert("RGB")
    (completion,) = engine.generate([prompt], [[picture]])
    assert "".join(engine.stream(prompt, [picture])) == completion.text
