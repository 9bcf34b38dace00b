"""What stands behind --model: detectors alone, chance and the majority."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders import QuietDetector, make_picture, make_record
from PIL import Image

from anomalyr1 import preparation
from anomalyr1.detector_alone import DetectorAlone, find_regions
from anomalyr1.inspector import Inspector
from anomalyr1.models import (
    build_engine,
    build_inspector,
    describe_weights,
    name_detector,
    name_model,
)
from anomalyr1.parsing import parse_choice
from anomalyr1.prompts import build_choice_prompt
from anomalyr1.types import Anomaly, InputError, Label, Question, Record, SeenRegion


def make_records(folder: Path, num_normal: int, num_anomalous: int) -> list[Record]:
    labels: list[Label] = ["normal"] * num_normal + ["anomalous"] * num_anomalous
    path = make_picture(folder / "part.png")
    return [
        Record(f"{number}", path, label=label, question=None) for number, label in enumerate(labels)
    ]


def test_a_detector_alone_judges_by_its_score_and_marks_its_map(tmp_path: Path) -> None:
    record = make_record(make_picture(tmp_path / "bad.png"), label="anomalous")
    (found,) = DetectorAlone(QuietDetector(), "detector:quiet").inspect_records([record])
    finding = found.finding
    assert (finding.verdict, finding.anomaly_score, finding.detector_score) == (
        "anomalous",
        0.9,
        0.9,
    )
    (defect,), (mask,) = finding.defects, found.masks
    assert mask.shape == (48, 64)
    left, top, right, bottom = defect.box_xyxy
    assert 20 <= left < right <= 44 and 12 <= top < bottom <= 36
    assert mask[int(top) : int(bottom), int(left) : int(right)].sum() == mask.sum() > 0
    assert defect.confidence == pytest.approx(0.9)


def test_a_detector_alone_reports_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    good = make_record(make_picture(tmp_path / "good.png"))
    missing = make_record(tmp_path / "missing.png")
    detector = DetectorAlone(QuietDetector(), "detector:quiet")
    first, second = detector.inspect_records([missing, good])
    assert first.finding.verdict == "unread"
    assert "no such file" in (first.finding.error or "")
    assert second.finding.error is None


def test_specks_of_a_map_are_no_defects() -> None:
    anomaly_map = np.zeros((100, 100), np.float32)
    anomaly_map[50, 50] = 1.0
    assert find_regions(Anomaly(anomaly_map, 0.9), (1000, 1000)) == []
    anomaly_map[:] = 0.4
    assert find_regions(Anomaly(anomaly_map, 0.9), (64, 48)) == []


def test_regions_that_the_detector_names_are_its_defects() -> None:
    anomaly_map = np.zeros((10, 20), np.float32)
    anomaly_map[2:6, 4:8] = 1.0
    seen = (SeenRegion((5.0, 1.0, 9.0, 6.0), 1.0, "dent"), SeenRegion((10.0, 0.0, 11.0, 1.0), 0.6))
    dent, other = find_regions(Anomaly(anomaly_map, 0.9, seen), (20, 10))
    assert dent[:2] == ((5.0, 1.0, 9.0, 6.0), "dent")
    assert np.argwhere(dent[2]).min(axis=0).tolist() == [2, 5] and dent[2].sum() == 4 * 3
    assert other[1] == "anomaly" and not other[2].any()


def test_chance_gives_even_verdicts_that_a_seed_repeats(tmp_path: Path) -> None:
    records = make_records(tmp_path, 200, 200)
    inspector = build_inspector("random")
    findings = [found.finding for found in inspector.inspect_records(records, seed=3)]
    counts = Counter(finding.verdict for finding in findings)
    assert set(counts) == {"normal", "anomalous"}
    assert 150 < counts["normal"] < 250
    again = [found.finding.verdict for found in inspector.inspect_records(records, seed=3)]
    assert again == [finding.verdict for finding in findings]
    other = [found.finding.verdict for found in inspector.inspect_records(records, seed=4)]
    assert other != again


@pytest.mark.parametrize(("num_normal", "verdict"), [(3, "normal"), (1, "anomalous")])
def test_the_majority_is_what_the_records_say(
    tmp_path: Path, num_normal: int, verdict: str
) -> None:
    records = make_records(tmp_path, num_normal, 2)
    inspector = build_inspector("majority", records=records)
    findings = [found.finding for found in inspector.inspect_records(records)]
    assert {finding.verdict for finding in findings} == {verdict}
    assert {finding.anomaly_score for finding in findings} == {2 / (num_normal + 2)}


def test_baselines_answer_questions_with_a_letter_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "part.png"
    options = {"B": "Yes.", "D": "No."}
    records = [
        Record(
            str(number),
            path,
            knowledge="A: not an option",
            question=Question("Question: Is it?", options, answer, "Anomaly Detection"),
        )
        for number, answer in enumerate("BDDBDD" * 10)
    ]
    prompts = [build_choice_prompt(record, num_references=0, hint=None) for record in records]
    for name, expected in (("random", {"B", "D"}), ("majority", {"D"})):
        engine = build_engine(name, records=records)
        completions = engine.generate(prompts, [[] for _ in prompts])
        choices = {parse_choice(one.text, options=options).choice for one in completions}
        assert choices == expected


def test_models_that_are_not_there_are_named() -> None:
    assert name_detector("detector:dinov2:folder") == "dinov2:folder"
    assert name_detector("Qwen/Qwen2.5-VL-3B-Instruct") is None
    with pytest.raises(InputError, match="detectors are detector:patch-memory"):
        name_detector("detector:magic")
    with pytest.raises(InputError, match="answers no questions in words"):
        build_engine("detector:patch-memory")
    with pytest.raises(InputError, match="needs records with labels"):
        build_engine("majority")


def test_settings_name_the_weights_of_folders_and_nothing_of_others(tmp_path: Path) -> None:
    nano = describe_weights("nano")["weights_sha256"]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    own = describe_weights(str(tmp_path))["weights_sha256"]
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    assert len({nano, own, describe_weights(str(tmp_path))["weights_sha256"]}) == 3
    alone = describe_weights("detector:patch-memory")
    assert alone == {"weights_sha256": nano, "hint_weights_sha256": None}
    beside = describe_weights("random", f"dinov2:{tmp_path}")
    assert beside["weights_sha256"] is None and beside["hint_weights_sha256"] is not None
    for model in ("random", "openai:http://localhost/v1#some"):
        assert set(describe_weights(model, "none").values()) == {None}


def test_a_detector_alone_reads_the_references_of_a_product_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load = preparation.load_image

    def count(path: Path) -> Image.Image:
        read.append(path.name)
        return load(path)

    monkeypatch.setattr(preparation, "load_image", count)
    normal = tuple(make_picture(tmp_path / f"normal{number}.png") for number in range(2))
    part = make_picture(tmp_path / "part.png")
    question = Question("Is there any defect?", {"A": "Yes.", "B": "No."}, "A", "Anomaly Detection")
    records = [make_record(part, reference_paths=normal, question=question)] * 3
    inspector = DetectorAlone(QuietDetector(), "detector:quiet")
    assert len(list(inspector.inspect_records(records))) == 3
    assert [one.error for one in inspector.answer_records(records)] == [None] * 3
    assert read == ["normal0.png", "normal1.png"]


def test_the_bundled_detector_stands_behind_its_name(tmp_path: Path) -> None:
    record = make_record(make_picture(tmp_path / "part.png"))
    inspector = build_inspector("detector:patch-memory")
    assert not isinstance(inspector, Inspector)
    (found,) = inspector.inspect_records([record])
    assert found.finding.model == "detector:patch-memory"
    assert found.anomaly_map is not None


def test_an_engine_and_a_model_are_one_name() -> None:
    assert name_model("nano", None) == name_model("nano", "transformers") == "nano"
    assert name_model("a/b", "openai:http://h/v1") == "openai:http://h/v1#a/b"
    for model, engine in (
        ("nano", "tensorrt"),
        ("openai:http://h/v1#m", "transformers"),
        ("detector:patch-memory", "openai:http://h/v1"),
        ("random", "transformers"),
    ):
        with pytest.raises(InputError, match="--engine"):
            name_model(model, engine)
