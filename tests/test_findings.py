"""Findings survive the disk: what is written is read back, whatever interrupted the run."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from anomalyr1.reporting.findings import (
    FindingsWriter,
    build_finding_line,
    load_findings,
    parse_finding_line,
)
from anomalyr1.types import Defect, Finding, InputError

KEYS = [
    *["image", "verdict", "anomaly_score", "detector_score", "reasoning", "defects", "raw_text"],
    *[
        "status",
        "model",
        "weights_sha256",
        "seconds",
        "error",
        "record_id",
        "template_id",
        "category",
        "overlay",
    ],
    *["anomaly_map", "reference", "image_size_wh"],
]


def make_finding(record_id: str = "bottle/001", reasoning: str = "A chip at the rim.") -> Finding:
    return Finding(
        record_id=record_id,
        image=f"photos/{record_id}.png",
        verdict="anomalous",
        anomaly_score=0.91,
        detector_score=0.7,
        reasoning=reasoning,
        defects=(
            Defect("chip", "glass missing", (1.5, 2.0, 30.25, 40.0), "masks/001.png", 0.8),
            Defect("scratch", "", (0.0, 0.0, 5.0, 6.0)),
        ),
        raw_text="<answer>anomalous</answer>",
        status="ok",
        model="nano",
        template_id="inspect-1a2b",
        category="bottle",
        seconds=1.25,
        overlay="overlays/001.png",
        anomaly_map="maps/001.png",
        reference="good/000.png",
        image_size_wh=(640, 480),
    )


def write_findings(path: Path, *record_ids: str) -> None:
    with FindingsWriter(path) as writer:
        for record_id in record_ids:
            writer.write(make_finding(record_id))


def test_a_finding_comes_back_as_it_was_written() -> None:
    assert parse_finding_line(build_finding_line(make_finding())) == make_finding()


def test_a_line_has_exactly_the_published_keys() -> None:
    fields = json.loads(build_finding_line(make_finding()))
    assert list(fields) == KEYS
    assert list(fields["defects"][0]) == ["label", "description", "box_xyxy", "mask", "confidence"]


@pytest.mark.parametrize(
    "text",
    [
        "\ud83d alone",
        "\udcff",
        "\x00\x07\x1b[31m",
        "line\nbreak\r\u2028\u2029\x85",
        "日本 🙂",
        '"\\',
    ],
)
def test_any_text_a_model_writes_fits_one_line_and_returns(text: str, tmp_path: Path) -> None:
    with FindingsWriter(tmp_path / "findings.jsonl") as writer:
        writer.write(make_finding(reasoning=text))
        writer.write(make_finding("second"))
    loaded = load_findings(tmp_path / "findings.jsonl")
    assert [loaded[0].reasoning, loaded[1].record_id] == [text, "second"]


def test_a_score_that_is_not_a_number_is_written_as_unknown() -> None:
    finding = Finding("a", "a.png", "unread", anomaly_score=float("nan"), seconds=float("inf"))
    loaded = parse_finding_line(build_finding_line(finding))
    assert (loaded.anomaly_score, loaded.seconds) == (None, 0.0)


def test_a_box_that_is_not_finite_is_refused_by_name() -> None:
    defect = Defect("chip", "", (0.0, 0.0, float("nan"), 1.0))
    with pytest.raises(InputError, match=r"bottle/9.*chip"):
        build_finding_line(Finding("bottle/9", "a.png", "anomalous", defects=(defect,)))


def test_every_written_finding_is_readable_before_the_next(tmp_path: Path) -> None:
    path = tmp_path / "run" / "findings.jsonl"
    with FindingsWriter(path, sync=True) as writer:
        for count, record_id in enumerate("abc", start=1):
            writer.write(make_finding(record_id))
            assert len(load_findings(path)) == count


@pytest.mark.parametrize("kept_share", [0.01, 0.5, 0.999])
def test_a_half_last_line_is_ignored_then_cut_off(kept_share: float, tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    write_findings(path, "a", "b")
    half = build_finding_line(make_finding("c", "long " * 40_000))
    with path.open("a") as file:
        file.write(half[: max(1, int(len(half) * kept_share))])
    assert [finding.record_id for finding in load_findings(path)] == ["a", "b"]
    write_findings(path, "d")
    assert [finding.record_id for finding in load_findings(path)] == ["a", "b", "d"]


def test_a_complete_last_finding_without_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    path.write_text(build_finding_line(make_finding("a")))
    assert len(load_findings(path)) == 1
    write_findings(path, "b")
    assert [finding.record_id for finding in load_findings(path)] == ["a", "b"]


def test_a_file_that_is_one_half_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    path.write_bytes(b'{"image": \xff')
    assert load_findings(path) == []
    write_findings(path)
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{half", "not JSON"),
        ("[1]", "a JSON object is expected"),
        ('{"image": "a.png"}', "verdict is missing"),
        ('{"image": "a.png", "verdict": "good"}', "verdict is 'good'"),
        ('{"verdict": "normal"}', "image is missing"),
        ('{"image": "a", "verdict": "normal", "anomaly_score": "high"}', "anomaly_score is 'high'"),
        ('{"image": "a", "verdict": "normal", "anomaly_score": NaN}', "anomaly_score is nan"),
        ('{"image": "a", "verdict": "normal", "defects": 3}', "defects is 3"),
        ('{"image": "a", "verdict": "normal", "defects": [3]}', "a defect is 3"),
        ('{"image": "a", "verdict": "normal", "defects": [{}]}', "box_xyxy is None"),
        ('{"image": "a", "verdict": "normal", "image_size_wh": [1]}', "image_size_wh is [1]"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_corrupt_line_in_the_middle_is_named(line: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "findings.jsonl"
    good = build_finding_line(make_finding())
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(InputError) as caught:
        load_findings(path)
    assert f"{path}, line 2: " in str(caught.value)
    assert problem in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"findings\.jsonl: cannot be read"):
        load_findings(tmp_path / "findings.jsonl")


def test_a_full_disk_leaves_the_written_findings_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "findings.jsonl"
    real_write = os.write
    taken: list[int] = []

    def write_until_full(descriptor: int, data: bytes) -> int:
        if taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken.append(real_write(descriptor, data[:20]))
        return 20

    with FindingsWriter(path) as writer:
        writer.write(make_finding("a"))
        monkeypatch.setattr(os, "write", write_until_full)
        with pytest.raises(InputError, match=r"No space left on device.*stay readable"):
            writer.write(make_finding("b"))
        monkeypatch.undo()
    assert path.read_bytes().endswith(b"}\n")
    assert [finding.record_id for finding in load_findings(path)] == ["a"]


def test_two_writers_on_one_file_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="no file locks on this system")
    path = tmp_path / "findings.jsonl"
    with FindingsWriter(path), pytest.raises(InputError, match="another run"):
        write_findings(path, "a")


def test_a_closed_writer_says_so(tmp_path: Path) -> None:
    writer = FindingsWriter(tmp_path / "findings.jsonl")
    with pytest.raises(InputError, match="closed"):
        writer.write(make_finding())
