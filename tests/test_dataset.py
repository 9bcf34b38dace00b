"""Records to rows and patch targets: boxes inside the shown picture, hints written once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from builders import make_picture
from PIL import Image

from anomalyr1.checkpoint import shown_size
from anomalyr1.parsing import parse_choice, parse_inspection
from anomalyr1.prompts import to_chat
from anomalyr1.training import dataset
from anomalyr1.training.dataset import (
    ChosenRows,
    HintedRecord,
    RowSettings,
    Shown,
    build_row,
    load_anomaly,
    place_regions,
    save_anomaly,
)
from anomalyr1.types import (
    Anomaly,
    Box,
    Hint,
    HintRegion,
    InputError,
    Prompt,
    Record,
    Region,
    SeenRegion,
)

pytest.importorskip("torch")

PROCESSOR = SimpleNamespace(
    image_processor=SimpleNamespace(
        patch_size=14,
        merge_size=2,
        size={"shortest_edge": 56 * 56, "longest_edge": 224 * 224},
    )
)
ALWAYS = RowSettings(without_hint=0.0, with_reference=1.0, without_reasoning=0.0)


def make_record(folder: Path, size_wh: tuple[int, int] = (400, 300), **fields: object) -> Record:
    path = make_picture(folder / "picture.png", size_wh)
    regions = (
        Region((201.0, 150.0, 399.0, 299.5), "crack", "clear crack"),
        Region((3.5, 2.0, 41.0, 55.0), "scratch", "slight scratch"),
    )
    record = Record(
        "1", path, category="part", label="anomalous", regions=regions, reference_paths=(path,)
    )
    return replace(record, **fields)  # type: ignore[arg-type]


def text_of(row: dict[str, object]) -> str:
    return str(row["completion"][0]["content"][0]["text"])  # type: ignore[index]


@pytest.mark.parametrize("size_wh", [(400, 300), (300, 400), (64, 300), (900, 500)])
def test_a_target_answer_reads_back_to_within_a_pixel(
    tmp_path: Path, size_wh: tuple[int, int]
) -> None:
    scale = np.array([size_wh[0] / 400, size_wh[1] / 300] * 2)
    plain = make_record(tmp_path, size_wh)
    regions = tuple(
        replace(region, box_xyxy=tuple((np.array(region.box_xyxy) * scale).tolist()))
        for region in plain.regions
    )
    record = replace(plain, regions=regions)
    row = build_row(HintedRecord(record, None, 0), PROCESSOR, "absolute", ALWAYS, seed=0)
    shown_wh = shown_size(PROCESSOR, size_wh)
    response = parse_inspection(text_of(row), shown_size_wh=shown_wh, original_size_wh=size_wh)
    assert (response.status, response.label, response.problem) == ("ok", "anomalous", "")
    step = np.array([size_wh[axis] / shown_wh[axis] for axis in (0, 1)] * 2)
    for region, truth in zip(response.regions, reversed(regions), strict=True):
        assert region.defect_type == truth.defect_type
        assert (np.abs(np.array(region.box_xyxy) - np.array(truth.box_xyxy)) <= step + 1e-6).all()


def test_a_row_holds_its_pictures_in_the_order_of_its_prompt(tmp_path: Path) -> None:
    hint = tmp_path / "hint.npz"
    save_anomaly(hint, Anomaly(np.eye(30, 40, dtype=np.float32), 0.9))
    record = make_record(tmp_path)
    row = build_row(HintedRecord(record, hint, 1), PROCESSOR, "absolute", ALWAYS, seed=0)
    assert [picture.size for picture in row["images"]] == [(400, 300)] * 3
    content = [part for message in row["prompt"] for part in message["content"]]
    assert sum(part["type"] == "image" for part in content) == 3
    assert "map" in text_of(row)


@pytest.mark.parametrize(
    "regions",
    [None, (), (SeenRegion((1.0, 2.5, 3.0, 4.0), 0.75, "dent"), SeenRegion((0, 0, 1, 1), 1.0))],
)
def test_what_the_detector_saw_is_read_as_it_was_written(
    tmp_path: Path, regions: tuple[SeenRegion, ...] | None
) -> None:
    seen = Anomaly(np.eye(3, 4, dtype=np.float32), 0.9, regions)
    save_anomaly(tmp_path / "seen.npz", seen)
    read = load_anomaly(tmp_path / "seen.npz")
    assert read == seen and (read.anomaly_map == seen.anomaly_map).all()


def test_a_row_without_a_hint_does_not_speak_of_a_map(tmp_path: Path) -> None:
    row = build_row(
        HintedRecord(make_record(tmp_path), None, 0), PROCESSOR, "absolute", ALWAYS, seed=0
    )
    assert "map" not in text_of(row)
    assert len(row["images"]) == 1


def test_rows_without_reasoning_begin_with_the_answer(tmp_path: Path) -> None:
    settings = replace(ALWAYS, without_reasoning=1.0)
    row = build_row(
        HintedRecord(make_record(tmp_path), None, 0), PROCESSOR, "absolute", settings, seed=0
    )
    assert text_of(row).startswith('<answer>{"verdict": "anomalous"')


def test_a_records_own_reasoning_is_used(tmp_path: Path) -> None:
    record = make_record(tmp_path, reasoning="I look closely.")
    row = build_row(HintedRecord(record, None, 0), PROCESSOR, "absolute", ALWAYS, seed=0)
    assert text_of(row).startswith("<think>I look closely.</think>")


def test_a_share_of_records_is_asked_a_question_with_one_right_answer(tmp_path: Path) -> None:
    settings = replace(ALWAYS, with_question=0.5)
    rows = ChosenRows([make_record(tmp_path)] * 40, None, settings, seed=3)
    asked = [row for row in rows if row.record.question is not None]
    assert 8 < len(asked) < 32
    assert len({row.record.question.question_type for row in asked if row.record.question}) > 3
    for row in asked:
        assert row.record.question is not None
        built = build_row(row, PROCESSOR, "absolute", settings, seed=0)
        assert parse_choice(text_of(built)).choice == row.record.question.answer
        assert row.record.question.text in str(built["prompt"])


def test_only_so_many_boxes_are_taught(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    many = replace(record, regions=record.regions * 6)
    row = build_row(HintedRecord(many, None, 0), PROCESSOR, "absolute", ALWAYS, seed=0)
    assert text_of(row).count("bbox_2d") == ALWAYS.max_boxes


@pytest.mark.parametrize(
    ("hinted", "named"),
    [
        ((), [("scratch", (2, 1, 23, 31)), ("crack", (113, 84, 223, 168))]),
        (((112, 80, 220, 160),), [("crack", (112, 80, 220, 160))]),
        (((190, 80, 220, 160),), [("crack", (113, 84, 223, 168))]),
        (((50, 0, 60, 9),), [("scratch", (2, 1, 23, 31)), ("crack", (113, 84, 223, 168))]),
    ],
    ids=["no region", "copied", "too far off to copy", "elsewhere"],
)
def test_what_the_hint_shows_is_named_with_its_box_where_that_fits(
    tmp_path: Path, hinted: tuple[Box, ...], named: list[tuple[str, Box]]
) -> None:
    hint = Hint(90, tuple(HintRegion(box, 80, "centre") for box in hinted))
    regions = make_record(tmp_path).regions
    shown = Shown(Prompt("1", "", ()), (), hint, (400, 300), (224, 168))
    placed = place_regions(regions, shown, "absolute", 0.5)
    assert [(region.defect_type, box) for region, box in placed] == named


def test_settings_decide_what_rows_show(tmp_path: Path) -> None:
    records = [make_record(tmp_path)] * 40
    shown = ChosenRows(records, tmp_path, ALWAYS, seed=0)
    assert all(row.hint_path and row.num_references == 1 for row in shown)
    bare = ChosenRows(records, tmp_path, RowSettings(1.0, 0.0), seed=0)
    assert not any(row.hint_path or row.num_references for row in bare)
    assert not any(row.hint_path for row in ChosenRows(records, None, ALWAYS, seed=0))
    mixed = ChosenRows(records, tmp_path, RowSettings(0.5, 0.5), seed=0)
    assert 0 < sum(row.hint_path is not None for row in mixed) < 40
    assert shown[3].hint_path == tmp_path / "000003.npz"


def test_each_variant_of_a_record_is_drawn_anew_and_keeps_its_hint(tmp_path: Path) -> None:
    records = [make_record(tmp_path)] * 8
    settings = RowSettings(0.0, 0.5, with_question=0.5)
    once = ChosenRows(records, tmp_path, settings, seed=0)
    rows = ChosenRows(records, tmp_path, settings, seed=0, variants=3)
    assert rows[:8] == list(once) and len(rows) == 24
    assert rows[8:16] != once and rows[8:16] != rows[16:]
    assert [row.hint_path for row in rows[8:16]] == [row.hint_path for row in once]


class _Counting:
    """A detector that counts its pictures and remembers how many references each had."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly:
        self.seen.append(len(references))
        return Anomaly(np.full((4, 4), 0.5, np.float32), 0.5)


def test_hints_are_written_once_and_kept(tmp_path: Path) -> None:
    detector = _Counting()
    opened = (detector, [make_record(tmp_path)] * 3, tmp_path)
    task = ([0, 1, 2], [0, 1])
    paths = dataset._write_product_hints(opened, task)
    assert paths == [tmp_path / f"00000{number}.npz" for number in range(3)]
    assert len(detector.seen) == 3 and len(set(detector.seen)) == 1
    kept = load_anomaly(paths[0])
    assert kept.score == 0.5 and kept.anomaly_map.shape == (4, 4)
    with pytest.raises(InputError, match=r"missing\.npz cannot be read"):
        load_anomaly(tmp_path / "missing.npz")
    paths[1].unlink()
    assert dataset._write_product_hints(opened, task) == paths
    assert len(detector.seen) == 4, "only the missing one is drawn again"
    assert not list(tmp_path.glob("*.tmp"))


def make_masked(folder: Path, **fields: object) -> HintedRecord:
    mask = np.zeros((112, 112), np.uint8)
    mask[28:56, 56:84] = 255
    mask[84, 0] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    region = Region((56.0, 28.0, 84.0, 56.0), "crack", "clear crack")
    record = replace(
        make_record(folder, (112, 112)), mask_path=folder / "mask.png", regions=(region,)
    )
    return HintedRecord(replace(record, **fields), None, 0)  # type: ignore[arg-type]


def test_patches_know_the_defect_that_they_lie_on(tmp_path: Path) -> None:
    from anomalyr1.data.defects import DEFECT_KINDS
    from anomalyr1.training.see import build_targets

    kinds, boxes = build_targets(make_masked(tmp_path), (112, 112), (112, 112), 28)
    grid = kinds.reshape(4, 4)
    assert grid[1, 2] == 1 + DEFECT_KINDS.index("crack")
    assert grid[3, 0] == -1, "barely touched"
    assert (grid == 0).sum() == 14
    np.testing.assert_allclose(boxes.reshape(4, 4, 4)[1, 2], [0.5, 0.25, 0.75, 0.5])


@pytest.mark.parametrize("regions", [(), (Region((56.0, 28.0, 84.0, 56.0), "rust"),)])
def test_a_defect_of_an_unknown_kind_is_left_out_of_the_loss(
    tmp_path: Path, regions: tuple[Region, ...]
) -> None:
    from anomalyr1.training.see import build_targets

    kinds, _ = build_targets(make_masked(tmp_path, regions=regions), (112, 112), (112, 112), 28)
    assert kinds.reshape(4, 4)[1, 2] == -1


def test_too_few_records_for_a_batch_are_refused_instead_of_waited_for(tmp_path: Path) -> None:
    from anomalyr1.training.see import train_vision

    steps = train_vision(None, None, [make_masked(tmp_path)], seed=0, num_steps=1, batch_size=2)
    with pytest.raises(InputError, match=r"1 records do not fill a batch of 2"):
        next(steps)


def test_the_prompt_of_a_row_is_the_prompt_of_inspection(tmp_path: Path) -> None:
    from anomalyr1.prompts import build_inspection_prompt

    record = make_record(tmp_path)
    row = build_row(HintedRecord(record, None, 1), PROCESSOR, "absolute", ALWAYS, seed=0)
    assert row["prompt"] == to_chat(build_inspection_prompt(record, num_references=1, hint=None))
