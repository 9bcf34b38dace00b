"""The page of a training run tells what the folder holds, whatever state the run is in."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from anomalyr1.reporting import training
from anomalyr1.reporting.training import write_training_report
from anomalyr1.reporting.training_log import load_training_log
from anomalyr1.types import InputError

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


CONFIG: dict[str, Any] = {
    "description": "nano with GRPO and the ROAM reward",
    "model": "nano",
    "seed": 7,
    "data": {"records": ["data/rl/train.jsonl"], "limit": None},
    "see": None,
    "sft": None,
    "reward_funcs": ["roam_reward", "box_iou_reward"],
    "grpo": {"max_steps": 200, "num_generations": 8, "learning_rate": 2e-4},
}


ENVIRONMENT = {
    "anomalyr1": "0.1.0",
    "python": "3.11.7",
    "packages": {"torch": "2.13.0", "trl": "1.16.0"},
    "git": "c10ffdd",
    "device": "CPU, 2 cores",
}


REASONING = (
    "The ring is even all around, and its surface matches the normal picture beside it.\n"
    "At the lower left a thin bright line crosses the ring from edge to edge. The hint points "
    "to the same place."
)


class PageReader(HTMLParser):
    """Collects tags, attributes and text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.pieces: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.pieces.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.pieces[self.tags.index("style") :]))


def read_page(path: Path) -> PageReader:
    reader = PageReader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")


def build_grpo_log(num_steps: int = 200, every: int = 5) -> Iterator[dict[str, Any]]:
    """What TRL logs while a policy learns: rewards rise, entropy and length fall."""
    rng = random.Random(3)
    for step in range(every, num_steps + 1, every):
        done = 1 - math.exp(-step / 70)
        roam, box = 0.35 + 0.4 * done, 0.1 + 0.3 * done
        yield {
            "loss": rng.gauss(0.002, 0.02),
            "grad_norm": abs(rng.gauss(0.4, 0.15)),
            "learning_rate": 2e-4 * min(1.0, step / 10),
            "num_tokens": 9000 * step,
            "completions/mean_length": 128 - 30 * done + rng.gauss(0, 4),
            "completions/min_length": 61 + rng.gauss(0, 6),
            "completions/max_length": 224 - 20 * done + rng.gauss(0, 4),
            "completions/clipped_ratio": max(0.0, 0.12 - 0.11 * done + rng.gauss(0, 0.01)),
            "rewards/roam_reward/mean": roam + rng.gauss(0, 0.03),
            "rewards/roam_reward/std": 0.3 - 0.1 * done,
            "rewards/box_iou_reward/mean": box + rng.gauss(0, 0.04),
            "rewards/box_iou_reward/std": 0.22,
            "reward": roam + 0.5 * box + rng.gauss(0, 0.04),
            "reward_std": 0.28 - 0.1 * done,
            "frac_reward_zero_std": min(1.0, max(0.0, 0.1 + 0.3 * done + rng.gauss(0, 0.05))),
            "kl": 0.04 * done + abs(rng.gauss(0, 0.002)),
            "entropy": 0.8 - 0.4 * done + rng.gauss(0, 0.02),
            "clip_ratio/region_mean": 0.0,
            "step_time": 8 + rng.random(),
            "epoch": step / 150,
            "step": step,
            "stage": "grpo",
        }


def build_samples(steps: range) -> list[dict[str, Any]]:
    rng = random.Random(5)
    samples = []
    for step in steps:
        for place, kind in (("washer/scratch/004", "scratch"), ("board/good/017", "")):
            rewards = [round(rng.random(), 2) for _ in range(4)]
            mean = sum(rewards) / 4
            for reward in rewards:
                box = [{"box": [120, 40, 210, 88], "type": kind}] if kind else []
                samples.append(
                    {
                        "step": step,
                        "record_id": place,
                        "prompt": "[picture] [picture]\nIs the part in the second picture normal?",
                        "completion": f"<think>{REASONING}</think>\n<answer>{json.dumps(box)}"
                        "</answer>",
                        "rewards": {"roam_reward": reward, "box_iou_reward": 0.4 if box else None},
                        "reward": reward,
                        "advantage": (reward - mean) / 0.3,
                    }
                )
    return samples


def build_metrics(shift: float) -> list[dict[str, Any]]:
    rows = [
        ("verdict_balanced_accuracy", "all", 0.61 + shift, 0.05),
        ("box_accuracy_iou10", "all", 0.35 + shift, 0.06),
        ("box_accuracy_iou50", "", 0.12 + shift / 4, 0.04),
        ("accuracy", "Anomaly Detection", 0.58 + shift / 5, 0.08),
        ("accuracy", "Defect Classification", 0.44 + shift, 0.08),
        ("contradiction_rate", "all", 0.21 - shift, 0.04),
        ("unread_rate", "all", 0.03, 0.02),
    ]
    return [
        {
            "name": name,
            "subset": subset,
            "value": value,
            "n": 400,
            "n_unreadable": 12,
            "ci_low": max(0.0, value - half),
            "ci_high": value + half,
        }
        for name, subset, value, half in rows
    ]


def make_run(folder: Path) -> Path:
    """A finished run of reinforcement learning, as the trainer leaves it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "environment.json").write_text(json.dumps(ENVIRONMENT))
    end = {"train_runtime": 1834.5, "train_loss": 0.01, "step": 200, "stage": "grpo"}
    write_lines(folder / "metrics.jsonl", [*build_grpo_log(), end])
    write_lines(folder / "samples.jsonl", build_samples(range(5, 201, 20)))
    (folder / "before.json").write_text(json.dumps(build_metrics(0.0)))
    (folder / "after.json").write_text(json.dumps(build_metrics(0.14)))
    return folder


def charts_of(page: PageReader) -> list[str]:
    return [v for tag, name, v in page.attributes if (tag, name) == ("svg", "aria-label")]


def test_a_finished_run_is_told_whole(tmp_path: Path) -> None:
    path = write_training_report(make_run(tmp_path))
    page = read_page(path)
    assert path == tmp_path / "report.html"
    for part in (
        "nano with GRPO and the ROAM reward",
        "grpo 200 of 200",
        "30 min 34 s",
        "Seed 7",
        "Reinforcement learning (grpo)",
        "roam_reward",
        "washer/scratch/004",
        "Step 185",
        "grpo.learning_rate",
        "packages.torch",
    ):
        assert part in page.text, part
    assert "not finished" not in page.text
    titles = [label.split(" over steps")[0] for label in charts_of(page)]
    assert titles[:3] == ["Reward, all terms", "roam_reward", "box_iou_reward"]
    assert {"Groups with equal rewards", "KL to the reference model", "Entropy"} <= set(titles)
    assert {"Completion length", "Cut at the length limit", "Learning rate"} <= set(titles)
    assert "clip_ratio/region_mean" in titles, "what has no place of its own is drawn too"
    assert REASONING.split("\n")[0] in page.text


def test_the_page_loads_and_runs_nothing(tmp_path: Path) -> None:
    page = read_page(write_training_report(make_run(tmp_path)))
    assert not {"script", "img", "link", "iframe", "object"} & set(page.tags)
    assert not [name for _, name, _ in page.attributes if name in ("src", "href", "style")]
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    policy = next(v for tag, name, v in page.attributes if tag == "meta" and "default-src" in v)
    assert "default-src 'none'" in policy and "script-src" not in policy


def test_no_text_of_the_run_is_taken_as_markup(tmp_path: Path) -> None:
    make_run(tmp_path)
    sample = {
        "step": 20,
        "record_id": ATTACK,
        "prompt": ATTACK,
        "completion": f"{ATTACK}\ud800\x00",
        "rewards": {ATTACK: 0.5},
        "reward": 0.5,
        "advantage": 0.0,
    }
    write_lines(tmp_path / "samples.jsonl", [sample])
    line = {"step": 1, "stage": ATTACK, "loss": 1.0, f"rewards/{ATTACK}/mean": 0.1, ATTACK: 2.0}
    write_lines(tmp_path / "metrics.jsonl", [line])
    metric = {**build_metrics(0)[0], "name": ATTACK, "subset": ATTACK}
    (tmp_path / "after.json").write_text(json.dumps([metric]))
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "model": ATTACK, ATTACK: 1}))
    path = write_training_report(tmp_path)
    assert "<script" not in path.read_text()
    page = read_page(path)
    assert "script" not in page.tags and "img" not in page.tags
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert page.text.count("<script>alert(1)</script>") >= 6, "it is shown, as text"


@pytest.mark.parametrize(
    "name", ["environment.json", "metrics.jsonl", "samples.jsonl", "before.json", "after.json"]
)
@pytest.mark.parametrize(
    "content",
    [None, b"", b"{", b'{"step": 3, "lo', b"\xff\xfe\x00", b"[1, null]\n[]\n{}\n", b"[" * 99_999],
    ids=["missing", "empty", "brace", "torn", "bytes", "other", "deep"],
)
def test_a_file_that_is_missing_or_damaged_does_not_stop_the_page(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    make_run(tmp_path)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert "Training report" in read_page(write_training_report(tmp_path)).text


def test_a_torn_last_line_is_left_out_and_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    (tmp_path / "after.json").unlink()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:20]) + lines[20][:50])
    text = read_page(write_training_report(tmp_path)).text
    assert "The last line of metrics.jsonl is cut off" in text
    assert "grpo 100 of 200" in text
    assert "This run is not finished" in text
    assert "not measured yet" in text


def test_a_run_that_has_only_just_begun_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    text = read_page(write_training_report(tmp_path)).text
    assert "grpo not started" in text and "No step was logged yet" in text


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_readable_config_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"config\.json .*give the folder"):
        write_training_report(tmp_path)


def test_an_empty_subset_means_all_records(tmp_path: Path) -> None:
    make_run(tmp_path)
    log = load_training_log(tmp_path)
    assert log.before is not None and log.before[2].subset == "all"


def test_steps_done_twice_after_a_kill_count_once(tmp_path: Path) -> None:
    make_run(tmp_path)
    first = [{"step": step, "stage": "grpo", "loss": 9.0} for step in range(5, 121, 5)]
    again = [{"step": step, "stage": "grpo", "loss": 1.0} for step in range(105, 151, 5)]
    write_lines(tmp_path / "metrics.jsonl", first + again)
    write_lines(tmp_path / "samples.jsonl", build_samples(range(5, 126, 20)) * 2)
    log = load_training_log(tmp_path)
    (stage,) = log.stages
    assert stage.steps == tuple(range(5, 151, 5))
    assert stage.collect("loss")[1][19:21] == [9.0, 1.0]
    assert {len(group.samples) for group in log.groups} == {4}
    text = read_page(write_training_report(tmp_path)).text
    assert "Continued from a checkpoint 1 time" in text


def test_stages_are_told_apart_and_the_dense_stage_is_read_from_its_own_log(
    tmp_path: Path,
) -> None:
    make_run(tmp_path)
    config = {**CONFIG, "see": {"num_steps": 40}, "sft": {"num_train_epochs": 2}, "grpo": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "see").mkdir()
    dense = [{"step": step, "kind": 1 / step, "box": 0.5} for step in (20, 40)]
    write_lines(tmp_path / "see" / "losses.jsonl", dense)
    (tmp_path / "after.json").unlink()
    (tmp_path / "samples.jsonl").unlink()
    supervised = [
        {"step": 10, "stage": "sft", "loss": 2.0, "epoch": 0.5},
        {"step": 10, "stage": "sft", "eval_balanced_accuracy": 0.7, "eval_runtime": 3.0},
    ]
    write_lines(tmp_path / "metrics.jsonl", supervised)
    page = read_page(write_training_report(tmp_path))
    assert "see 40 of 40, sft 10 of about 40" in page.text
    titles = [label.split(" over steps")[0] for label in charts_of(page)]
    assert titles == ["Loss", "Balanced accuracy", "Loss of the defect's kind", "Loss of the box"]
    assert "This run is not finished" in page.text


def test_of_very_many_sampled_steps_some_are_shown_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "MAX_SAMPLED_STEPS", 3)
    text = read_page(write_training_report(make_run(tmp_path))).text
    assert "3 of 10 sampled steps are shown" in text
    assert "Step 5 " in text and "Step 185" in text


def test_a_group_with_equal_rewards_is_named(tmp_path: Path) -> None:
    make_run(tmp_path)
    samples = build_samples(range(5, 6))
    write_lines(tmp_path / "samples.jsonl", [{**sample, "reward": 1.0} for sample in samples])
    assert "all rewards equal" in read_page(write_training_report(tmp_path)).text
