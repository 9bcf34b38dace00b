from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import NORMAL, anomalous, make_inspector, make_picture, make_record
from PIL import Image

from anomalyr1.types import Completion, InputError, Record


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


def test_references_come_first_and_the_hint_last(tmp_path: Path) -> None:
    path = make_picture(tmp_path / "part.png", (64, 48), 90)
    reference = make_picture(tmp_path / "good.png", (80, 80), 200)
    seen: list[tuple[int, int]] = []

    def script(prompt: object, pictures: list[Image.Image]) -> str:
        seen.extend(picture.size for picture in pictures)
        return NORMAL

    make_inspector(script).inspect(path, references=[reference])  # type: ignore[arg-type]
    assert seen == [(80, 80), (64, 48), (64, 48)]


def test_without_a_hint_there_is_no_map_and_no_detector_score(tmp_path: Path) -> None:
    path = make_picture(tmp_path / "part.png")
    result = make_inspector(lambda prompt, pictures: NORMAL, hint=False).inspect(path)
    assert result.anomaly_map is None
    assert result.finding.detector_score is None


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 12), np.uint8),
        np.zeros((10, 12, 3), np.uint8),
        np.zeros((1, 1, 3), np.uint8),
        np.zeros((10, 12), np.uint16),
        Image.new("CMYK", (12, 10)),
        Image.new("1", (12, 10)),
    ],
    ids=["grey", "rgb", "one pixel", "16 bit", "cmyk", "1 bit"],
)
def test_arrays_and_pictures_of_any_kind_are_taken(image: object) -> None:
    result = make_inspector(lambda prompt, pictures: NORMAL).inspect(image)  # type: ignore[arg-type]
    assert result.finding.verdict == "normal"


def test_an_exif_rotated_picture_is_judged_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (60, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    picture.save(path, exif=exif)
    result = make_inspector(lambda prompt, pictures: anomalous((5, 5, 20, 30))).inspect(path)
    assert result.finding.image_size_wh == (40, 60)
    assert result.masks[0].shape == (60, 40)


def test_a_picture_that_is_missing_is_named() -> None:
    inspector = make_inspector(lambda prompt, pictures: NORMAL)
    with pytest.raises(InputError, match="nowhere"):
        inspector.inspect("nowhere.png")
    (result,) = inspector.inspect_records([Record("a", Path("nowhere.png"))])
    assert "nowhere" in str(result.finding.error)
