"""Masks against drawn defects whose true shape is known."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.masks import (
    AutoMasker,
    GrabCutMasker,
    MapMasker,
    Masker,
    NoMasker,
    Sam2Masker,
    build_masker,
)
from anomalyr1.types import Box, InputError

Mask = NDArray[np.bool_]


def make_disc(size: int = 512, centre: tuple[int, int] = (300, 200), radius: int = 40) -> Mask:
    rows, columns = np.mgrid[:size, :size]
    return (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 <= radius**2


def make_line(size: int = 512) -> Mask:
    canvas = np.zeros((size, size), np.uint8)
    cv2.line(canvas, (150, 180), (280, 250), 1, 7)
    return canvas > 0


def make_picture(shape: Mask, contrast: float = -60.0) -> Image.Image:
    rng = np.random.default_rng(7)
    texture = cv2.GaussianBlur(rng.normal(0, 1, shape.shape).astype(np.float32), (0, 0), 2.0)
    grey = 140 + 10 * texture / texture.std() + contrast * shape
    return Image.fromarray(np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))


def make_map(shape: Mask, stride: int) -> NDArray[np.float32]:
    size_wh = (shape.shape[1] // stride, shape.shape[0] // stride)
    coarse = cv2.resize(shape.astype(np.float32), size_wh, interpolation=cv2.INTER_AREA)
    if stride > 1:
        coarse = cv2.GaussianBlur(coarse, (0, 0), 1.0)
    noise = np.random.default_rng(3).normal(0, 0.03, coarse.shape)
    return (0.2 + 0.6 * coarse + noise).clip(0, 1).astype(np.float32)


def box_of(shape: Mask) -> Box:
    rows, columns = np.where(shape)
    corners = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    return tuple(float(corner) for corner in corners)  # type: ignore[return-value]


def iou(one: Mask, other: Mask) -> float:
    return float((one & other).sum() / (one | other).sum())


@pytest.mark.parametrize(
    ("shape", "stride", "least"),
    [
        (make_disc(), 1, 0.95),
        (make_line(), 1, 0.9),
        (make_disc(), 8, 0.8),
        (make_disc(radius=12), 8, 0.6),
        (make_disc(radius=5), 8, 0.6),  # under two map cells: cut by colour
        (make_line(), 4, 0.5),
        (make_disc(), 16, 0.7),
    ],
)
def test_a_map_gives_the_shape_of_a_drawn_defect(shape: Mask, stride: int, least: float) -> None:
    mask = MapMasker().masks(make_picture(shape), [box_of(shape)], make_map(shape, stride))[0]
    assert mask.dtype == np.bool_ and mask.shape == shape.shape
    assert iou(mask, shape) >= least


def test_a_map_the_detector_calls_normal_still_gives_the_shape() -> None:
    shape = make_disc()
    quiet = make_map(shape, 8) * 0.4
    mask = MapMasker().masks(make_picture(shape), [box_of(shape)], quiet)[0]
    assert iou(mask, shape) >= 0.8


@pytest.mark.parametrize(("shape", "least"), [(make_disc(), 0.9), (make_line(), 0.6)])
def test_grabcut_gives_the_shape_of_a_distinct_defect(shape: Mask, least: float) -> None:
    assert iou(GrabCutMasker().masks(make_picture(shape), [box_of(shape)])[0], shape) >= least


@pytest.mark.parametrize("masker", [MapMasker(), GrabCutMasker()])
def test_a_large_picture_is_masked_at_its_own_size(masker: Masker) -> None:
    shape = make_disc(size=1500, centre=(750, 600), radius=520)
    mask = masker.masks(make_picture(shape), [box_of(shape)], make_map(shape, 32))[0]
    assert mask.shape == shape.shape
    assert iou(mask, shape) >= 0.9


@pytest.mark.parametrize("masker", [MapMasker(), GrabCutMasker()])
@pytest.mark.parametrize(
    "box",
    [
        (10.0, 10.0, 60.0, 50.0),
        (10.2, 10.2, 10.4, 10.4),
        (5.0, 5.0, 7.0, 90.0),
        (0.0, 0.0, 128.0, 96.0),
        (-20.0, -20.0, 400.0, 300.0),
        (127.5, 95.5, 140.0, 140.0),
        (0.0, 40.0, 128.0, 45.5),
    ],
)
@pytest.mark.parametrize("content", ["flat", "noise"])
def test_a_mask_is_never_empty_and_stays_in_the_grown_box(
    masker: Masker, box: Box, content: str
) -> None:
    rng = np.random.default_rng(0)
    colours = np.full((96, 128, 3), 90, np.uint8)
    levels = np.full((12, 16), 0.3, np.float32)
    if content == "noise":
        colours = rng.integers(0, 256, colours.shape, dtype=np.uint8)
        levels = rng.random(levels.shape, dtype=np.float32)
    mask = masker.masks(Image.fromarray(colours), [box], levels)[0]
    assert mask.shape == (96, 128)
    rows, columns = np.where(mask)
    margin_x, margin_y = 0.1 * (box[2] - box[0]) + 1, 0.1 * (box[3] - box[1]) + 1
    assert columns.min() >= box[0] - margin_x and columns.max() < box[2] + margin_x
    assert rows.min() >= box[1] - margin_y and rows.max() < box[3] + margin_y


def test_a_box_on_a_featureless_picture_becomes_its_ellipse() -> None:
    picture = Image.new("RGB", (128, 96), (90, 90, 90))
    mask = GrabCutMasker().masks(picture, [(20.0, 20.0, 60.0, 50.0)])[0]
    assert mask.sum() == pytest.approx(np.pi / 4 * 40 * 30, rel=0.03)


def test_a_tiny_box_is_masked_whole() -> None:
    mask = GrabCutMasker().masks(make_picture(make_disc()), [(30.0, 40.0, 33.0, 60.0)])[0]
    assert mask.sum() == 3 * 20 and mask[40:60, 30:33].all()


def test_a_box_outside_the_picture_gives_an_empty_mask() -> None:
    picture = make_picture(make_disc())
    for masker in (GrabCutMasker(), MapMasker()):
        mask = masker.masks(picture, [(600.0, 10.0, 700.0, 50.0)], make_map(make_disc(), 8))[0]
        assert mask.shape == (512, 512) and not mask.any()


@pytest.mark.parametrize("box", [(50.0, 10.0, 20.0, 40.0), (0.0, 0.0, float("nan"), 9.0)])
@pytest.mark.parametrize("masker", [MapMasker(), GrabCutMasker()])
def test_an_unusable_box_is_named(masker: Masker, box: Box) -> None:
    with pytest.raises(InputError, match="box"):
        masker.masks(make_picture(make_disc()), [box], make_map(make_disc(), 8))


@pytest.mark.parametrize(
    "levels",
    [None, np.zeros((4, 4, 3), np.float32), np.full((4, 4), np.nan, np.float32)],
)
def test_an_unusable_map_is_refused(levels: NDArray[np.float32] | None) -> None:
    with pytest.raises(InputError, match="map"):
        MapMasker().masks(make_picture(make_disc()), [(1.0, 1.0, 90.0, 90.0)], levels)


def test_the_same_input_gives_the_same_mask() -> None:
    shape = make_line()
    picture, box, levels = make_picture(shape), box_of(shape), make_map(shape, 8)
    for masker in (GrabCutMasker(), MapMasker()):
        first, again = (masker.masks(picture, [box], levels)[0] for _ in range(2))
        assert (first == again).all()


def test_auto_uses_the_map_when_there_is_one() -> None:
    shape = make_disc()
    picture, boxes, levels = make_picture(shape), [box_of(shape)], make_map(shape, 8)
    auto = build_masker("auto")
    assert isinstance(auto, AutoMasker)
    with_map, by_map = auto.masks(picture, boxes, levels), MapMasker().masks(picture, boxes, levels)
    without, by_cut = auto.masks(picture, boxes, None), GrabCutMasker().masks(picture, boxes)
    assert (with_map[0] == by_map[0]).all() and (without[0] == by_cut[0]).all()


def test_maskers_are_built_by_name() -> None:
    assert isinstance(build_masker("map"), MapMasker)
    assert isinstance(build_masker("grabcut"), GrabCutMasker)
    assert isinstance(build_masker("none"), NoMasker)
    assert build_masker("none").masks(make_picture(make_disc()), [(0, 0, 9, 9)], None) == []
    with pytest.raises(InputError, match="choose one of auto"):
        build_masker("watershed")
    with pytest.raises(InputError, match="sam2_model"):
        build_masker("sam2")


@pytest.mark.parametrize("masker", [MapMasker(), GrabCutMasker()])
def test_a_box_takes_no_long_time(masker: Masker) -> None:
    shape = make_disc(radius=120)
    picture, box, levels = make_picture(shape), box_of(shape), make_map(shape, 8)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        masker.masks(picture, [box], levels)
        seconds.append(time.perf_counter() - start)
    # Measured well under 60 ms; the bound leaves room for a busy machine.
    assert min(seconds) < 0.3


def test_importing_the_maskers_loads_no_torch() -> None:
    script = "import sys, anomalyr1.masks; print({'torch', 'transformers'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def make_tiny_sam2(folder: Path) -> str:
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        image_size=[64, 64],
        window_positional_embedding_background_size=[2, 2],
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 1, 2, 2],
        window_size_per_stage=[8, 4, 4, 2],
        global_attention_blocks=[3],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=backbone,
        backbone_channel_list=[64, 32, 16, 8],
        backbone_feature_sizes=[[16, 16], [8, 8], [4, 4]],
        fpn_hidden_size=32,
    )
    prompt = transformers.Sam2PromptEncoderConfig(hidden_size=32, image_size=64, patch_size=16)
    decoder = transformers.Sam2MaskDecoderConfig(
        hidden_size=32, mlp_dim=32, num_attention_heads=2, iou_head_hidden_dim=16
    )
    config = transformers.Sam2Config(
        vision_config=vision.to_dict(),
        prompt_encoder_config=prompt.to_dict(),
        mask_decoder_config=decoder.to_dict(),
    )
    torch.manual_seed(0)
    transformers.Sam2Model(config).save_pretrained(folder)
    return str(folder)


def test_sam2_is_loaded_from_a_folder_and_masks_every_box(tmp_path: Path) -> None:
    masker = build_masker("auto", sam2_model=make_tiny_sam2(tmp_path))
    assert isinstance(masker, Sam2Masker)
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), np.uint8))
    many = [(float(left), 5.0, left + 20.0, 40.0) for left in range(18)]
    masks = masker.masks(picture, [*many, (200.0, 5.0, 300.0, 9.0)], None)
    assert len(masks) == 19 and all(mask.shape == (60, 90) for mask in masks)
    assert all(mask.any() for mask in masks[:18]) and not masks[18].any()
    assert not masks[0][:, 22:].any()
    alone = masker.masks(picture, [many[17]], None)[0]
    assert (alone != masks[17]).mean() < 0.01
    assert masker.masks(picture, [], None) == []


def test_what_is_no_whole_sam2_is_refused(tmp_path: Path) -> None:
    folder = make_tiny_sam2(tmp_path)
    with pytest.raises(InputError, match="cannot load"):
        Sam2Masker.load(str(tmp_path / "nothing"))
    from safetensors.numpy import load_file, save_file

    weights = load_file(tmp_path / "model.safetensors")
    weights.pop(next(name for name in weights if name.startswith("mask_decoder")))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="lacks 1 weights"):
        Sam2Masker.load(folder)
