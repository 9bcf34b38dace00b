"""Whole trainings of a tiny random model: every variant of GRPO, validation, resuming, mishaps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny_training import (
    build_recipe,
    grpo_table,
    read_log,
    read_weights,
    run,
    sft_table,
    write_model,
    write_records,
)

from anomalyr1.types import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="training needs the extra 'train'")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"))


@pytest.fixture
def varied_rewards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rewards that differ within a group; returns how many completions were scored each time."""
    from anomalyr1 import rewards

    scored: list[int] = []

    def score_in_turn(completions: Sequence[Any], **_columns: Any) -> list[float]:
        scored.append(len(completions))
        return [float(index % 2) for index in range(len(completions))]

    def score_half(completions: Sequence[Any], **_columns: Any) -> list[float]:
        return [0.5 * (index % 2) for index in range(len(completions))]

    monkeypatch.setitem(rewards.REWARDS, "roam_reward", score_in_turn)
    monkeypatch.setitem(rewards.REWARDS, "format_reward", score_half)
    return scored


@pytest.mark.parametrize(
    "changes",
    [
        {"loss_type": "grpo"},
        {"loss_type": "bnpo"},
        {"loss_type": "dr_grpo", "scale_rewards": "none"},
        {"loss_type": "dapo", "epsilon_high": 0.28, "mask_truncated_completions": False},
        {"loss_type": "cispo", "epsilon_high": 5.0},
        {"loss_type": "sapo"},
        {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 3e-4},
        {"loss_type": "grpo", "beta": 0.04},
        {"num_iterations": 2},
    ],
    ids=lambda changes: "-".join(f"{key}={value}" for key, value in changes.items()),
)
def test_each_variant_of_grpo_trains(
    model: Path,
    records: Path,
    tmp_path: Path,
    varied_rewards: list[int],
    changes: dict[str, Any],
) -> None:
    recipe = build_recipe(
        model,
        records,
        reward_funcs=("roam_reward", "format_reward"),
        grpo=grpo_table(reward_weights=[1.0, 0.2], **changes),
    )
    run(recipe, tmp_path / "run")
    before, after = read_weights(model), read_weights(tmp_path / "run" / "grpo" / "checkpoint-2")
    same = [name for name in before if torch.equal(before[name].float(), after[name].float())]
    assert same == [], "every weight has moved"
    steps = [entry for entry in read_log(tmp_path / "run") if "reward" in entry]
    rollouts = 2 // changes.get("num_iterations", 1)
    weighted = 0.5 * (1.0 + 0.2 * 0.5)
    assert [entry["reward"] for entry in steps] == pytest.approx([weighted] * rollouts)
    assert ("kl" in steps[0]) == ("beta" in changes)
    if "beta" in changes:
        assert steps[0]["kl"] == pytest.approx(0.0, abs=1e-6), "the reference is the start"
        assert steps[1]["kl"] > 1e-6


def test_groups_with_equal_rewards_are_sampled_again(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomalyr1 import rewards

    seen: list[list[str]] = []

    def score(completions: Sequence[Any], record_id: list[str], **_columns: Any) -> list[float]:
        seen.append([completion[0]["content"] for completion in completions])
        # The first sample of all is never equal to its neighbour once it was drawn again.
        spread = float(len(seen) > 1)
        return [spread if index == 0 else 0.0 for index in range(len(completions))]

    monkeypatch.setitem(rewards.REWARDS, "roam_reward", score)
    recipe = build_recipe(
        model,
        records,
        reward_funcs=("roam_reward",),
        resample_equal_groups=2,
        grpo=grpo_table(max_steps=1),
    )
    run(recipe, tmp_path / "run")
    # Drawn; all equal, drawn again; the second group still equal, drawn a last time; scored.
    assert len(seen) == 3
    first, again, last = seen
    assert first != again
    assert again[:2] == last[:2], "a group with different rewards stays"
    assert again[2:] != last[2:]
    step = next(entry for entry in read_log(tmp_path / "run") if "reward" in entry)
    assert step["resampled_groups"] == 1.0 and step["frac_reward_zero_std"] == 0.5
    samples = (tmp_path / "run" / "samples.jsonl").read_text().splitlines()
    assert [json.loads(line)["completion"] for line in samples] == last


@pytest.mark.parametrize(("stage", "table"), [("sft", sft_table), ("grpo", grpo_table)])
@pytest.mark.usefixtures("varied_rewards")
def test_validation_runs_while_training_and_the_best_checkpoint_is_kept(
    model: Path,
    records: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: str,
    table: Callable[..., dict[str, Any]],
) -> None:
    from anomalyr1.training import judging
    from anomalyr1.training.recipe import DataSettings

    real, values = judging.compute_validation, iter([0.3, 0.9, 0.5])

    def compute(answered: Any, **_named: Any) -> Any:
        metrics = real(answered)
        unread = next(metric for metric in metrics if metric.name == "unread_rate")
        return [*metrics, replace(unread, name="mark", value=next(values))]

    monkeypatch.setattr(judging, "compute_validation", compute)
    settings = '{"max_references": 1, "max_new_tokens": 8}'
    (model / "anomalyr1.json").write_text(settings)
    settings_of_stage = table(
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="mark",
        greater_is_better=True,
    )
    recipe = build_recipe(
        model,
        records,
        data=DataSettings((str(records),), validation=(str(records),), validation_limit=4),
        reward_funcs=("roam_reward",),
        **{stage: settings_of_stage},
    )
    out = tmp_path / "run"
    run(recipe, out)
    judged = [entry for entry in read_log(out) if "eval_mark" in entry]
    assert [(entry["step"], entry["eval_mark"]) for entry in judged] == [
        (1, 0.3),
        (2, 0.9),
        (3, 0.5),
    ]
    assert all("eval_unread_rate" in entry for entry in judged)
    assert (out / stage / "checkpoint-2").is_dir(), "the best one outlives the limit of one"
    best, kept = read_weights(out / stage / "checkpoint-2"), read_weights(out / "checkpoint")
    for name, value in kept.items():
        assert torch.equal(value, best[name].to(value.dtype)), name
    assert json.loads((out / "before.json").read_text())[0]["n"] > 0
    assert "unread" in (out / "report.html").read_text().lower()


def test_evaluation_without_held_out_records_is_refused(
    model: Path, records: Path, tmp_path: Path
) -> None:
    recipe = build_recipe(
        model, records, sft=sft_table(eval_strategy="steps", eval_steps=1, max_steps=1)
    )
    with pytest.raises((InputError), match=r"data\.validation"):
        run(recipe, tmp_path / "run")


def test_a_run_leaves_settings_versions_and_seed(
    model: Path, records: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    run(build_recipe(model, records, seed=3, sft=sft_table(max_steps=1)), out)
    assert json.loads((out / "config.json").read_text())["seed"] == 3
    environment = json.loads((out / "environment.json").read_text())
    assert {"trl", "accelerate"} <= set(environment["training_packages"])
    assert {"git", "device", "processes", "python", "packages"} <= set(environment)
    said = run(build_recipe(model, records, seed=3, sft=sft_table()), out, resume=True)
    assert "goes on with other settings than it began with: sft" in said


def test_metrics_reach_tensorboard(model: Path, records: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed")
    table = sft_table(max_steps=1, report_to="tensorboard")
    run(build_recipe(model, records, sft=table), tmp_path / "run")
    assert list((tmp_path / "run").rglob("events.out.tfevents.*"))


def test_an_unknown_reward_stops_before_anything_is_read(
    model: Path, records: Path, tmp_path: Path
) -> None:
    recipe = build_recipe(model, records, reward_funcs=("roam_rewrd",), grpo=grpo_table())
    with pytest.raises(InputError, match="did you mean roam_reward"):
        run(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    recipe = build_recipe(
        model, records, reward_funcs=("roam_reward",), grpo=grpo_table(reward_weights=[1.0, 2.0])
    )
    with pytest.raises(InputError, match="2 values for 1 reward_funcs"):
        run(recipe, tmp_path / "run")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"learning_rat": 1.0}, r"\[sft\] has an unknown key 'learning_rat'.*'learning_rate'"),
        ({"output_dir": "x"}, "sets output_dir, which the run sets itself"),
        ({"lr_scheduler_type": "cosinus"}, "does not fit SFTConfig.*cosinus"),
    ],
)
def test_a_table_that_does_not_fit_its_trainer_is_refused(
    model: Path, records: Path, tmp_path: Path, table: dict[str, Any], message: str
) -> None:
    recipe = build_recipe(model, records, sft=sft_table(**table))
    with pytest.raises(InputError, match=message):
        run(recipe, tmp_path / "run")


def test_records_without_an_answer_are_named(model: Path, records: Path, tmp_path: Path) -> None:
    bare = records.with_name("bare.jsonl")
    bare.write_text('{"record_id": "lost", "image_path": "0.png", "category": "part"}\n')
    with pytest.raises(InputError, match="record lost has no label"):
        run(build_recipe(model, bare, sft=sft_table()), tmp_path / "run")


def test_a_picture_deleted_while_training_is_named(model: Path, tmp_path: Path) -> None:
    records = write_records(tmp_path / "records")
    recipe = build_recipe(model, records, sft=sft_table(dataloader_num_workers=1))
    gone = tmp_path / "records" / "3.png"
    gone.unlink()
    from anomalyr1.checkpoint import load_checkpoint
    from anomalyr1.training.dataset import HintedRecord, RowSettings
    from anomalyr1.training.sft import train_sft
    from anomalyr1.types import Record

    rows = [HintedRecord(Record("3", gone, category="part", label="normal"), None, 0)] * 4
    with pytest.raises(InputError, match=r"3\.png"):
        train_sft(
            load_checkpoint(str(model), dtype="float32"),
            rows,
            RowSettings(),
            recipe.sft,
            tmp_path / "sft",
            seed=0,
            resume=False,
        )


def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import SFTTrainer

    whole = SFTTrainer.compute_loss
    calls: list[int] = []

    def spoil(self: Any, *arguments: Any, **named: Any) -> Any:
        calls.append(1)
        loss = whole(self, *arguments, **named)
        return loss * float("nan") if len(calls) == 2 else loss

    monkeypatch.setattr(SFTTrainer, "compute_loss", spoil)
    out = tmp_path / "run"
    recipe = build_recipe(model, records, sft=sft_table(max_steps=3))
    with pytest.raises(InputError, match=r"nan in the batch of step 2 .*checkpoint-1"):
        run(recipe, out)
    run(recipe, out, resume=True)
    assert all(value.isfinite().all() for value in read_weights(out / "checkpoint").values())


def test_a_disk_that_fills_leaves_the_last_whole_checkpoint(
    model: Path, records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import SFTTrainer

    save = SFTTrainer._save_optimizer_and_scheduler

    def fill(self: Any, folder: str) -> None:
        if folder.endswith("-2"):
            raise OSError(28, "No space left on device")
        save(self, folder)

    out = tmp_path / "run"
    recipe = build_recipe(model, records, sft=sft_table(max_steps=3))
    with monkeypatch.context() as patched:
        patched.setattr(SFTTrainer, "_save_optimizer_and_scheduler", fill)
        with pytest.raises(InputError, match=r"disk of .* is full.*checkpoint-1.*--resume"):
            run(recipe, out)
    assert (out / "sft" / "checkpoint-2" / "model.safetensors").is_file(), "half of one is left"
    run(recipe, out, resume=True)
    run(recipe, tmp_path / "other")
    first, second = (
        read_weights(out / "checkpoint"),
        read_weights(tmp_path / "other" / "checkpoint"),
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
