"""anomalyr1 evaluate records, with a model whose words are scripted."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest
from builders import NORMAL, anomalous, make_inspector, make_picture
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.data.records import load_records, write_records
from anomalyr1.evaluation.shot_draws import average_draws
from anomalyr1.inspector import Inspector
from anomalyr1.types import InputError, Label, Metric, Record, Region


@pytest.fixture
def refused() -> set[str]:
    """Names of the pictures that the model cannot take."""
    return set()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, refused: set[str]) -> list[str]:
    """Names of the pictures the model was asked about; those called "bad" are anomalous to it."""
    asked: list[str] = []

    def script(prompt: object, pictures: object) -> str:
        asked.append(prompt.record_id)  # type: ignore[attr-defined]
        if asked[-1] in refused:
            raise InputError(f"{asked[-1]} is too large for the model")
        return anomalous((5, 5, 20, 20)) if asked[-1].startswith("bad") else NORMAL

    monkeypatch.setattr(Inspector, "load", lambda *args, **options: make_inspector(script))
    return asked


def write_parts(folder: Path, *, label: Label | None = "normal") -> Path:
    region = Region((5, 5, 20, 20), "crack")
    records = [
        Record("bad1", folder / "bad1.png", label="anomalous", regions=(region,)),
        Record("bad2", folder / "bad2.png", label="anomalous", regions=(region,)),
        Record("good1", folder / "good1.png", label="normal"),
        Record("good2", folder / "good2.png", label=label),
    ]
    for number, record in enumerate(records):
        make_picture(record.image_path, level=60 + 20 * number)
    write_records(folder / "parts.jsonl", records)
    return folder / "parts.jsonl"


def evaluate(*arguments: object) -> None:
    result = CliRunner().invoke(cli.app, ["evaluate", "records", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception


def read_values(folder: Path) -> dict[str, float]:
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    return {entry["name"]: entry["value"] for entry in metrics if entry["subset"] == "all"}


def test_the_overlap_with_training_is_the_first_line_and_needs_no_second_run(
    tmp_path: Path, asked: list[str]
) -> None:
    parts, out = write_parts(tmp_path), tmp_path / "out"
    evaluate(parts, "--out", out)
    assert "Overlap with training: not known" in (out / "report.html").read_text()
    write_records(tmp_path / "train.jsonl", [Record("a", tmp_path / "bad1.png")])
    evaluate(parts, "--manifest", tmp_path / "train.jsonl", "--out", out)
    told = "Overlap with training: 1 of 4 test pictures are training pictures"
    page = (out / "report.html").read_text()
    assert page.index("<body>") < page.index(told) < page.index("<h1>")
    settings = json.loads((out / "metrics.json").read_text())["settings"]
    assert settings["overlap"].startswith(told)
    assert settings["manifest"] == str(tmp_path / "train.jsonl")
    assert len(asked) == 4


def test_a_picture_that_failed_counts_as_unread_until_it_was_tried_again(
    tmp_path: Path, asked: list[str], refused: set[str]
) -> None:
    parts, out = write_parts(tmp_path), tmp_path / "out"
    refused.add("bad2")
    evaluate(parts, "--out", out, "--batch-size", 1)
    assert read_values(out)["unread_rate"] == 0.25
    refused.clear()
    evaluate(parts, "--out", out)
    assert read_values(out)["unread_rate"] == 0.0
    assert read_values(out)["verdict_balanced_accuracy"] == 1.0
    evaluate(parts, "--out", out)
    assert asked == ["bad1", "bad2", "good1", "good2", "bad2"]
    assert len((out / "findings.jsonl").read_text().splitlines()) == 5


def test_a_record_without_a_truth_is_refused_before_any_picture_is_looked_at(
    tmp_path: Path, asked: list[str]
) -> None:
    parts = write_parts(tmp_path, label=None)
    with pytest.raises(InputError, match=r"good2.* has no label"):
        evaluate(parts, "--out", tmp_path / "out")
    assert asked == []
    assert not (tmp_path / "out").exists()


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path, asked: list[str]) -> None:
    parts = write_parts(tmp_path)
    evaluate(parts, "--out", tmp_path / "out")
    for flags in (["--limit", 2], ["--hint", "none"], ["--max-references", 0]):
        with pytest.raises(InputError, match=f"{tmp_path / 'out'} holds a run with other settings"):
            evaluate(parts, "--out", tmp_path / "out", *flags)
    assert len(asked) == 4


def test_shots_have_a_folder_each_and_one_table(tmp_path: Path, asked: list[str]) -> None:
    parts = load_records(write_parts(tmp_path))
    pool = tuple(make_picture(tmp_path / f"normal{number}.png") for number in range(3))
    write_records(
        tmp_path / "shared.jsonl", [replace(part, reference_paths=pool) for part in parts]
    )
    out = tmp_path / "out"
    evaluate(tmp_path / "shared.jsonl", "--out", out, "--shots", 2, "--shots", 1, "--limit", 3)
    assert asked == ["bad1", "bad2", "good1"] * 2
    rows = list(csv.DictReader((out / "shots.csv").open()))
    assert {(row["shots"], row["draw"]) for row in rows} == {("1", "0"), ("2", "0")}
    assert read_values(out / "shots_1")["verdict_balanced_accuracy"] == 1.0
    assert (out / "shots_2/report.html").is_file()
    with pytest.raises(InputError, match="exclude each other"):
        evaluate(tmp_path / "shared.jsonl", "--out", out, "--shots", 1, "--max-references", 1)
    with pytest.raises(InputError, match="4 shots want 4"):
        evaluate(tmp_path / "shared.jsonl", "--out", out, "--shots", 4)


def test_draws_of_references_have_a_folder_each_and_a_mean_with_its_interval(
    tmp_path: Path, asked: list[str]
) -> None:
    parts = load_records(write_parts(tmp_path))
    pool = tuple(make_picture(tmp_path / f"normal{number}.png") for number in range(3))
    shared = [replace(part, reference_paths=pool) for part in parts]
    write_records(tmp_path / "shared.jsonl", shared)
    out = tmp_path / "out"
    flags = ["--shots", 1, "--draws", 3, "--seed", 4]
    evaluate(tmp_path / "shared.jsonl", "--out", out, *flags)
    assert len(asked) == 12
    assert {path.name for path in (out / "shots_1").iterdir()} == {"draw_4", "draw_5", "draw_6"}
    rows = list(csv.DictReader((out / "shots.csv").open()))
    assert {row["draw"] for row in rows} == {"4", "5", "6", "mean"}
    (mean,) = [
        row
        for row in rows
        if (row["draw"], row["name"], row["subset"]) == ("mean", "verdict_balanced_accuracy", "all")
    ]
    assert (float(mean["value"]), float(mean["ci_low"]), int(mean["n"])) == (1.0, 1.0, 4)
    with pytest.raises(InputError, match="give --shots too"):
        evaluate(tmp_path / "shared.jsonl", "--out", out, "--draws", 2)


def test_an_average_over_draws_has_student_s_interval_within_bounds() -> None:
    def average(*values: float | None) -> Metric:
        drawn = {
            (1, seed): [Metric("aupro", "all", value, 9, seed)] for seed, value in enumerate(values)
        }
        (mean,) = average_draws(drawn)[1]
        return mean

    mean = average(0.5, 0.6, 0.7)
    assert mean.value == pytest.approx(0.6) and (mean.n, mean.n_unreadable) == (9, 2)
    assert mean.ci_high is not None
    assert mean.ci_high - 0.6 == pytest.approx(4.302653 * 0.1 / 3**0.5, abs=1e-6)
    wide = average(0.2, 0.9)
    assert (wide.ci_low, wide.ci_high) == (0.0, 1.0)
    unknown = average(0.2, None)
    assert unknown.value is None and unknown.ci_low is None


def test_chance_is_evaluated_like_any_model(tmp_path: Path) -> None:
    evaluate(write_parts(tmp_path), "--model", "random", "--out", tmp_path / "out")
    assert read_values(tmp_path / "out")["unread_rate"] == 0.0
    assert "Reliability of the model score" in (tmp_path / "out/report.html").read_text()
