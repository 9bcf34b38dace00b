"""The map's regions are seen, moved and named; whatever a network says, a box stays a box."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import make_picture, make_record
from PIL import Image

from anomalyr1.checkpoint import find_hint_folder
from anomalyr1.data.records import load_records, write_records
from anomalyr1.data.synthesis import Synthesis, synthesize
from anomalyr1.detectors.patch_memory import PatchMemoryDetector, open_session
from anomalyr1.detectors.regions import (
    KINDS,
    MOST_PROPOSED,
    VIEW_SIDE,
    describe_region,
    judge_regions,
    place_box,
    propose_regions,
    read_regions,
    share_box,
    view_region,
)
from anomalyr1.geometry import box_iou
from anomalyr1.hints import MOST_REGIONS, bound_region
from anomalyr1.images import load_image
from anomalyr1.types import Box, InputError, Record, Region, SeenRegion

torch = pytest.importorskip("torch")

from anomalyr1.training import regions  # noqa: E402
from anomalyr1.training.recipe import DataSettings, Recipe, RegionSettings  # noqa: E402
from anomalyr1.training.regions import (  # noqa: E402
    NO_KIND,
    Lesson,
    export_regions,
    find_lessons,
    paired_iou,
    train_regions,
)

GRID = (32, 48)
DISTANCES = np.random.default_rng(1).normal(size=(7, *GRID)).astype(np.float32)


def make_features(rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    return tuple(
        rng.normal(size=(3, GRID[0] // step, GRID[1] // step)).astype(np.float32)
        for step in (1, 2, 4)
    )


FEATURES = make_features(np.random.default_rng(0))


def make_map(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    levels = np.zeros(GRID, np.float32)
    for left, top, right, bottom in boxes:
        levels[top:bottom, left:right] = 0.9
    return levels


def see(levels: np.ndarray) -> list[Any]:
    logits = 8.0 * levels - 4.0
    found = propose_regions(levels)
    return [view_region(FEATURES, DISTANCES, logits, region) for region in found]


@pytest.mark.parametrize("box", [(5, 5, 7, 6), (0, 0, 48, 32), (40, 30, 48, 32)])
def test_a_region_of_any_shape_is_seen_and_described(box: tuple[int, int, int, int]) -> None:
    (view,) = see(make_map(box))
    assert view.maps.shape == (1 + 7, VIEW_SIDE, VIEW_SIDE)
    assert view.maps.dtype == view.described.dtype == view.own.dtype == np.float32
    assert view.described.shape == (2 * 9 + 7 + 7,)
    assert np.isfinite(view.maps).all() and np.isfinite(view.described).all()
    assert place_box(view.own, view.frame, GRID) == pytest.approx(box)


def test_a_view_shows_the_region_in_its_middle_and_what_is_around_it() -> None:
    (view,) = see(make_map((16, 8, 32, 16)))
    assert view.frame == (8, 4, 40, 20)
    seen = view.maps[0] > 0
    expected = np.zeros((VIEW_SIDE, VIEW_SIDE), bool)
    expected[4:12, 4:12] = True
    assert (seen == expected).all()
    # The view's cell (8, 8) is two cells of the map wide and one high, its middle at (25, 12.5).
    assert view.maps[1:, 8, 8] == pytest.approx(DISTANCES[:, 12, 24:26].mean(axis=1), abs=2e-2)


def test_beyond_the_edge_a_view_goes_on_as_it_is_there() -> None:
    (view,) = see(make_map((0, 0, 4, 4)))
    assert view.frame == (-2, -2, 6, 6)
    assert (view.maps[0, :4, :4] == view.maps[0, 4, 4]).all()


def test_the_description_holds_what_lies_under_the_region_and_how_it_differs() -> None:
    (region,) = propose_regions(make_map((8, 8, 16, 16)))
    described = describe_region(FEATURES, DISTANCES, region)
    inside = FEATURES[0][:, 8:16, 8:16].mean(axis=(1, 2))
    assert described[:3] == pytest.approx(inside, abs=1e-5)
    assert described[3:6] == pytest.approx(inside - FEATURES[0].mean(axis=(1, 2)), abs=1e-5)
    coarse = FEATURES[2][:, 2:4, 2:4].mean(axis=(1, 2))
    assert described[12:15] == pytest.approx(coarse, abs=1e-5)


def test_lengths_are_told_from_blobs() -> None:
    (line,) = see(make_map((4, 10, 40, 12)))
    (blob,) = see(make_map((4, 10, 12, 18)))
    assert line.described[-3] > blob.described[-3] + 1


@pytest.mark.parametrize(
    ("shares", "box"),
    [
        ((0.25, 0.25, 0.75, 0.75), (4, 4, 12, 12)),
        ((-9.0, 0.25, 9.0, 0.75), (0, 4, 16, 12)),
        ((0.5, 0.5, 0.5, 0.5), (7.5, 7.5, 8.5, 8.5)),
        ((0.9, 0.25, 0.1, 0.75), (7.5, 4, 8.5, 12)),
        ((1.0, 1.0, 1.0, 1.0), (15, 15, 16, 16)),
        ((np.nan, 0.25, np.inf, 0.75), (8, 4, 16, 12)),
    ],
)
def test_a_box_stays_within_what_was_seen_and_has_an_area(
    shares: tuple[float, ...], box: Box
) -> None:
    placed = place_box(np.array(shares, np.float32), (0.0, 0.0, 16.0, 16.0), GRID)
    assert placed == pytest.approx(box)


def test_a_box_stays_within_the_map() -> None:
    shares = np.array([0.0, 0.0, 1.0, 1.0], np.float32)
    assert place_box(shares, (-4.0, 20.0, 60.0, 40.0), GRID) == (0, 20, 48, 32)


def make_lesson(box: tuple[int, int, int, int], true: Box, name: str) -> Lesson:
    (lesson,) = find_lessons(see(make_map(box)), [Region(true, name)], (1.0, 1.0))
    return lesson


def test_what_was_learned_is_exported_and_moves_and_names_regions(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="exporting needs the extra 'train'")
    lessons = []
    for place in range(0, 16, 2):
        # A length reaches half of its length farther than it is seen, a blob is as it is seen.
        line = (4, 4 + place, 20, 7 + place)
        lessons.append(make_lesson(line, (4.0, 4.0 + place, 28.0, 7.0 + place), "scratch"))
        blob = (20 + place, 8, 30 + place, 18)
        lessons.append(make_lesson(blob, tuple(map(float, blob)), "stain"))
    *_, (_step, _loss, net) = train_regions(lessons, seed=0, num_steps=300, batch_size=16)
    export_regions(net, tmp_path / "regions.onnx")
    session = open_session(tmp_path / "regions.onnx", 1)
    levels = make_map((6, 3, 22, 6), (24, 16, 34, 26))
    found = propose_regions(levels)
    seen = read_regions(session, FEATURES, DISTANCES, 8.0 * levels - 4.0, found)
    told = {region.kind: region.box_xyxy for region in seen}
    assert set(told) == {"scratch", "stain"}
    assert min(region.truth for region in seen) > 0.5
    assert box_iou(told["stain"], (24.0, 16.0, 34.0, 26.0)) > 0.8
    assert read_regions(session, FEATURES, DISTANCES, 8.0 * levels - 4.0, []) == ()


def seen_at(left: float, peak: float, truth: float, side: float = 2.0) -> SeenRegion:
    return SeenRegion((left, 1.0, left + side, 1.0 + side), peak, "dent", truth)


def test_map_and_network_count_alike() -> None:
    likely, even, unlikely = seen_at(0, 0.9, 0.2), seen_at(4, 0.8, 0.2), seen_at(8, 0.7, 0.2)
    faint, fainter = seen_at(12, 0.4, 0.7), seen_at(16, 0.3, 0.5)
    assert judge_regions((unlikely, faint, likely, fainter, even)) == (likely, even, faint)


def test_of_regions_that_reach_the_line_one_is_always_believed() -> None:
    unlikely, other = seen_at(0, 0.7, 0.2), seen_at(4, 0.6, 0.0)
    assert judge_regions((other, unlikely)) == (unlikely,)
    assert judge_regions((seen_at(0, 0.4, 0.2),)) == ()
    assert judge_regions(()) == ()


def test_of_one_defects_regions_the_best_is_believed() -> None:
    whole, half, beside = seen_at(0, 0.9, 0.6, 4), seen_at(0.5, 0.95, 0.5), seen_at(3, 0.7, 0.5)
    assert judge_regions((half, whole, beside)) == (whole,)
    assert judge_regions((half, seen_at(2.0, 0.9, 0.6))) == (half, seen_at(2.0, 0.9, 0.6))


def test_no_more_regions_are_believed_than_a_prompt_lists() -> None:
    many = tuple(seen_at(3 * place, 0.9, 0.9 - place / 100) for place in range(20))
    assert judge_regions(many) == many[:MOST_REGIONS]


def test_what_runs_together_at_a_low_level_is_proposed_whole_and_in_parts() -> None:
    levels = make_map((8, 8, 12, 12), (20, 8, 24, 12))
    levels[9:11, 12:20] = 0.4
    proposed = {bound_region(region) for region in propose_regions(levels)}
    assert proposed == {(8, 8, 24, 12), (8, 8, 12, 12), (20, 8, 24, 12)}


def test_faint_parts_are_proposed_and_fainter_ones_and_single_cells_are_not() -> None:
    levels = make_map((40, 30, 41, 31))
    levels[2:6, 2:6], levels[12:16, 2:6] = 0.31, 0.29
    (faint,) = propose_regions(levels)
    assert bound_region(faint) == (2, 2, 6, 6)
    assert faint.peak == pytest.approx(0.31)


def test_of_nearly_equal_boxes_one_is_proposed_and_of_many_the_highest() -> None:
    levels = make_map((8, 8, 20, 20))
    levels[8:20, 20] = 0.4
    assert len(propose_regions(levels)) == 1
    many = np.zeros((200, 200), np.float32)
    for row in range(12):
        for column in range(12):
            many[row * 16 : row * 16 + 4, column * 16 : column * 16 + 4] = 0.4 + row / 100
    proposed = propose_regions(many)
    assert len(proposed) == MOST_PROPOSED
    assert min(region.peak for region in proposed) == pytest.approx(0.44)


def test_training_repeats_for_a_seed_and_moves_every_parameter() -> None:
    lessons = [
        make_lesson((4, 4, 12, 12), (5.0, 4.0, 12.0, 12.0), "dent"),
        make_lesson((20, 4, 32, 12), (20.0, 4.0, 30.0, 12.0), "rust"),
        make_lesson((20, 4, 32, 12), (40.0, 14.0, 42.0, 22.0), "dent"),
    ]
    assert [lesson.kind for lesson in lessons] == [KINDS.index("dent"), NO_KIND, NO_KIND]

    def train(seed: int, num_steps: int) -> dict[str, Any]:
        *_, (_step, loss, net) = train_regions(lessons, seed=seed, num_steps=num_steps)
        assert np.isfinite(loss)
        return {name: value.clone() for name, value in net.named_parameters()}

    once, again, longer = train(0, 1), train(0, 1), train(0, 3)
    assert all(torch.equal(value, again[name]) for name, value in once.items())
    assert not [name for name, value in once.items() if torch.equal(value, longer[name])]


def test_a_region_is_taught_the_defect_that_it_meets_best() -> None:
    regions = [
        Region((0.0, 0.0, 20.0, 20.0), "scratch"),
        Region((20.0, 0.0, 60.0, 20.0), "dent"),
        Region((80.0, 50.0, 96.0, 64.0), "rust"),
    ]
    views = see(make_map((9, 1, 28, 9), (40, 26, 46, 31), (2, 24, 8, 30)))
    lessons = find_lessons(views, regions, (0.5, 0.5))
    told = [(lesson.is_true, lesson.kind) for lesson in lessons]
    assert told == [(True, KINDS.index("dent")), (False, NO_KIND), (True, NO_KIND)]
    dent = lessons[0]
    assert dent.view.maps.dtype == np.float16
    assert dent.box == pytest.approx(share_box((10.0, 0.0, 30.0, 10.0), dent.view.frame))


def test_overlap_of_pairs_is_that_of_boxes() -> None:
    boxes = [(0.0, 0.0, 4.0, 4.0), (0.0, 0.0, 4.0, 4.0), (3.0, 3.0, 1.0, 1.0)]
    others = [(2.0, 0.0, 6.0, 4.0), (5.0, 5.0, 6.0, 6.0), (0.0, 0.0, 4.0, 4.0)]
    said = paired_iou(torch.tensor(boxes), torch.tensor(others)).tolist()
    assert said[:2] == pytest.approx(list(map(box_iou, boxes[:2], others[:2])))
    assert said[2] == 0.0


def test_products_are_looked_at_one_by_one_without_all_records_being_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = [tmp_path / f"product{number // 4}" / f"{number}.png" for number in range(12)]
    paths = [make_picture(path, (20 + number, 20)) for number, path in enumerate(places)]
    before = sum(type(one) is Record for one in gc.get_objects())
    write_records(tmp_path / "train.jsonl", map(make_record, paths))
    seen: list[tuple[int, int]] = []
    held: list[int] = []

    class Watching:
        def view(
            self, picture: Image.Image, references: object
        ) -> tuple[tuple[int, int], list[Any]]:
            seen.append(picture.size)
            held.append(sum(type(one) is Record for one in gc.get_objects()) - before)
            return (1, 1), []

    def map_here(look: Any, tasks: list[Any], load: Any, **settings: object) -> Iterator[Any]:
        opened = load()
        return (look(opened, task) for task in tasks)

    monkeypatch.setattr(PatchMemoryDetector, "load", lambda *folder, **options: Watching())
    monkeypatch.setattr(regions, "map_tasks", map_here)
    records = load_records(tmp_path / "train.jsonl")
    viewed = list(regions.view_products(records, tmp_path, seed=0, num_workers=1))
    assert viewed == [[], [], []]
    assert seen == [(20 + number, 20) for number in range(12)]
    assert max(held) <= 2


def test_the_stage_keeps_the_detector_and_what_an_earlier_run_finished(tmp_path: Path) -> None:
    from tiny_training import run

    plan = Synthesis(tmp_path / "data", 2, 1, 3, 224, seed=4, categories=("washer",))
    records = [record for product in synthesize(plan) for record in product]
    write_records(tmp_path / "train.jsonl", records)
    recipe = Recipe(
        "regions",
        "",
        data=DataSettings((str(tmp_path / "train.jsonl"),)),
        regions=RegionSettings(num_steps=50, batch_size=4),
    )
    run(recipe, tmp_path / "run")
    made, own = tmp_path / "run" / "hint", find_hint_folder("nano")
    assert {path.name for path in own.iterdir()} <= {path.name for path in made.iterdir()}
    assert (made / "head.onnx").read_bytes() == (own / "head.onnx").read_bytes()
    trained = (made / "regions.onnx").read_bytes()
    assert trained != (own / "regions.onnx").read_bytes()
    (logged,) = map(json.loads, (made / "region_losses.jsonl").read_text().splitlines())
    assert logged["step"] == 50 and logged["loss"] > 0
    defective = next(record for record in records if record.label == "anomalous")
    seen = PatchMemoryDetector.load(made).detect(load_image(defective.image_path), ())
    assert seen.regions is not None
    run(recipe, tmp_path / "run", resume=True)
    assert (made / "regions.onnx").read_bytes() == trained


def test_pictures_without_regions_teach_nothing(tmp_path: Path) -> None:
    from tiny_training import run

    path = tmp_path / "even.png"
    Image.new("RGB", (112, 112), (90, 90, 90)).save(path)
    write_records(tmp_path / "train.jsonl", [Record("even", path, label="normal")])
    recipe = Recipe(
        "regions",
        "",
        data=DataSettings((str(tmp_path / "train.jsonl"),)),
        regions=RegionSettings(),
    )
    with pytest.raises(InputError, match="nothing to learn"):
        run(recipe, tmp_path / "run")
