"""Damaged, huge and missing files are refused by name, with a remedy; nothing is waited for."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from picture_files import NOISE, animation, build_png_header, encode
from PIL import Image

from anomalyr1 import images
from anomalyr1.images import (
    check_image,
    image_size,
    load_image,
)
from anomalyr1.types import InputError

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
