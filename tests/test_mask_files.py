"""Mask files of every kind -> bool, or refused where that would be a guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_files import NOISE, encode, rotated_jpeg
from PIL import Image

from anomalyr1.images import (
    load_mask,
)
from anomalyr1.types import InputError


def mask_image(values: list[int], mode: str = "L") -> Image.Image:
    image = Image.new(mode, (len(values), 1))
    image.putdata(values)
    return image


def coloured_palette_mask() -> Image.Image:
    image = mask_image([0, 1, 1, 2], "P")
    image.putpalette([0, 0, 0, 128, 0, 0, 0, 64, 0])
    return image


def grey_palette_mask() -> Image.Image:
    image = mask_image([0, 1, 2, 3], "P")
    image.putpalette([level for grey in (0, 100, 128, 255) for level in (grey,) * 3])
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (mask_image([0, 127, 128, 255]), [False, False, True, True]),
        (mask_image([0, 1, 1, 0]), [False, True, True, False]),
        (mask_image([0, 0, 0, 0]), [False, False, False, False]),
        (mask_image([0, 1, 0, 1], "1"), [False, True, False, True]),
        (coloured_palette_mask(), [False, True, True, True]),
        (grey_palette_mask(), [False, False, True, True]),
        (
            Image.fromarray(np.array([[0, 20000, 40000, 65535]], np.uint16)),
            [False, False, True, True],
        ),
        (Image.fromarray(np.array([[0, 0, 1, 1]], np.uint16)), [False, False, True, True]),
        (
            Image.fromarray(np.array([[[0, 0, 0], [200, 0, 0], [90, 9, 9], [9, 9, 128]]], "u1")),
            [False, True, False, True],
        ),
        (
            Image.fromarray(np.array([[[255] * 4, [255, 255, 255, 0], [0] * 4, [0] * 4]], "u1")),
            [True, False, False, False],
        ),
    ],
)
def test_masks_of_every_kind_become_true_where_the_defect_is(
    tmp_path: Path, image: Image.Image, expected: list[bool]
) -> None:
    image.save(tmp_path / "mask.png")
    mask = load_mask(tmp_path / "mask.png", (4, 1))
    assert mask.dtype == np.bool_
    assert mask.tolist() == [expected]


def test_a_mask_of_label_numbers_is_refused_instead_of_read_as_empty(tmp_path: Path) -> None:
    mask_image([0, 2, 3, 0]).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png holds values up to 3"):
        load_mask(tmp_path / "mask.png", (4, 1))


def test_a_mask_of_another_size_names_both_files_and_sizes(tmp_path: Path) -> None:
    Image.new("L", (900, 900)).save(tmp_path / "000_mask.png")
    said = r"^mask 000_mask\.png is 900x900, image 000\.png is 1024x1024"
    with pytest.raises(InputError, match=said):
        load_mask(tmp_path / "000_mask.png", (1024, 1024), image_name="000.png")


def test_a_mask_is_turned_like_its_picture(tmp_path: Path) -> None:
    (tmp_path / "mask.jpg").write_bytes(rotated_jpeg(6))
    mask = load_mask(tmp_path / "mask.jpg", (10, 20))
    assert mask[:8].sum() == 0
    assert mask[12:].all()


def test_a_cut_off_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(encode(NOISE, "PNG")[:-2000])
    with pytest.raises(InputError, match=r"mask\.png: damaged or cut off"):
        load_mask(tmp_path / "mask.png", (60, 40))
