from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builders import NORMAL, anomalous, make_inspector, make_picture, make_record

from anomalyr1 import run_folder
from anomalyr1.reporting.findings import load_findings
from anomalyr1.run_folder import RunFolder, inspect_into, load_map
from anomalyr1.types import InputError, Record

SETTINGS = {"model": "scripted"}


def run_all(folder: Path, records: list[Record], script: object = None) -> None:
    inspector = make_inspector(script or (lambda prompt, pictures: anomalous((9, 9, 30, 30))))  # type: ignore[arg-type]
    with RunFolder(folder, SETTINGS) as run:
        done = run.finished()
        waiting = [record for record in records if record.record_id not in done]
        list(inspect_into(run, records, inspector.inspect_records(waiting, batch_size=1)))


def make_records(folder: Path, count: int) -> list[Record]:
    return [make_record(make_picture(folder / f"{number}.png")) for number in range(count)]


def test_every_named_file_is_there_and_has_the_picture_s_size(tmp_path: Path) -> None:
    run_all(tmp_path / "out", make_records(tmp_path, 2))
    findings = load_findings(tmp_path / "out" / "findings.jsonl")
    assert len(findings) == 2
    for finding in findings:
        for name in (finding.overlay, finding.anomaly_map, finding.defects[0].mask):
            assert name is not None
            assert (tmp_path / "out" / name).is_file()
    anomaly_map = load_map(tmp_path / "out", findings[0])
    assert anomaly_map is not None
    assert np.isclose(anomaly_map.max(), 0.9, atol=1e-4)


def test_a_stopped_run_continues_and_inspects_nothing_twice(tmp_path: Path) -> None:
    records = make_records(tmp_path, 5)
    asked: list[str] = []

    def script(prompt: object, pictures: object) -> str:
        asked.append(prompt.record_id)  # type: ignore[attr-defined]
        if len(asked) == 3:
            raise KeyboardInterrupt
        return NORMAL

    with pytest.raises(KeyboardInterrupt):
        run_all(tmp_path / "out", records, script)
    run_all(tmp_path / "out", records, script)
    assert asked == ["0.png", "1.png", "2.png", "2.png", "3.png", "4.png"]
    findings = load_findings(tmp_path / "out" / "findings.jsonl")
    assert [finding.record_id for finding in findings] == [f"{n}.png" for n in range(5)]


def test_a_run_killed_by_the_system_continues_with_one_line_a_picture(tmp_path: Path) -> None:
    make_records(tmp_path, 30)
    script = (
        "import sys, time; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "import test_run_folder as t; from builders import make_record, NORMAL\n"
        "folder = Path(sys.argv[1])\n"
        "records = [make_record(folder / f'{n}.png') for n in range(30)]\n"
        "t.run_all(folder / 'out', records, lambda p, q: (time.sleep(0.02), NORMAL)[1])\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).parent)]
    process = subprocess.Popen(command)
    lines = tmp_path / "out" / "findings.jsonl"
    while not lines.exists() or lines.read_text().count("\n") < 5:
        time.sleep(0.01)
        assert process.poll() is None
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert lines.read_text().count("\n") < 30
    subprocess.run(command, check=True)
    names = [finding.record_id for finding in load_findings(lines)]
    assert names == [f"{number}.png" for number in range(30)]


def test_a_picture_that_failed_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "late.png"
    path.write_text("")
    run_all(tmp_path / "out", [make_record(path)])
    make_picture(path)
    run_all(tmp_path / "out", [make_record(path)])
    with RunFolder(tmp_path / "out", SETTINGS) as run:
        assert run.finished()["late.png"].verdict == "anomalous"


def test_another_run_s_folder_is_refused(tmp_path: Path) -> None:
    run_all(tmp_path / "out", make_records(tmp_path, 1))
    with pytest.raises(InputError, match="other settings"), RunFolder(tmp_path / "out", {"a": 1}):
        pass


def test_a_full_disk_is_said_and_what_is_written_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = make_records(tmp_path, 3)
    run_all(tmp_path / "out", records[:1])

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "write_png_atomic", full)
    with pytest.raises(InputError, match="No space left"):
        run_all(tmp_path / "out", records)
    assert len(load_findings(tmp_path / "out" / "findings.jsonl")) == 1
