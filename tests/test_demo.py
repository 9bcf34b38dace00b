"""The demo's pictures and its table, without the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from anomalyr1 import inspector
from anomalyr1.cli import app
from anomalyr1.cli.demo import describe_truth, make_demo_records
from anomalyr1.data.records import validate_record
from anomalyr1.engines.scripted import ScriptedEngine
from anomalyr1.types import Record, Region

pytest.importorskip("skimage", reason="the demo's photographs come with scikit-image")


def test_the_demo_shows_drawn_parts_and_photographs_both_normal_and_defective(
    tmp_path: Path,
) -> None:
    records = make_demo_records(tmp_path, 1, seed=5)
    assert [record.label for record in records] == ["anomalous", "normal"] * 2
    assert [record.category for record in records] == ["screw"] * 2 + ["photo brick"] * 2
    assert all(record.reference_paths for record in records)
    for record in records:
        validate_record(record)


def test_the_truth_names_every_kind_of_defect_once() -> None:
    regions = tuple(Region((0, 0, 1, 1), kind) for kind in ("dent", "scratch", "dent"))
    record = Record("a", Path("a.png"), label="anomalous", regions=regions)
    assert describe_truth(record) == "anomalous: dent, scratch"
    assert describe_truth(Record("b", Path("b.png"), label="normal")) == "normal"


def test_the_demo_prints_verdict_beside_truth_and_names_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = ScriptedEngine(lambda prompt, pictures: "nothing that could be read")
    monkeypatch.setattr(inspector.Inspector, "load", classmethod(lambda cls, model: cls(engine)))
    arguments = ["demo", "--products", "1", "--out", str(tmp_path / "demo")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    assert result.stdout.count("unread") == 4
    assert "0 of 4 verdicts agree with the truth" in result.stdout
    assert (tmp_path / "demo" / "report.html").is_file()
