"""Pictures as users bring them: odd, damaged, huge; each is shown faithfully or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from picture_files import NOISE, animation, encode, rotated_jpeg
from PIL import Image

from anomalyr1 import images
from anomalyr1.images import (
    check_image,
    image_size,
    limit_size,
    load_image,
    load_mask,
    write_bytes_atomic,
    write_png_atomic,
)
from anomalyr1.types import InputError


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((3, 1), 1)
    return image


def two_lens_photograph() -> bytes:
    """Two pictures in one JPEG, as phones write them."""
    left, right = (Image.new("RGB", (16, 8), colour) for colour in ("red", "blue"))
    return encode(left, "MPO", save_all=True, append_images=[right])


def cmyk_black() -> bytes:
    return encode(Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "JPEG")


def rgba(*pixel: int) -> bytes:
    return encode(Image.new("RGBA", (3, 3), pixel), "PNG")


@pytest.mark.parametrize(
    ("payload", "size_wh", "corner"),
    [
        (lambda: encode(Image.new("L", (1, 1), 7), "PNG"), (1, 1), (7, 7, 7)),
        (lambda: encode(Image.new("1", (9, 5), 1), "PNG"), (9, 5), (255, 255, 255)),
        (lambda: encode(NOISE, "PNG"), (60, 40), tuple(NOISE[0, 0])),
        (lambda: encode(NOISE, "BMP"), (60, 40), tuple(NOISE[0, 0])),
        (lambda: encode(NOISE, "PPM"), (60, 40), tuple(NOISE[0, 0])),
        (lambda: encode(NOISE, "WEBP", lossless=True), (60, 40), tuple(NOISE[0, 0])),
        (cmyk_black, (16, 16), (0, 0, 0)),
        (
            lambda: encode(palette_with_transparency(), "PNG", transparency=0),
            (4, 2),
            (255, 255, 255),
        ),
        (lambda: encode(palette_with_transparency(), "PNG"), (4, 2), (255, 0, 0)),
        (lambda: rgba(0, 0, 0, 0), (3, 3), (255, 255, 255)),
        (lambda: rgba(0, 0, 0, 255), (3, 3), (0, 0, 0)),
        (lambda: encode(Image.new("LA", (3, 3), (0, 0)), "PNG"), (3, 3), (255, 255, 255)),
        (
            lambda: encode(Image.new("L", (3, 3), 9), "PNG", transparency=9),
            (3, 3),
            (255, 255, 255),
        ),
        (animation, (5, 4), (255, 0, 0)),
        (two_lens_photograph, (16, 8), (254, 0, 0)),
        (lambda: encode(Image.new("LAB", (3, 3)), "TIFF"), None, "Lab"),
    ],
)
def test_every_kind_of_picture_becomes_rgb_at_its_size_or_is_refused(
    tmp_path: Path,
    payload: Callable[[], bytes],
    size_wh: tuple[int, int] | None,
    corner: tuple[int, int, int] | str,
) -> None:
    path = tmp_path / "picture.any"
    path.write_bytes(payload())
    if size_wh is None:
        with pytest.raises(InputError, match=str(corner)):
            load_image(path)
        return
    image = load_image(path)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", size_wh, corner)
    assert image_size(path) == check_image(path) == size_wh
    assert load_image(path.read_bytes()).tobytes() == image.tobytes()
    assert load_image(str(path)).tobytes() == image.tobytes()


@pytest.mark.parametrize("suffix", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "size_wh", "black_at"),
    [
        (1, (20, 10), (2, 5)),
        (2, (20, 10), (17, 5)),
        (3, (20, 10), (17, 5)),
        (4, (20, 10), (2, 5)),
        (5, (10, 20), (5, 2)),
        (6, (10, 20), (5, 2)),
        (7, (10, 20), (5, 17)),
        (8, (10, 20), (5, 17)),
        (9, (20, 10), (2, 5)),  # outside the standard: left as it is
    ],
)
def test_a_picture_turned_by_its_metadata_stands_upright(
    tmp_path: Path,
    suffix: str,
    orientation: int,
    size_wh: tuple[int, int],
    black_at: tuple[int, int],
) -> None:
    path = tmp_path / "turned"
    path.write_bytes(rotated_jpeg(orientation, suffix))
    image = load_image(path)
    assert image.size == image_size(path) == check_image(path) == size_wh
    assert max(image.getpixel(black_at)) < 60
    white_at = (size_wh[0] - 1 - black_at[0], size_wh[1] - 1 - black_at[1])
    assert min(image.getpixel(white_at)) > 200
    assert load_image(image).size == size_wh, "a picture is turned once only"


def test_damaged_metadata_does_not_cost_the_picture() -> None:
    payload = rotated_jpeg(6).replace(b"Exif\0\0MM\0*", b"Exif\0\0MM\xff*")
    assert load_image(payload).size == (20, 10)


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(200, 200), (255, 255), (1000, 249), (1023, 255), (4095, 255), (4096, 16), (65535, 255)],
)
def test_deep_grey_is_scaled_by_the_range_its_largest_value_needs(
    tmp_path: Path, highest: int, expected: int
) -> None:
    values = np.array([[0, highest]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray(values).save(tmp_path / "deep.tif")
    Image.fromarray(values).save(tmp_path / "deep.pgm")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "int32.tif")
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "float.tif")
    for path in sorted(tmp_path.iterdir()):
        assert np.asarray(load_image(path))[0, :, 1].tolist() == [0, expected], path.name
    assert np.asarray(load_image(values))[0, :, 2].tolist() == [0, expected]


def test_float_pictures_up_to_one_are_taken_as_zero_to_one(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)).save(tmp_path / "f.tif")
    assert np.asarray(load_image(tmp_path / "f.tif"))[0, :, 0].tolist() == [0, 128, 255]


def test_values_beyond_16_bits_are_scaled_by_the_largest(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 500_000, 1_000_000]], dtype=np.int32)).save(tmp_path / "i.tif")
    assert np.asarray(load_image(tmp_path / "i.tif"))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_float_pictures_without_a_known_range_are_refused(tmp_path: Path, bad: float) -> None:
    Image.fromarray(np.array([[0.0, bad]], dtype=np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(InputError, match=r"f\.tif: pixel values range"):
        load_image(tmp_path / "f.tif")


@pytest.mark.parametrize(
    ("array", "pixel"),
    [
        (np.full((2, 3), 9, np.uint8), (9, 9, 9)),
        (np.full((2, 3, 3), (1, 2, 3), np.uint8), (1, 2, 3)),
        (np.full((2, 3, 4), (1, 2, 3, 0), np.uint8), (255, 255, 255)),
        (np.full((2, 3, 3), (0, 4095, 2048), np.uint16), (0, 255, 128)),
        (np.full((2, 3), 0.5, np.float32), (128, 128, 128)),
        (np.full((2, 3, 3), (0.0, 1.0, 0.2), np.float64), (0, 255, 51)),
        (np.full((3, 2, 3), 9, np.uint8).transpose(1, 0, 2), (9, 9, 9)),
    ],
)
def test_arrays_are_rgb_in_their_usual_types(array: np.ndarray, pixel: tuple[int, ...]) -> None:
    before = array.copy()
    image = load_image(array)
    assert (image.size, image.getpixel((0, 0))) == ((3, 2), pixel)
    assert (array == before).all()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3), np.int64),
        np.zeros((2, 3), np.bool_),
        np.zeros((2, 3), np.complex64),
        np.zeros((3, 2, 3, 1), np.uint8),
        np.zeros((2, 3, 2), np.uint8),
        np.zeros((3, 20, 30), np.uint8),  # channels first
        np.zeros((2, 3, 4), np.float32),
        np.zeros(5, np.uint8),
        np.zeros((0, 3, 3), np.uint8),
        np.array([["a"]]),
        np.full((2, 3), 1.5),
        np.full((2, 3), -0.1),
        np.full((2, 3), np.nan),
    ],
)
def test_other_arrays_are_refused_by_name(array: np.ndarray) -> None:
    with pytest.raises(InputError, match="frame 12"):
        load_image(array, name="frame 12")


def test_a_picture_handed_in_is_not_altered() -> None:
    original = Image.fromarray(NOISE)
    loaded = load_image(original)
    loaded.putpixel((0, 0), (0, 0, 0))
    assert original.getpixel((0, 0)) == tuple(NOISE[0, 0])


@pytest.mark.parametrize(
    ("size_wh", "max_side", "expected"),
    [
        ((400, 100), 200, (200, 50)),
        ((100, 400), 200, (50, 200)),
        ((100, 100), 100, (100, 100)),
        ((3000, 1), 100, (100, 1)),
    ],
)
def test_the_longer_side_is_limited(
    size_wh: tuple[int, int], max_side: int, expected: tuple[int, int]
) -> None:
    assert limit_size(Image.new("RGB", size_wh), max_side).size == expected


def test_a_limit_below_one_pixel_is_refused() -> None:
    with pytest.raises(InputError, match="max_side is 0"):
        limit_size(Image.new("RGB", (2, 2)), 0)


def test_written_pictures_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "new" / "out.png"
    write_png_atomic(path, NOISE)
    assert (np.asarray(load_image(path)) == NOISE).all()
    write_png_atomic(path, NOISE[..., 0] > 99)
    assert (load_mask(path, (60, 40)) == (NOISE[..., 0] > 99)).all()
    assert [entry.name for entry in path.parent.iterdir()] == ["out.png"]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.bin"
    write_bytes_atomic(path, b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.os, "fsync", fail)
    with pytest.raises(OSError, match=r"No space left on device: .*out.bin'"):
        write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
