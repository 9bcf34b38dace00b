"""Questions from records' truth, written as MMAD's are."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from anomalyr1 import images
from anomalyr1.cli import app
from anomalyr1.data.mmad import load_mmad
from anomalyr1.data.question_file import write_question_file
from anomalyr1.data.records import write_records
from anomalyr1.types import InputError, Record, Region


def make_records(folder: Path) -> list[Record]:
    for name in ("a.png", "b.png", "good.png"):
        Image.new("RGB", (90, 90), (len(name) * 9, 80, 90)).save(folder / name)
    region = Region((60.0, 60.0, 85.0, 85.0), "dent", "severe dent, a shaded hollow at the right")
    whole = Record("b", folder / "b.png", "my set", "cap/nut", label="normal", knowledge="Even.")
    whole = replace(whole, reference_paths=(folder / "good.png",))
    dented = replace(
        whole,
        record_id="a",
        image_path=folder / "a.png",
        label="anomalous",
        defect_type="dent",
        regions=(region,),
    )
    return [dented, whole]


def test_what_is_written_is_read_as_mmad(tmp_path: Path) -> None:
    records = make_records(tmp_path)
    count = write_question_file(records, tmp_path / "out", seed=0)
    loaded = load_mmad(tmp_path / "out")
    assert len(loaded.records) == count > 6 and not loaded.missing and not loaded.faults
    asked = {record.question.question_type: record for record in loaded.records if record.question}
    assert {"Anomaly Detection", "Defect Localization", "Defect Analysis"} <= asked.keys()
    place = asked["Defect Localization"].question
    assert place is not None and place.options[str(place.answer)].rstrip(".") == "Bottom right"
    first = asked["Defect Localization"]
    assert (first.dataset, first.category, first.defect_type) == ("my_set", "cap_nut", "dent")
    assert (first.label, first.knowledge) == ("anomalous", "Even.")
    assert len(first.random_paths) == 1 and first.random_paths == first.similar_paths
    assert first.image_path.read_bytes() == (tmp_path / "a.png").read_bytes()
    assert {record.label for record in loaded.records} == {"normal", "anomalous"}
    write_question_file(records, tmp_path / "again", seed=0)
    write_question_file(records, tmp_path / "other", seed=1)
    texts = [(tmp_path / name / "mmad.json").read_text() for name in ("out", "again", "other")]
    assert texts[0] == texts[1] != texts[2]


def test_questions_are_not_written_over_and_need_a_label(tmp_path: Path) -> None:
    records = make_records(tmp_path)
    write_question_file(records, tmp_path / "out", seed=0)
    with pytest.raises(InputError, match="holds questions already"):
        write_question_file(records, tmp_path / "out", seed=0)
    with pytest.raises(InputError, match="has no label"):
        write_question_file([replace(records[0], label=None)], tmp_path / "none", seed=0)


def test_a_full_disk_leaves_no_half_picture_and_is_said_of_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    records = make_records(tmp_path)
    monkeypatch.setattr(images.os, "fsync", fail)
    with pytest.raises(
        OSError, match=rf"No space left on device: '{tmp_path / 'out'}/.*000000.png"
    ):
        write_question_file(records, tmp_path / "out", seed=0)
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_the_command_says_what_it_wrote(tmp_path: Path) -> None:
    write_records(tmp_path / "parts.jsonl", make_records(tmp_path))
    given = ["data", "questions", str(tmp_path / "parts.jsonl"), "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, given)
    assert said.exit_code == 0, said.output
    entries = json.loads((tmp_path / "out" / "mmad.json").read_text())
    asked = sum(len(entry["conversation"]) for entry in entries.values())
    assert f"{asked} questions on 2 pictures" in said.output
