"""Pictures as users bring them: odd, damaged, huge; each is shown faithfully or refused by name."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyr1 import images
from anomalyr1.images import (
    check_image,
    find_images,
    image_size,
    limit_size,
    load_image,
    load_mask,
    write_bytes_atomic,
    write_png_atomic,
)
from anomalyr1.types import InputError

NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encode(image: Image.Image | np.ndarray, suffix: str, **options: object) -> bytes:
    buffer = BytesIO()
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    picture.save(buffer, format=suffix, **options)
    return buffer.getvalue()


def build_png_header(width: int, height: int) -> bytes:
    """A valid PNG header that claims a size, followed by almost no data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def rotated_jpeg(orientation: int, suffix: str = "JPEG") -> bytes:
    """A 20x10 picture, left half black, that its metadata asks to turn."""
    image = Image.new("RGB", (20, 10), "white")
    image.paste("black", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(image, suffix, exif=exif)


def palette_with_transparency() -> Image.Image:
    image = Image.new("P", (4, 2), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((3, 1), 1)
    return image


def animation() -> bytes:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "lime", "blue")]
    return encode(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)


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


BAD_FILES: list[tuple[str, Callable[[], bytes], str]] = [
    ("cut.png", lambda: encode(NOISE, "PNG")[:-2000], "cut off"),
    ("cut.jpg", lambda: encode(NOISE, "JPEG")[:-600], "cut off"),
    ("cut_progressive.jpg", lambda: encode(NOISE, "JPEG", progressive=True)[:-900], "cut off"),
    ("cut.bmp", lambda: encode(NOISE, "BMP")[:-600], "cut off"),
    ("cut.tif", lambda: encode(NOISE, "TIFF")[:-3000], "cut off|not a picture"),
    ("cut.webp", lambda: encode(NOISE, "WEBP")[:-600], "cut off|not a picture"),
    ("cut.gif", lambda: animation()[:30], "cut off|not a picture"),
    ("cut.ppm", lambda: encode(NOISE, "PPM")[:-600], "cut off"),
    ("half_header.png", lambda: encode(NOISE, "PNG")[:20], "cut off|not a picture"),
    ("empty.png", lambda: b"", "0 bytes"),
    ("text.png", lambda: b"this is no picture\n" * 9, "not a picture"),
    (
        "page.eps",
        lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n",
        "not a picture",
    ),
    ("bomb.png", lambda: build_png_header(60000, 60000), "too large"),
    ("big.png", lambda: build_png_header(12000, 11000), "132,000,000 pixels"),
]


@pytest.mark.parametrize(("name", "payload", "said"), BAD_FILES, ids=[row[0] for row in BAD_FILES])
def test_a_bad_file_is_refused_by_name_with_a_remedy(
    tmp_path: Path, name: str, payload: Callable[[], bytes], said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(payload())
    for read in (load_image, check_image):
        with pytest.raises(InputError, match=said) as caught:
            read(path)
        assert str(path) in str(caught.value)
    with pytest.raises(InputError, match="upload 7"):
        load_image(payload(), name="upload 7")


def test_a_folder_and_a_missing_file_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        load_image(tmp_path)
    with pytest.raises(InputError, match=r"absent\.png: no such file"):
        load_image(tmp_path / "absent.png")
    with pytest.raises(InputError, match="cannot be opened"):
        load_image("nul\0byte.png")
    with pytest.raises(InputError, match="from a int"):
        load_image(3)  # type: ignore[arg-type]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="not a plain file"):
        load_image(tmp_path / "pipe.png")


def test_a_file_without_read_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(encode(NOISE, "PNG"))
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user (root?) may read every file")
    with pytest.raises(InputError, match=r"locked\.png: no permission"):
        load_image(path)


def test_a_refusal_by_the_system_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "locked.png"
    path.write_bytes(encode(NOISE, "PNG"))

    def refuse(*_args: object, **_keywords: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images.Image, "open", refuse)
    with pytest.raises(InputError, match=r"locked\.png: no permission"):
        load_image(path)


def test_a_100_megapixel_picture_is_read_whole_and_without_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 10_000), 1).save(path, compress_level=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert image_size(path) == check_image(path) == (10_000, 10_000)
        image = load_image(path)
    assert (image.mode, image.size) == ("RGB", (10_000, 10_000))


def test_the_limits_on_bytes_and_pixels_hold_for_every_source(tmp_path: Path) -> None:
    payload = encode(NOISE, "PNG")
    path = tmp_path / "a.png"
    path.write_bytes(payload)
    for source in (path, payload):
        with pytest.raises(InputError, match="the limit is 100"):
            load_image(source, max_bytes=100)
    for source in (path, payload, NOISE, Image.fromarray(NOISE)):
        with pytest.raises(InputError, match="is 60x40 = 2,400 pixels, the limit is 2,399"):
            load_image(source, max_pixels=2399)
        assert load_image(source, max_pixels=2400, max_bytes=len(payload)).size == (60, 40)


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


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_folders_are_walked_in_order_and_hidden_files_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "b/2.PNG", "b/10.jpg", "a.tiff", ".hidden.png", ".cache/x.png", "notes.txt")
    touch(tmp_path, "b/._2.png", "z.webp")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["a.tiff", "b/10.jpg", "b/2.PNG", "z.webp"]


def test_a_file_named_itself_is_kept_and_nothing_is_listed_twice(tmp_path: Path) -> None:
    touch(tmp_path, "scan.dat", "a.png")
    found = find_images([tmp_path / "scan.dat", tmp_path, tmp_path / "a.png"])
    assert [path.name for path in found] == ["scan.dat", "a.png"]


def test_links_that_lead_back_do_not_trap_the_walk(tmp_path: Path) -> None:
    touch(tmp_path, "parts/a.png")
    try:
        (tmp_path / "parts" / "again").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("links cannot be made here")
    assert len(find_images([tmp_path])) == 1


def test_nothing_found_is_an_error_that_names_the_places(tmp_path: Path) -> None:
    touch(tmp_path, "notes.txt")
    with pytest.raises(InputError, match="no picture found in"):
        find_images([tmp_path])
    with pytest.raises(InputError, match="no such file"):
        find_images([tmp_path / "absent"])
    with pytest.raises(InputError, match="no path"):
        find_images([])


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
    with pytest.raises(OSError, match="No space left"):
        write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1
