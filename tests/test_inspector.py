from __future__ import annotations

import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
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

from anomalyr1 import inspector as inspector_module
from anomalyr1 import preparation
from anomalyr1.detector_alone import DetectorAlone
from anomalyr1.engines.scripted import ScriptedEngine
from anomalyr1.images import load_image
from anomalyr1.inspector import Inspector
from anomalyr1.preparation import leave_itself_out
from anomalyr1.types import Anomaly, Completion, InputError, Record


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


def save(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def make_turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return save(Image.new("RGB", (60, 40)), "JPEG", exif=exif)


def make_transparent_palette() -> bytes:
    picture = Image.new("P", (60, 40), 1)
    picture.putpalette([0, 0, 0, 200, 10, 10])
    return save(picture, "PNG", transparency=0)


def make_animation() -> bytes:
    frames = [Image.new("P", (60, 40), level) for level in range(3)]
    return save(frames[0], "GIF", save_all=True, append_images=frames[1:])


@pytest.mark.parametrize("hint", [True, False], ids=["hint", "no hint"])
@pytest.mark.parametrize(
    ("source", "size_wh"),
    [
        (make_turned(6), (40, 60)),
        (make_turned(3), (60, 40)),
        (save(Image.fromarray(np.full((40, 60), 40_000, np.uint16)), "PNG"), (60, 40)),
        (save(Image.new("CMYK", (60, 40)), "JPEG"), (60, 40)),
        (make_transparent_palette(), (60, 40)),
        (make_animation(), (60, 40)),
        (save(Image.new("L", (1, 1)), "PNG"), (1, 1)),
        (save(Image.new("RGB", (1, 50)), "PNG"), (1, 50)),
        (save(Image.new("RGB", (3000, 20)), "PNG"), (3000, 20)),
    ],
    ids=["turned", "upside down", "16 bit", "cmyk", "palette", "animated", "pixel", "line", "wide"],
)
def test_boxes_and_masks_are_in_pixels_of_the_upright_original(
    source: bytes, size_wh: tuple[int, int], hint: bool
) -> None:
    """The model is shown a smaller picture, and marks its right lower quarter."""
    shown: list[tuple[int, int]] = []

    def script(prompt: object, pictures: list[Image.Image]) -> Completion:
        shown.append(pictures[0].size)
        seen = ((100, 100),) * len(pictures)
        return Completion("part", anomalous((50, 50, 100, 100)), image_sizes_wh=seen)

    result = make_inspector(script, hint=hint).inspect(source)  # type: ignore[arg-type]
    width, height = size_wh
    assert result.finding.image_size_wh == size_wh
    assert result.finding.defects[0].box_xyxy == (width / 2, height / 2, width, height)
    assert result.masks[0].shape == (height, width)
    assert result.masks[0].dtype == np.bool_
    assert result.masks[0].any()
    assert max(shown[0]) <= 1280


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
