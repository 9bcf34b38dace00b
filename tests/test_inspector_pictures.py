"""Pictures of any kind are inspected, and findings are in pixels of the upright original."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from builders import NORMAL, anomalous, make_inspector
from PIL import Image

from anomalyr1.types import Completion, InputError, Record


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
