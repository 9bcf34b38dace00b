"""Pictures an inspector looks at: the photograph with masks, boxes and verdict, and heat maps.

Colours are told apart with every common colour blindness, and every line carries a dark rim so that
it stands out on any surface.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from anomalyr1.types import Box, InputError

MAX_SIDE = 2048
"""Longest side of a drawn picture, in pixels: larger photographs are drawn smaller."""

DEFECT_COLOURS: tuple[tuple[int, int, int], ...] = (
    (255, 176, 0),
    (86, 180, 233),
    (240, 228, 66),
    (229, 134, 189),
    (30, 190, 150),
    (255, 118, 74),
)
"""RGB by defect index, repeating. After Okabe and Ito, "Color Universal Design" (2008), all light
enough for black text; the first is IBM's amber."""

VERDICT_COLOURS: dict[str, tuple[int, int, int]] = {
    "anomalous": (168, 58, 0),
    "normal": (0, 92, 153),
    "unread": (72, 72, 72),
}
"""RGB by verdict, all dark enough for white text. Blue and vermilion, not green and red."""

_RIM = (16, 16, 16)
_TINT_SHARE = 0.42
_ELLIPSIS = "..."

_Pixels = NDArray[np.uint8]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw_overlay(
    image: Image.Image,
    masks: Sequence[NDArray[np.bool_]],
    boxes: Sequence[Box],
    labels: Sequence[str],
    verdict: str,
    score: float | None,
) -> Image.Image:
    """The picture with tinted masks, labelled boxes, and the verdict in its top left corner.

    `masks` are bool (H, W) of the picture's size; `boxes` are xyxy, half-open, in pixels of
    `image`, one label each; mask i and box i share a colour. Returns RGB of the picture's own size,
    or scaled down to `MAX_SIDE`. On pictures too small for text only lines are drawn. Raises
    InputError where sizes or counts do not fit each other.

    >>> picture = Image.new("RGB", (60, 40))
    >>> draw_overlay(picture, [], [(5, 5, 20, 20)], ["dent"], "anomalous", 0.9).size
    (60, 40)
    """
    _check_overlay_inputs(image, masks, boxes, labels)
    width, height = _fit_size_wh(image.size)
    scale_x, scale_y = width / image.width, height / image.height
    picture = image.convert("RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    line_width = max(1, round(min(width, height) / 260))
    pixels = np.array(picture)
    for index, mask in enumerate(masks):
        _tint_mask(pixels, mask, DEFECT_COLOURS[index % len(DEFECT_COLOURS)], line_width)
    canvas = Image.fromarray(pixels)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(size=max(11, round(math.sqrt(width * height) / 42)))
    frames = [
        (left * scale_x, top * scale_y, right * scale_x, bottom * scale_y)
        for left, top, right, bottom in boxes
    ]
    for index, frame in enumerate(frames):
        _draw_frame(draw, frame, DEFECT_COLOURS[index % len(DEFECT_COLOURS)], line_width)
    verdict_tag = verdict if score is None else f"{verdict} {score:.2f}"
    taken = [
        _draw_tag(
            draw, verdict_tag, (0, 0), font, VERDICT_COLOURS.get(verdict, _RIM), (255, 255, 255)
        )
    ]
    # Tags after all frames: a later box must not strike through an earlier label.
    for index, (frame, label) in enumerate(zip(frames, labels, strict=True)):
        colour = DEFECT_COLOURS[index % len(DEFECT_COLOURS)]
        place = _find_tag_place(draw, label, frame, font, taken)
        taken.append(_draw_tag(draw, label, place, font, colour, _RIM))
    return canvas


def draw_map(anomaly_map: NDArray[np.float32], size_wh: tuple[int, int]) -> Image.Image:
    """The anomaly map as a heat map: RGB of `size_wh`, at most `MAX_SIDE` on its longest side.

    `anomaly_map` is (h, w) in [0, 1], of any resolution, covering the whole picture. The scale is
    the same for every picture (0 black, 0.5 magenta red, 1 pale yellow), never stretched to the
    map's own range: a quiet map must look quiet. Colours are matplotlib's inferno, which grows
    evenly in lightness. Raises InputError for another shape or values that are not finite.

    >>> draw_map(np.zeros((4, 4), np.float32), (60, 40)).getpixel((0, 0))
    (0, 0, 4)
    """
    if anomaly_map.ndim != 2 or anomaly_map.size == 0:
        raise InputError(f"an anomaly map is {anomaly_map.shape}, a filled (h, w) is expected")
    if not np.isfinite(anomaly_map).all():
        raise InputError("an anomaly map holds values that are not finite; it cannot be drawn")
    smooth = cv2.resize(
        np.clip(anomaly_map, 0.0, 1.0).astype(np.float32),
        _fit_size_wh(size_wh),
        interpolation=cv2.INTER_LINEAR,
    )
    return colour_map(np.rint(smooth * 255.0).astype(np.uint8))


def colour_map(levels: _Pixels) -> Image.Image:
    """Inferno colours (RGB) for a map in 8-bit gray, (h, w) with 255 for 1.0."""
    return Image.fromarray(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1].copy())


def clean_text(text: str) -> str:
    """One line that can be drawn: blanks for line breaks, nothing invisible, no lone surrogates.

    >>> clean_text(" deep\\n\\x00scratch\\ud83d ")
    'deep scratch?'
    """
    visible = (
        "?" if unicodedata.category(sign) == "Cs" else sign
        for sign in " ".join(text.split())
        if unicodedata.category(sign) not in {"Cc", "Cf"}
    )
    return " ".join("".join(visible).split())


def _check_overlay_inputs(
    image: Image.Image,
    masks: Sequence[NDArray[np.bool_]],
    boxes: Sequence[Box],
    labels: Sequence[str],
) -> None:
    if len(labels) != len(boxes):
        raise InputError(f"{len(boxes)} boxes came with {len(labels)} labels; give one label each")
    for mask in masks:
        if mask.shape != (image.height, image.width):
            raise InputError(
                f"a mask is {' x '.join(map(str, mask.shape[::-1]))}, the picture is "
                f"{image.width} x {image.height}; resize the mask to the picture"
            )
    for box in boxes:
        if not all(math.isfinite(side) for side in box):
            raise InputError(f"box {box} is not finite; leave it out")


def _fit_size_wh(size_wh: tuple[int, int]) -> tuple[int, int]:
    width, height = size_wh
    if width < 1 or height < 1:
        raise InputError(f"a picture of {width} x {height} cannot be drawn; sizes start at 1 x 1")
    scale = min(1.0, MAX_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def _tint_mask(
    pixels: _Pixels, mask: NDArray[np.bool_], colour: tuple[int, int, int], line_width: int
) -> None:
    """Tint and outline one mask in place."""
    height, width = pixels.shape[:2]
    levels = mask.astype(np.uint8)
    if levels.shape != (height, width):
        shares = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
        # A hairline crack fills less than half of any smaller pixel; it must not vanish.
        levels = (shares >= min(0.5, float(shares.max()) / 2 or 1.0)).astype(np.uint8)
    inside = levels.astype(bool)
    tinted = pixels[inside] * (1.0 - _TINT_SHARE) + np.array(colour) * _TINT_SHARE
    pixels[inside] = np.rint(tinted).astype(np.uint8)
    contours, _ = cv2.findContours(levels, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(pixels, contours, -1, _RIM, line_width * 2 + 1, cv2.LINE_AA)
    cv2.drawContours(pixels, contours, -1, colour, line_width, cv2.LINE_AA)


def _draw_frame(
    draw: ImageDraw.ImageDraw, frame: Box, colour: tuple[int, int, int], line_width: int
) -> None:
    width, height = draw.im.size
    left, right = sorted((min(max(frame[0], 0), width), min(max(frame[2], 0), width)))
    top, bottom = sorted((min(max(frame[1], 0), height), min(max(frame[3], 0), height)))
    # Half-open: the last pixel inside is one before the right and bottom edge.
    corners = (
        min(round(left), width - 1),
        min(round(top), height - 1),
        max(min(round(left), width - 1), round(right) - 1),
        max(min(round(top), height - 1), round(bottom) - 1),
    )
    rim = max(1, line_width // 2)
    outer = (corners[0] - rim, corners[1] - rim, corners[2] + rim, corners[3] + rim)
    draw.rectangle(outer, outline=_RIM, width=line_width * 2 + rim * 2)
    draw.rectangle(corners, outline=colour, width=line_width * 2)


def _measure_tag(draw: ImageDraw.ImageDraw, text: str, font: _Font) -> tuple[int, int, int]:
    """Width and height of a tag in pixels, and the margin inside it."""
    _, top, _, bottom = draw.textbbox((0, 0), "Ag|", font=font)
    margin = max(2, round((bottom - top) * 0.28))
    return math.ceil(draw.textlength(text, font=font)) + 2 * margin, int(bottom) + margin, margin


def _shorten(draw: ImageDraw.ImageDraw, text: str, font: _Font) -> str:
    """The cleaned text, cut to fit the picture's width; empty where nothing readable would fit."""
    room = draw.im.size[0]
    text = clean_text(text)[:80]
    if _measure_tag(draw, text, font)[0] <= room:
        return text
    while text and _measure_tag(draw, text + _ELLIPSIS, font)[0] > room:
        text = text[:-1]
    return text.rstrip() + _ELLIPSIS if len(text) >= 3 else ""


def _find_tag_place(
    draw: ImageDraw.ImageDraw, label: str, frame: Box, font: _Font, taken: Sequence[Box]
) -> tuple[int, int]:
    """Top left corner for a label: above its box, else below, else inside, the first that is free
    of other tags; the least covered one where none is."""
    width, height = draw.im.size
    tag_width, tag_height, _ = _measure_tag(draw, _shorten(draw, label, font), font)
    lefts = (frame[0], frame[2] - tag_width)
    tops = (frame[1] - tag_height - 1, frame[3] + 1, frame[1] + 1, frame[3] - tag_height - 1)
    places = [
        (
            round(min(max(left, 0), max(0, width - tag_width))),
            round(min(max(top, 0), max(0, height - tag_height))),
        )
        for left in lefts
        for top in tops
    ]

    def covered(place: tuple[int, int]) -> float:
        return sum(
            max(0.0, min(place[0] + tag_width, other[2]) - max(place[0], other[0]))
            * max(0.0, min(place[1] + tag_height, other[3]) - max(place[1], other[1]))
            for other in taken
        )

    return min(places, key=covered)


def _draw_tag(
    draw: ImageDraw.ImageDraw,
    text: str,
    place: tuple[int, int],
    font: _Font,
    background: tuple[int, int, int],
    foreground: tuple[int, int, int],
) -> Box:
    """Draw a filled tag; returns its box, empty where nothing was drawn."""
    text = _shorten(draw, text, font)
    width, height, margin = _measure_tag(draw, text, font)
    # On a very small picture a tag would hide what it speaks of.
    if not text or height * 3 > draw.im.size[1]:
        return (0.0, 0.0, 0.0, 0.0)
    left, top = place
    draw.rectangle((left, top, left + width - 1, top + height - 1), fill=background, outline=_RIM)
    draw.text((left + margin, top + margin // 2), text, font=font, fill=foreground)
    return (left, top, left + width, top + height)
