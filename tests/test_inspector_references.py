"""References of an inspection: which are shown and compared, in what order, and which cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from builders import (
    NORMAL,
    QuietDetector,
    anomalous,
    make_inspector,
    make_picture,
    make_record,
)
from PIL import Image

from anomalyr1.detector_alone import DetectorAlone
from anomalyr1.engines.scripted import ScriptedEngine
from anomalyr1.images import load_image
from anomalyr1.inspector import Inspector
from anomalyr1.preparation import leave_itself_out
from anomalyr1.types import Anomaly


def test_references_come_first_and_the_hint_last(tmp_path: Path) -> None:
    path = make_picture(tmp_path / "part.png", (64, 48), 90)
    reference = make_picture(tmp_path / "good.png", (80, 80), 200)
    seen: list[tuple[int, int]] = []

    def script(prompt: object, pictures: list[Image.Image]) -> str:
        seen.extend(picture.size for picture in pictures)
        return NORMAL

    make_inspector(script).inspect(path, references=[reference])  # type: ignore[arg-type]
    assert seen == [(80, 80), (64, 48), (64, 48)]


def test_a_picture_is_not_compared_with_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = make_picture(tmp_path / "part.png", level=90)
    copy = tmp_path / "copy.png"  # by content, whatever its name and format
    Image.open(path).save(tmp_path / "copy.png", optimize=True)
    other = make_picture(tmp_path / "good.png", level=200)
    compared: list[int] = []
    shown: list[int] = []

    class CountingDetector(QuietDetector):
        def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly:
            compared.append(len(references))
            return super().detect(picture, references)

    def script(prompt: object, pictures: Sequence[Image.Image]) -> str:
        shown.append(len(pictures))
        return NORMAL

    inspector = Inspector(ScriptedEngine(script), detector=CountingDetector())
    record = make_record(path, reference_paths=(copy, other))
    (found,) = inspector.inspect_records([record])
    assert found.finding.reference == str(other)
    inspector.inspect(path, references=[path, other])
    assert compared == [1, 1]
    assert shown == [3, 3], "the other reference, the picture, its map"
    assert [line.message.partition(" is among")[0] for line in caplog.records] == [str(path)] * 2
    (alone,) = DetectorAlone(CountingDetector(), "detector:counting").inspect_records([record])
    assert (compared[-1], alone.finding.reference) == (1, str(other))


def test_a_reference_that_differs_in_one_pixel_is_another_picture(tmp_path: Path) -> None:
    picture = load_image(make_picture(tmp_path / "part.png"))
    other = picture.copy()
    other.putpixel((0, 0), (1, 2, 3))
    turned = picture.rotate(90, expand=True)
    record = make_record(tmp_path / "part.png")
    _, kept = leave_itself_out(record, picture, [other, picture.copy(), turned])
    assert list(kept) == [other, turned]


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_references_may_have_any_size(tmp_path: Path, scale: float, mode: str) -> None:
    path = make_picture(tmp_path / "part.png", (64, 48))
    other = make_picture(tmp_path / "good.png", (64, 48), 90)
    reference = Image.new(mode, (round(50 * scale), round(70 * scale)))
    sizes: list[tuple[int, int]] = []

    def script(prompt: object, pictures: list[Image.Image]) -> str:
        sizes.extend(picture.size for picture in pictures)
        return anomalous((5, 5, 20, 20))

    inspector = make_inspector(script)  # type: ignore[arg-type]
    finding = inspector.inspect(path, references=[reference, other]).finding
    assert sizes == [reference.size, (64, 48), (64, 48), (64, 48)]
    assert finding.defects[0].box_xyxy == (5, 5, 20, 20)


def test_a_model_is_shown_no_more_references_than_it_takes(tmp_path: Path) -> None:
    paths = [make_picture(tmp_path / f"{number}.png", (20 + number, 20)) for number in range(7)]
    seen: list[int] = []

    def script(prompt: object, pictures: list[Image.Image]) -> str:
        seen.append(len(pictures))
        return NORMAL

    make_inspector(script).inspect(paths[0], references=paths[1:])  # type: ignore[arg-type]
    assert seen == [4 + 1 + 1]


def test_a_reference_that_cannot_be_read_is_an_error_of_its_records_only(tmp_path: Path) -> None:
    path = make_picture(tmp_path / "part.png")
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    records = [
        make_record(path, reference_paths=references)
        for references in [(), (path, bad), (path,), (bad,)]
    ]
    inspector = make_inspector(lambda prompt, pictures: NORMAL)
    findings = [item.finding for item in inspector.inspect_records(records)]
    assert [finding.verdict for finding in findings] == ["normal", "unread", "normal", "unread"]
    assert all("bad.png" in str(findings[place].error) for place in (1, 3))
