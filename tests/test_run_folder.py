from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import time
import zlib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from random import Random

import numpy as np
import pytest
from builders import NORMAL, anomalous, make_inspector, make_picture, make_record
from PIL import Image

from anomalyr1 import run_folder
from anomalyr1.reporting.findings import FindingsWriter, load_findings
from anomalyr1.reporting.layers import build_heat_layer
from anomalyr1.reporting.maps import read_map, write_map
from anomalyr1.run_folder import RunFolder, inspect_into, load_map
from anomalyr1.types import Finding, InputError, Prompt, Record

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


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_run_folder as tests
from builders import make_record

folder = Path(sys.argv[1])
records = [make_record(folder / f"{number}.png") for number in range(30)]
tests.run_all(folder / "out", records, lambda p, q: (time.sleep(0.01), tests.answer(p, q))[1])
"""


def answer(prompt: Prompt, pictures: object) -> str:
    number = int(prompt.record_id.removesuffix(".png"))
    return anomalous((number % 7, 3, 30, 20 + number % 5)) if number % 3 else NORMAL


def read_run(folder: Path) -> tuple[list[Finding], dict[str, bytes]]:
    """The findings but for their seconds, and everything that was drawn for them."""
    findings = load_findings(folder / "findings.jsonl")
    drawn = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.png")}
    return [replace(finding, seconds=0.0) for finding in findings], drawn


def test_a_run_killed_at_any_moment_ends_as_one_that_was_not(tmp_path: Path) -> None:
    records = make_records(tmp_path, 30)
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    path = tmp_path / "out" / "findings.jsonl"
    moment = Random(os.getpid())
    for lines in (2, 12):
        process = subprocess.Popen(command)
        while not path.exists() or path.read_bytes().count(b"\n") < lines:
            time.sleep(0.005)
            assert process.poll() is None
        time.sleep(moment.uniform(0, 0.05))
        process.kill()
        process.wait()
        assert lines <= path.read_bytes().count(b"\n") < 30
    subprocess.run(command, check=True)
    assert path.read_bytes().count(b"\n") == 30
    run_all(tmp_path / "whole", records, answer)
    assert read_run(tmp_path / "out") == read_run(tmp_path / "whole")


def test_a_line_is_on_disk_before_the_next_picture_is_looked_at(tmp_path: Path) -> None:
    lines: list[int] = []

    def script(prompt: object, pictures: object) -> str:
        path = tmp_path / "out" / "findings.jsonl"
        lines.append(path.read_bytes().count(b"\n"))
        return NORMAL

    run_all(tmp_path / "out", make_records(tmp_path, 4), script)
    assert lines == [0, 1, 2, 3]


def test_a_picture_that_failed_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "late.png"
    path.write_text("")
    run_all(tmp_path / "out", [make_record(path)])
    make_picture(path)
    run_all(tmp_path / "out", [make_record(path)])
    with RunFolder(tmp_path / "out", SETTINGS) as run:
        assert run.finished()["late.png"].verdict == "anomalous"
    path = tmp_path / "out" / "findings.jsonl"
    assert len(path.read_text().splitlines()) == 2
    assert [finding.verdict for finding in load_findings(path)] == ["anomalous"]


def test_the_last_finding_of_a_record_counts_where_the_record_first_stood(tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    with FindingsWriter(path) as writer:
        for record_id, error in [("a", "x"), ("b", None), ("a", "y"), ("c", None), ("a", None)]:
            writer.write(Finding(record_id, "part.png", "unread", error=error))
    findings = load_findings(path)
    assert [(finding.record_id, finding.error) for finding in findings] == [
        ("a", None),
        ("b", None),
        ("c", None),
    ]


def test_another_run_s_folder_is_refused(tmp_path: Path) -> None:
    run_all(tmp_path / "out", make_records(tmp_path, 1))
    changed = SETTINGS | {"weights_sha256": "b" * 64}
    said = r"other settings \(weights_sha256 was None, is 'bbbb"
    with pytest.raises(InputError, match=said), RunFolder(tmp_path / "out", changed):
        pass


def test_a_folder_that_another_run_is_writing_is_refused_and_left_to_it(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no file locks on this system")
    records = make_records(tmp_path, 1)
    with RunFolder(tmp_path / "out", SETTINGS) as run:
        with pytest.raises(InputError, match="another run is writing to it; wait for it or choose"):
            run_all(tmp_path / "out", records)
        list(inspect_into(run, records, make_inspector(answer).inspect_records(records)))
    assert len(load_findings(tmp_path / "out" / "findings.jsonl")) == 1


@pytest.mark.parametrize(
    ("changed", "value", "said"),
    [
        ("describe_environment", lambda: {"anomalyr1": "99.0"}, r"anomalyr1 was '{}', is '99\.0'"),
        ("INSPECTION_TEMPLATE_ID", "inspect-0", r"prompt was 'inspect-\S+', is 'inspect-0'"),
    ],
)
def test_findings_of_another_version_or_prompt_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, value: object, said: str
) -> None:
    run_all(tmp_path / "out", make_records(tmp_path, 1))
    monkeypatch.setattr(run_folder, changed, value)
    said = said.replace("{}", re.escape(version("anomalyr1")))
    with (
        pytest.raises(InputError, match=rf"{said}\): choose another --out"),
        RunFolder(tmp_path / "out", SETTINGS),
    ):
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


def test_findings_of_unknown_settings_are_refused(tmp_path: Path) -> None:
    run_all(tmp_path / "out", make_records(tmp_path, 1))
    (tmp_path / "out" / "config.json").unlink()
    said = r"other settings \(config.json is not there"
    with pytest.raises(InputError, match=said), RunFolder(tmp_path / "out", SETTINGS):
        pass


def test_a_disk_that_is_full_from_the_start_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_folder, "write_bytes_atomic", full)
    with pytest.raises(InputError, match="No space left"), RunFolder(tmp_path / "out", SETTINGS):
        pass


def test_close_values_of_a_map_stay_apart_on_disk(tmp_path: Path) -> None:
    values = np.linspace(0.5, 0.502, 60, dtype=np.float32).reshape(6, 10)
    write_map(tmp_path / "map.png", values)
    with Image.open(tmp_path / "map.png") as picture:
        assert picture.mode == "I;16"
        assert np.asarray(picture)[0, 0] == round(0.5 * 65535)
    read = read_map(tmp_path / "map.png")
    assert read.dtype == np.float32
    assert len(np.unique(read)) == 60
    assert np.abs(read - values).max() <= 0.5 / 65535 + 1e-7


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_map_of_8_or_16_bits_is_read_and_shown_alike(
    tmp_path: Path, bits: int, value: float
) -> None:
    top, kind = (255, np.uint8) if bits == 8 else (65535, np.uint16)
    Image.fromarray(np.full((6, 8), round(value * top), kind)).save(tmp_path / "map.png")
    assert read_map(tmp_path / "map.png").mean() == pytest.approx(value, abs=0.51 / top)
    write_map(tmp_path / "same.png", np.full((6, 8), value, np.float32))
    layers = []
    for name in ("map.png", "same.png"):
        problems: list[str] = []
        finding = Finding("part", "part.png", "normal", anomaly_map=name)
        layers.append(build_heat_layer(finding, tmp_path, (80, 60), 80, problems))
        assert problems == []
    assert layers[0] == layers[1] != ""


@pytest.mark.parametrize("damage", ["missing", "cut off", "text", "flipped", "colour", "bomb"])
def test_a_damaged_map_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "map.png"
    write_map(path, np.random.default_rng(0).random((40, 40), np.float32))
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut off":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "text":
        path.write_text("map")
    elif damage == "colour":
        Image.new("RGB", (4, 4)).save(path)
    elif damage == "bomb":
        content[16:24] = (60_000).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)
    else:
        content[len(content) // 2] ^= 255
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"map\.png"):
        read_map(path)
