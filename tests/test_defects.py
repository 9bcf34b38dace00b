"""Painted defects: the mask tells the truth, and a seed tells everything."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from anomalyr1.data.defects import DEFECT_KINDS, VISIBLE_LEVELS, Painted, paint_defect
from anomalyr1.types import InputError

Picture = tuple[NDArray[np.uint8], NDArray[np.bool_]]


def make_picture(name: str, side: int = 128) -> Picture:
    """A small normal picture and where its part is."""
    rng = np.random.default_rng(5)
    y, x = np.mgrid[:side, :side].astype(np.float32)
    part = np.ones((side, side), np.bool_)
    if name == "textured":
        weave = 120 + 30 * np.sin(x / 2) + 25 * np.sin(y / 3)
        picture = np.stack([weave, 0.8 * weave, 0.6 * weave], axis=2)
        picture += rng.normal(0, 4, picture.shape)
    elif name == "flat":
        picture = np.repeat((130 + 20 * x / side + rng.normal(0, 1, x.shape))[..., None], 3, axis=2)
    elif name == "binary":
        traces = np.full((side, side), 255, np.uint8)
        for column in range(12, side, 24):
            cv2.line(traces, (column, 0), (column + 6, side), 0, 6)
            cv2.circle(traces, (column + 3, 20 + column // 2), 9, 0, -1)
        picture = np.repeat(traces[..., None], 3, axis=2).astype(np.float32)
    else:
        part = np.hypot(x - side / 2, y - side / 2) < 0.36 * side
        picture = np.where(part[..., None], (170.0, 150.0, 90.0), (40.0, 45.0, 60.0))
        picture = cv2.GaussianBlur(picture, (0, 0), 0.8) + rng.normal(0, 2, picture.shape)
    return np.clip(picture, 0, 255).astype(np.uint8), part


PICTURES = {name: make_picture(name) for name in ("textured", "flat", "binary", "object")}


def paint(name: str, kind: str, severity: float, seed: int) -> Painted:
    image, part = PICTURES[name]
    painted = paint_defect(image, part, kind, np.random.default_rng(seed), severity)
    assert painted is not None, f"{kind} could not be painted on {name}"
    return painted


def changed_levels(name: str, painted: Painted) -> NDArray[np.int16]:
    before = PICTURES[name][0].astype(np.int16)
    return np.abs(painted.image.astype(np.int16) - before).max(axis=2)


def test_there_are_fourteen_kinds() -> None:
    assert len(DEFECT_KINDS) == 14
    assert DEFECT_KINDS[0] == "scratch"
    assert DEFECT_KINDS[-1] == "misprint"


@pytest.mark.parametrize("name", list(PICTURES))
@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_the_mask_is_where_the_picture_changed(name: str, kind: str) -> None:
    for seed, severity in ((1, 0.1), (2, 0.5), (3, 1.0)):
        painted = paint(name, kind, severity, seed)
        assert painted.image.dtype == np.uint8
        assert painted.image.shape == PICTURES[name][0].shape
        levels = changed_levels(name, painted)
        seen = levels >= VISIBLE_LEVELS
        overlap = (seen & painted.mask).sum() / (seen | painted.mask).sum()
        assert overlap > 0.6, (seed, overlap)
        assert 0.0002 <= painted.mask.mean() <= 0.35


@pytest.mark.parametrize("name", list(PICTURES))
@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_the_same_seed_paints_the_same_defect(name: str, kind: str) -> None:
    first, again, other = (paint(name, kind, 0.6, seed) for seed in (7, 7, 8))
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.mask, again.mask)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("kind", DEFECT_KINDS)
@pytest.mark.parametrize("name", ["flat", "binary"])
def test_a_monochrome_picture_stays_monochrome(name: str, kind: str) -> None:
    for seed in range(3):
        image = paint(name, kind, 0.8, seed).image
        assert (image[..., 0] == image[..., 1]).all()
        assert (image[..., 1] == image[..., 2]).all()


@pytest.mark.parametrize("name", ["textured", "flat", "object"])
@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_severity_grows_the_total_change(name: str, kind: str) -> None:
    def total(severity: float) -> float:
        painted = [paint(name, kind, severity, seed) for seed in range(8)]
        return float(np.mean([changed_levels(name, done).sum() for done in painted]))

    assert total(0.0) < total(1.0)


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_line_art_gets_no_grey_patch(kind: str) -> None:
    for seed in range(4):
        painted = paint("binary", kind, 0.7, seed)
        grey = painted.image[..., 0][painted.mask]
        assert ((grey < 60) | (grey > 195)).mean() > 0.5


@pytest.mark.parametrize("size_hw", [(64, 64), (64, 200), (300, 90)])
def test_any_size_of_picture_can_be_painted(size_hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(90, 130, (*size_hw, 3)).astype(np.uint8)
    for kind in DEFECT_KINDS:
        painted = paint_defect(image, np.ones(size_hw, np.bool_), kind, rng, 0.5)
        assert painted is not None, kind
        assert painted.mask.any()


def test_the_input_picture_is_left_alone() -> None:
    image, part = make_picture("textured")
    before = image.copy()
    for kind in DEFECT_KINDS:
        paint_defect(image, part, kind, np.random.default_rng(0), 1.0)
    assert np.array_equal(image, before)


def test_without_a_part_there_is_no_defect() -> None:
    image, part = make_picture("flat")
    nothing = np.zeros_like(part)
    assert paint_defect(image, nothing, "hole", np.random.default_rng(0), 0.5) is None


@pytest.mark.parametrize(
    ("kind", "nearest"), [("scrach", "scratch"), ("missing", "missing part"), ("holes", "hole")]
)
def test_an_unknown_kind_names_the_nearest(kind: str, nearest: str) -> None:
    image, part = PICTURES["flat"]
    with pytest.raises(InputError, match=f'"{kind}".*"{nearest}"'):
        paint_defect(image, part, kind, np.random.default_rng(0), 0.5)


def test_a_wrong_severity_or_shape_is_refused() -> None:
    image, part = PICTURES["flat"]
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"severity is 1\.5"):
        paint_defect(image, part, "hole", rng, 1.5)
    with pytest.raises(InputError, match="part is"):
        paint_defect(image, part[:5], "hole", rng, 0.5)
    with pytest.raises(InputError, match="image is"):
        paint_defect(image[..., 0], part, "hole", rng, 0.5)
