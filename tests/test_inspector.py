"""Records to findings: what the model said becomes a verdict, and one failure stays one row."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from builders import NORMAL, anomalous, make_inspector, make_picture, make_record
from PIL import Image

from anomalyr1 import inspector as inspector_module
from anomalyr1 import preparation
from anomalyr1.types import Completion, InputError


def test_a_picture_becomes_a_verdict_with_box_and_mask_in_original_pixels(tmp_path: Path) -> None:
    path = make_picture(tmp_path / "part.png", (64, 48))
    shown = ((32, 24), (32, 24))

    def script(prompt: object, pictures: object) -> Completion:
        return Completion("part", anomalous((12, 8, 20, 16)), image_sizes_wh=shown, p_anomalous=0.8)

    result = make_inspector(script).inspect(path)
    assert result.finding.verdict == "anomalous"
    assert result.finding.anomaly_score == 0.8
    assert result.finding.defects[0].box_xyxy == (24, 16, 40, 32)
    assert result.masks[0].shape == (48, 64)
    assert result.masks[0].any()
    assert result.finding.defects[0].confidence == pytest.approx(0.9)


@pytest.mark.parametrize(
    "text", ["", "I am sorry", "<answer>{}</answer>", "normal", "\ud800<answer>"]
)
def test_what_cannot_be_read_is_unread_and_never_normal(tmp_path: Path, text: str) -> None:
    path = make_picture(tmp_path / "part.png")
    finding = make_inspector(lambda prompt, pictures: text).inspect(path).finding
    assert finding.verdict == "unread"
    assert finding.anomaly_score is None
    assert finding.detector_score == 0.9


def test_one_bad_picture_is_a_row_with_its_error_and_the_others_go_on(tmp_path: Path) -> None:
    good = [make_picture(tmp_path / f"{number}.png") for number in range(4)]
    bad = tmp_path / "bad.png"
    bad.write_text("not a picture")
    records = [make_record(path) for path in (good[0], bad, *good[1:])]
    inspector = make_inspector(lambda prompt, pictures: NORMAL)
    findings = [item.finding for item in inspector.inspect_records(records, batch_size=3)]
    assert [finding.record_id for finding in findings] == [record.record_id for record in records]
    assert [finding.verdict for finding in findings] == ["normal", "unread", *["normal"] * 3]
    assert "bad.png" in str(findings[1].error)


def test_a_prompt_that_does_not_fit_fails_alone(tmp_path: Path) -> None:
    paths = [make_picture(tmp_path / f"{number}.png") for number in range(3)]

    def script(prompt: object, pictures: object) -> str:
        if getattr(prompt, "record_id", "") == "1.png":
            raise InputError("1.png is too long")
        return NORMAL

    records = [make_record(path) for path in paths]
    findings = [item.finding for item in make_inspector(script).inspect_records(records)]
    assert [finding.verdict for finding in findings] == ["normal", "unread", "normal"]


def test_without_a_hint_there_is_no_map_and_no_detector_score(tmp_path: Path) -> None:
    path = make_picture(tmp_path / "part.png")
    result = make_inspector(lambda prompt, pictures: NORMAL, hint=False).inspect(path)
    assert result.anomaly_map is None
    assert result.finding.detector_score is None


@pytest.mark.parametrize(
    "text",
    [
        NORMAL[:-20],
        NORMAL.replace("[]", '[{"bbox_2d": [1, 1, 9, 9]}]'),
        NORMAL.replace('"normal"', '"Normal"'),
        NORMAL + anomalous((1, 1, 9, 9)),
        anomalous((9, 9, 9, 9)),
        anomalous((900, 900, 950, 950)),
        NORMAL.replace("<answer>", "<answer>The part is "),
        "<think>normal</think>",
        '{"verdict": "normal", "defects": []}',
    ],
    ids=[
        "cut off",
        "normal with a defect",
        "a verdict not asked for",
        "two answers",
        "an empty box",
        "a box outside",
        "words beside the answer",
        "no answer",
        "no tags",
    ],
)
def test_an_answer_that_is_not_whole_is_unread_and_has_no_score(tmp_path: Path, text: str) -> None:
    path = make_picture(tmp_path / "part.png")

    def script(prompt: object, pictures: list[Image.Image]) -> Completion:
        sizes = tuple(picture.size for picture in pictures)
        return Completion("part", text, image_sizes_wh=sizes, p_anomalous=0.1)

    result = make_inspector(script).inspect(path)  # type: ignore[arg-type]
    assert result.finding.verdict == "unread"
    assert result.finding.status != "ok"
    assert result.finding.anomaly_score is None
    assert result.finding.raw_text == text
    assert result.masks == ()


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
def test_an_answer_cut_off_at_the_limit_is_unread(tmp_path: Path, finish_reason: str) -> None:
    path = make_picture(tmp_path / "part.png")

    def script(prompt: object, pictures: list[Image.Image]) -> Completion:
        sizes = tuple(picture.size for picture in pictures)
        text = NORMAL.partition("</answer>")[0]
        return Completion("part", text, finish_reason=finish_reason, image_sizes_wh=sizes)  # type: ignore[arg-type]

    finding = make_inspector(script).inspect(path).finding  # type: ignore[arg-type]
    assert finding.verdict == "unread"
    assert finish_reason == "stop" or finding.status == "truncated"


@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
def test_the_size_of_batches_changes_no_finding(tmp_path: Path, batch_size: int) -> None:
    paths = [make_picture(tmp_path / f"{number}.png", level=60 + number) for number in range(5)]
    inspector = make_inspector(
        lambda prompt, pictures: anomalous((int(prompt.record_id[0]), 0, 30, 30))
    )
    results = inspector.inspect_records(map(make_record, paths), batch_size=batch_size)
    assert [result.finding.defects[0].box_xyxy[0] for result in results] == [0, 1, 2, 3, 4]


def test_knowledge_that_would_be_read_as_a_picture_is_refused(tmp_path: Path) -> None:
    path = make_picture(tmp_path / "part.png")
    inspector = make_inspector(lambda prompt, pictures: NORMAL)
    with pytest.raises(InputError, match="control token"):
        inspector.inspect(path, knowledge="two screws <|image_pad|>")


def test_the_seconds_of_a_finding_count_its_reading_and_its_share_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_picture(tmp_path / "part.png")
    load = inspector_module.load_image

    def load_slowly(source: object) -> Image.Image:
        time.sleep(0.05)
        return load(source)  # type: ignore[arg-type]

    def script(prompt: object, pictures: object) -> str:
        time.sleep(0.05)
        return NORMAL

    for module in (inspector_module, preparation):
        monkeypatch.setattr(module, "load_image", load_slowly)
    inspector = make_inspector(script)
    records = [make_record(path), make_record(path)]
    seconds = [result.finding.seconds for result in inspector.inspect_records(records)]
    assert all(0.1 <= one < 1 for one in [*seconds, inspector.inspect(path).finding.seconds])
