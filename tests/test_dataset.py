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

from anomalyr1.parsing import parse_inspection
from anomalyr1.prompts import to_chat
from anomalyr1.training import dataset
from anomalyr1.training.dataset import (
    HintedRecord,
    RowSettings,
    build_row,
    choose_rows,
    order_regions,
    round_outward,
    shown_size,
)
from anomalyr1.types import Anomaly, InputError, Record, Region

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
def test_a_target_answer_reads_back_to_within_a_grid_step(
    tmp_path: Path, size_wh: tuple[int, int]
) -> None:
    scale = np.array([size_wh[0] / 400, size_wh[1] / 300] * 2)
    plain = make_record(tmp_path, size_wh)
    regions = tuple(
        replace(region, box_xyxy=tuple((np.array(region.box_xyxy) * scale).tolist()))
        for region in plain.regions
    )
    record = replace(plain, regions=regions)
    row = build_row(HintedRecord(record, None, 0), PROCESSOR, ALWAYS, seed=0)
    shown_wh = shown_size(PROCESSOR, size_wh)
    response = parse_inspection(text_of(row), shown_size_wh=shown_wh, original_size_wh=size_wh)
    assert (response.status, response.label, response.problem) == ("ok", "anomalous", "")
    step = np.array([(ALWAYS.box_grid + 1) * size_wh[axis] / shown_wh[axis] for axis in (0, 1)] * 2)
    for region, truth in zip(response.regions, order_regions(regions), strict=True):
        assert region.defect_type == truth.defect_type
        assert (np.abs(np.array(region.box_xyxy) - np.array(truth.box_xyxy)) <= step + 1e-6).all()


def test_a_row_holds_its_pictures_in_the_order_of_its_prompt(tmp_path: Path) -> None:
    hint = make_picture(tmp_path / "hint.png", (40, 30), 10)
    record = make_record(tmp_path)
    row = build_row(HintedRecord(record, hint, 1), PROCESSOR, ALWAYS, seed=0)
    assert [picture.size for picture in row["images"]] == [(400, 300), (400, 300), (40, 30)]
    content = [part for message in row["prompt"] for part in message["content"]]
    assert sum(part["type"] == "image" for part in content) == 3
    assert "map" in text_of(row)


def test_a_row_without_a_hint_does_not_speak_of_a_map(tmp_path: Path) -> None:
    row = build_row(HintedRecord(make_record(tmp_path), None, 0), PROCESSOR, ALWAYS, seed=0)
    assert "map" not in text_of(row)
    assert len(row["images"]) == 1


def test_rows_without_reasoning_begin_with_the_answer(tmp_path: Path) -> None:
    settings = replace(ALWAYS, without_reasoning=1.0)
    row = build_row(HintedRecord(make_record(tmp_path), None, 0), PROCESSOR, settings, seed=0)
    assert text_of(row).startswith('<answer>{"verdict": "anomalous"')


def test_a_records_own_reasoning_is_used(tmp_path: Path) -> None:
    record = make_record(tmp_path, reasoning="I look closely.")
    row = build_row(HintedRecord(record, None, 0), PROCESSOR, ALWAYS, seed=0)
    assert text_of(row).startswith("<think>I look closely.</think>")


def test_only_so_many_boxes_are_taught(tmp_path: Path) -> None:
    record = make_record(tmp_path)
    many = replace(record, regions=record.regions * 6)
    row = build_row(HintedRecord(many, None, 0), PROCESSOR, ALWAYS, seed=0)
    assert text_of(row).count("bbox_2d") == ALWAYS.max_boxes


@pytest.mark.parametrize(
    ("box", "rounded"),
    [
        ((5, 6, 9, 10), (4, 4, 12, 12)),
        ((4, 8, 8, 12), (4, 8, 8, 12)),
        ((0, 0, 1, 1), (0, 0, 4, 4)),
        ((97, 45, 98, 50), (96, 44, 98, 50)),
    ],
)
def test_boxes_are_rounded_outward_and_stay_in_the_picture(
    box: tuple[int, int, int, int], rounded: tuple[int, int, int, int]
) -> None:
    assert round_outward(box, (98, 50), 4) == rounded


def test_settings_decide_what_rows_show(tmp_path: Path) -> None:
    records = [make_record(tmp_path)] * 40
    shown = choose_rows(records, tmp_path, ALWAYS, seed=0)
    assert all(row.hint_path and row.num_references == 1 for row in shown)
    bare = choose_rows(records, tmp_path, RowSettings(1.0, 0.0), seed=0)
    assert not any(row.hint_path or row.num_references for row in bare)
    assert not any(row.hint_path for row in choose_rows(records, None, ALWAYS, seed=0))
    mixed = choose_rows(records, tmp_path, RowSettings(0.5, 0.5), seed=0)
    assert 0 < sum(row.hint_path is not None for row in mixed) < 40
    assert shown[3].hint_path == tmp_path / "000003.png"


class _Counting:
    """A detector that counts its pictures and remembers how many references each had."""

    def __init__(self) -> None:
        self.seen: list[int] = []

    def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly:
        self.seen.append(len(references))
        return Anomaly(np.full((4, 4), 0.5, np.float32), 0.5)


def test_hints_are_written_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = _Counting()
    monkeypatch.setattr(dataset, "_detector", detector)
    record = make_record(tmp_path)
    task = ([(record, tmp_path / f"{number}.png") for number in range(3)], [0, 1])
    paths = dataset._write_product_hints(task)
    assert [path.name for path in paths] == ["0.png", "1.png", "2.png"]
    assert len(detector.seen) == 3 and len(set(detector.seen)) == 1
    with Image.open(paths[0]) as hint:
        assert hint.size == (400, 300)
    paths[1].unlink()
    assert dataset._write_product_hints(task) == paths
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
    row = build_row(HintedRecord(record, None, 1), PROCESSOR, ALWAYS, seed=0)
    assert row["prompt"] == to_chat(
        build_inspection_prompt(record, num_references=1, with_hint=False)
    )
