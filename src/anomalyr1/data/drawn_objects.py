"""Objects on a background: drawn flat in a canonical frame, turned, shaded and photographed.

Each drawer takes (seed, size, instance, variant) and gives the picture and where the part is.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from anomalyr1.data.drawn_surfaces import Picture, Plane, photograph, smooth_noise

Mask = NDArray[np.bool_]
Drawer = Callable[[int, int, int, str | None], tuple[Picture, Mask]]

_CANVAS = 512
"""Side of the canonical frame; the part's centre is its middle."""


class _Sketch:
    """Layers of flat shapes in the canonical frame: height for shading, and colour."""

    def __init__(self) -> None:
        self.height = np.zeros((_CANVAS, _CANVAS), np.float32)
        self.colour = np.zeros((_CANVAS, _CANVAS, 3), np.float32)
        self.inside = np.zeros((_CANVAS, _CANVAS), np.float32)

    def add(self, shape: Plane, colour: NDArray[np.float32], height: float, bevel: float) -> None:
        """Put a shape (0 to 1, anti-aliased) on top, its rim rounded over `bevel` pixels."""
        distance = cv2.distanceTransform((shape > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
        rounded = 1 - (1 - np.clip(distance / np.float32(bevel), 0, 1)) ** 2
        rise = np.float32(height) * np.sqrt(rounded)
        self.height = self.height * (1 - shape) + rise * shape
        self.colour = self.colour * (1 - shape[..., None]) + colour * shape[..., None]
        self.inside = np.maximum(self.inside, shape)

    def cut(self, shape: Plane) -> None:
        """Take a shape away: the background shows."""
        self.height *= 1 - shape
        self.inside *= 1 - shape


def _polygon(points: NDArray[np.float64]) -> Plane:
    canvas = np.zeros((_CANVAS, _CANVAS), np.uint8)
    cv2.fillPoly(canvas, [np.round(points * 16).astype(np.int32)], 255, cv2.LINE_AA, shift=4)
    return canvas.astype(np.float32) / 255


def _disc(
    x: float, y: float, radius_x: float, radius_y: float | None = None, turn: float = 0
) -> Plane:
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    radius_y = radius_x if radius_y is None else radius_y
    points = np.stack([radius_x * np.cos(angle), radius_y * np.sin(angle)], 1)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return _polygon(points @ rotation + [x, y])


def _box(left: float, top: float, right: float, bottom: float) -> Plane:
    return _polygon(np.array([[left, top], [right, top], [right, bottom], [left, bottom]]))


def _shade(rng: np.random.Generator, low: float, high: float, vivid: float) -> NDArray[np.float32]:
    hsv = np.uint8(
        [[[rng.uniform(0, 179), 255 * vivid * rng.random(), 255 * rng.uniform(low, high)]]]
    )
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0], np.float32) / 255


def _photograph_object(
    sketch: _Sketch, seed: int, size: int, instance: int, *, loose: bool, reach: float = 200
) -> tuple[Picture, Mask]:
    """Place the sketch on a background, light it, cast a shadow, take the picture."""
    design, own = (
        np.random.default_rng([seed, 0, 7]),
        np.random.default_rng([seed, instance + 1, 7]),
    )
    zoom = size / _CANVAS * design.uniform(0.75, 1.15) * own.uniform(0.96, 1.04)
    turn = own.uniform(0, 360) if loose else own.uniform(-0.4, 0.4)
    free = max(0.0, size / 2 - reach * zoom)
    shift = own.uniform(-1, 1, 2) * (free * 0.6 if loose else 1.2)
    matrix = cv2.getRotationMatrix2D((_CANVAS / 2, _CANVAS / 2), turn, zoom)
    matrix[:, 2] += size / 2 - _CANVAS / 2 + shift
    height, inside, colour = (
        cv2.warpAffine(
            layer, matrix, (size, size), flags=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        )
        for layer in (sketch.height, sketch.inside, sketch.colour / 1.0)
    )
    light = design.uniform(0, 2 * np.pi) + own.uniform(-0.2, 0.2)
    strength = design.uniform(0.02, 0.06)
    slope_x = cv2.Sobel(cv2.GaussianBlur(height, (0, 0), 1.0), cv2.CV_32F, 1, 0)
    slope_y = cv2.Sobel(cv2.GaussianBlur(height, (0, 0), 1.0), cv2.CV_32F, 0, 1)
    shading = 1 + np.clip(strength * (slope_x * np.cos(light) + slope_y * np.sin(light)), -0.6, 0.7)
    texture = 1 + design.uniform(0.01, 0.06) * smooth_noise(own, size, design.uniform(20, 120))
    texture += design.uniform(0, 0.06) * smooth_noise(own, size, design.uniform(4, 12))
    back = _background(design, own, size)
    drop = design.uniform(0.01, 0.04) * size
    shadow = np.roll(inside, (int(drop * np.sin(light)), int(drop * np.cos(light))), (0, 1))
    shadow = cv2.GaussianBlur(shadow, (0, 0), max(1.0, drop)) * design.uniform(0.15, 0.6)
    back = back * (1 - shadow[..., None])
    part = colour * (shading * texture)[..., None]
    plane = part * inside[..., None] + back * (1 - inside[..., None])
    if design.random() < 0.35:
        plane = np.repeat(plane.mean(axis=2, keepdims=True), 3, axis=2)
    return photograph(np.clip(plane, 0, 1).astype(np.float32), own, design), inside > 0.5


def _background(
    design: np.random.Generator, own: np.random.Generator, size: int
) -> NDArray[np.float32]:
    kind = design.random()
    shade = (
        _shade(design, 0.05, 0.3, 0.3)
        if kind < 0.35
        else _shade(design, 0.5, 1.0, 1.0 if kind < 0.7 else 0.1)
    )
    mottle = 1 + design.uniform(0, 0.06) * smooth_noise(own, size, design.uniform(3, 60))
    return np.asarray(shade * mottle[..., None], np.float32)


def _metal_colour(design: np.random.Generator) -> NDArray[np.float32]:
    return np.float32(design.uniform(0.45, 0.8)) * np.array(
        [[1, 1, 1], [1, 0.85, 0.55], [0.9, 0.95, 1.0]][int(design.integers(3))], np.float32
    )


def screw(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design = np.random.default_rng([seed])
    metal, sketch = _metal_colour(design), _Sketch()
    radius, length = design.uniform(22, 34), design.uniform(240, 330)
    pitch, head = design.uniform(11, 20), design.uniform(1.6, 2.2)
    left = 256 - length / 2
    bend = design.uniform(20, 38) if variant == "bent" else 0.0
    x = np.arange(0, length, pitch / 4)
    sag = bend * np.clip((x / length - 0.35) / 0.65, 0, 1) ** 2
    wave = radius + np.where(x > 0.2 * length, radius * 0.14 * np.sin(2 * np.pi * x / pitch), 0)
    wave *= np.clip((length - x) / (1.2 * radius), 0.05, 1)
    if variant == "missing part":
        wave[x > 0.72 * length] = 0.0
    top, bottom = (
        np.stack([left + x, 256 + sag - wave], 1),
        np.stack([left + x, 256 + sag + wave], 1),
    )
    sketch.add(_polygon(np.concatenate([top, bottom[::-1]])), metal, 26, radius)
    for place in np.arange(
        0.22 * length, length * (0.7 if variant == "missing part" else 0.93), pitch
    ):
        level = 256 + np.interp(place, x, sag)
        groove = _polygon(
            np.array(
                [
                    [left + place, level - radius],
                    [left + place + 3, level - radius],
                    [left + place + 9, level + radius],
                    [left + place + 6, level + radius],
                ]
            )
        )
        sketch.colour *= 1 - 0.45 * (groove * sketch.inside)[..., None]
    sketch.add(
        _box(left - 34, 256 - head * radius, left + 4, 256 + head * radius), metal * 0.95, 30, 12
    )
    sketch.add(_box(left - 34, 250, left - 22, 262), metal * 0.3, 5, 3)
    return _photograph_object(sketch, seed, size, instance, loose=True)


def nut(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design = np.random.default_rng([seed])
    metal, sketch = _metal_colour(design), _Sketch()
    outer = design.uniform(120, 165)
    angle = np.arange(6) * np.pi / 3
    points = outer * np.stack([np.cos(angle), np.sin(angle)], 1) + 256
    if variant == "chipped edge":
        bite = points[0] + np.array([[-30, -28], [-46, 2], [-26, 24]])
        points = np.concatenate([points[1:], bite])
    sketch.add(_polygon(points), metal, 40, 16)
    ring = _disc(256, 256, outer * 0.72) - _disc(256, 256, outer * 0.66)
    sketch.colour *= 1 - 0.25 * ring[..., None]
    hole = outer * design.uniform(0.4, 0.52)
    for step in range(3):
        sketch.colour *= 1 - 0.3 * _disc(256, 256, hole + 9 - 3 * step)[..., None]
    sketch.cut(_disc(256, 256, hole))
    return _photograph_object(sketch, seed, size, instance, loose=True, reach=outer)


def washer(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design = np.random.default_rng([seed])
    metal, sketch = _metal_colour(design), _Sketch()
    outer = design.uniform(110, 180)
    sketch.add(_disc(256, 256, outer), metal, 22, 9)
    sketch.cut(_disc(256, 256, outer * design.uniform(0.35, 0.6)))
    if variant == "chipped edge":
        sketch.cut(
            _polygon(
                np.array(
                    [
                        [256 + outer + 8, 226],
                        [256 + outer - 24, 240],
                        [256 + outer - 18, 256],
                        [256 + outer - 28, 268],
                        [256 + outer + 8, 286],
                    ]
                )
            )
        )
    if variant == "missing part":
        sketch.cut(_polygon(np.array([[256, 256], [256 + 2 * outer, 160], [256 + 2 * outer, 300]])))
    return _photograph_object(sketch, seed, size, instance, loose=True, reach=outer)


def bottle_cap(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design = np.random.default_rng([seed])
    sketch, colour = _Sketch(), _shade(design, 0.5, 0.95, 1.0)
    teeth, outer = int(design.integers(18, 30)), design.uniform(140, 180)
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = outer + 6 * np.sign(np.sin(teeth * angle))
    sketch.add(
        _polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) + 256),
        colour,
        36,
        26,
    )
    ink = _shade(design, 0.1, 0.9, 0.8)
    ring = _disc(256, 256, outer * 0.7) - _disc(256, 256, outer * 0.64)
    sketch.colour += (ink - sketch.colour) * ring[..., None] * 0.9
    letters = np.zeros((_CANVAS, _CANVAS), np.uint8)
    text = "".join(design.choice(list("ABCDEFHKLMNPRSTVXZ0123456789"), 4))
    cv2.putText(letters, text, (176, 276), cv2.FONT_HERSHEY_DUPLEX, 2.0, 255, 6, cv2.LINE_AA)
    if variant == "misprint":
        letters[:, 250:] = np.roll(letters, 22, axis=0)[:, 250:]
        letters[:, 190:225] = letters[:, 190:225] // 4
    if variant == "missing part":
        ring = _disc(256, 256, outer * 0.3)
        sketch.cut(
            _polygon(
                np.array(
                    [[256 + 0.75 * outer, 216], [600, 190], [600, 320], [256 + 0.8 * outer, 290]]
                )
            )
        )
    sketch.colour += (ink - sketch.colour) * (letters[..., None] / 255.0)
    return _photograph_object(sketch, seed, size, instance, loose=True, reach=outer)


def capsule(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design = np.random.default_rng([seed])
    sketch = _Sketch()
    radius, half = design.uniform(55, 80), design.uniform(60, 110)
    first, second = _shade(design, 0.4, 0.95, 1.0), _shade(design, 0.7, 1.0, 0.5)
    body = np.clip(
        _disc(256 - half, 256, radius)
        + _disc(256 + half, 256, radius)
        + _box(256 - half, 256 - radius, 256 + half, 256 + radius),
        0,
        1,
    )
    sketch.add(body, second, 60, radius)
    right = _box(256 + design.uniform(-30, 20), 0, _CANVAS, _CANVAS) * body
    sketch.colour += (first - sketch.colour) * right[..., None]
    if design.random() < 0.6:
        letters = np.zeros((_CANVAS, _CANVAS), np.uint8)
        cv2.putText(
            letters,
            str(design.integers(100, 999)),
            (256 - int(half), 268),
            cv2.FONT_HERSHEY_SIMPLEX,
            1.2,
            255,
            4,
            cv2.LINE_AA,
        )
        sketch.colour *= 1 - 0.7 * letters[..., None] / 255.0
    if variant == "bent":
        rows = np.arange(_CANVAS, dtype=np.float32)
        map_x, map_y = np.meshgrid(rows, rows)
        map_y = map_y + 30 * np.exp(-((map_x - 256 - half) ** 2) / (2 * 45**2))
        for name in ("height", "colour", "inside"):
            setattr(sketch, name, cv2.remap(getattr(sketch, name), map_x, map_y, cv2.INTER_LINEAR))
    return _photograph_object(sketch, seed, size, instance, loose=True, reach=half + radius)


def gear(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design = np.random.default_rng([seed])
    metal, sketch = _metal_colour(design), _Sketch()
    teeth, outer, depth = (
        int(design.integers(12, 28)),
        design.uniform(150, 185),
        design.uniform(16, 30),
    )
    angle = np.linspace(0, 2 * np.pi, 1440, endpoint=False)
    profile = np.clip(1.6 * np.sin(teeth * angle), -1, 1)
    if variant == "missing part":
        profile[np.abs(angle - 1.2) < np.pi / teeth] = -1
    if variant == "chipped edge":
        profile[np.abs(angle - 2.0) < 0.4 * np.pi / teeth] *= 0.1
    radius = outer - depth / 2 + profile * depth / 2
    sketch.add(
        _polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) + 256), metal, 24, 8
    )
    sketch.add(_disc(256, 256, outer * 0.62), metal * 0.8, 14, 10)
    for number in range(int(design.integers(0, 6))):
        place = 2 * np.pi * number / 5
        sketch.cut(
            _disc(
                256 + 0.42 * outer * np.cos(place), 256 + 0.42 * outer * np.sin(place), 0.1 * outer
            )
        )
    sketch.cut(_disc(256, 256, outer * design.uniform(0.14, 0.24)))
    return _photograph_object(sketch, seed, size, instance, loose=True, reach=outer)


def connector(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design = np.random.default_rng([seed])
    sketch, metal = _Sketch(), _metal_colour(design)
    pins, half = int(design.integers(4, 10)), design.uniform(150, 210)
    sketch.add(_box(256 - half, 180, 256 + half, 290), _shade(design, 0.1, 0.9, 0.8), 30, 10)
    step = 2 * half / (pins + 1)
    odd = int(design.integers(pins))
    for pin in range(pins):
        x = 256 - half + step * (pin + 1)
        sketch.add(
            _box(x - step * 0.28, 200, x + step * 0.28, 270), np.float32([0.08, 0.08, 0.08]), 4, 4
        )
        if pin == odd and variant == "missing part":
            continue
        lean = step * 0.45 if pin == odd and variant == "bent" else 0.0
        if pin == odd and variant == "misplaced part":
            x += step * 0.35
        sketch.add(
            _polygon(
                np.array(
                    [
                        [x - 5, 220],
                        [x + 5, 220],
                        [x + 5, 290],
                        [x + 5 + lean, 360],
                        [x - 5 + lean, 360],
                        [x - 5, 290],
                    ]
                )
            ),
            metal,
            12,
            5,
        )
    return _photograph_object(sketch, seed, size, instance, loose=False, reach=half)


def circuit_board(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    board = np.array(
        [[0.05, 0.3, 0.15], [0.05, 0.15, 0.4], [0.3, 0.05, 0.08], [0.06, 0.06, 0.07]][
            int(design.integers(4))
        ],
        np.float32,
    )
    plane = np.broadcast_to(board, (size, size, 3)).astype(np.float32).copy()
    copper = _traces(design, size, int(design.integers(8, 20)))
    plane = plane + (board * 1.7 + 0.06 - plane) * copper[..., None]
    picture = np.round(np.clip(plane, 0, 1) * 255).astype(np.uint8)
    chips = []
    for _number in range(int(design.integers(3, 7))):
        width, height = design.integers(size // 9, size // 4, 2)
        chips.append(
            (
                int(design.integers(4, size - width - 4)),
                int(design.integers(4, size - height - 4)),
                int(width),
                int(height),
            )
        )
    odd = int(design.integers(len(chips)))
    for number, (left, top, width, height) in enumerate(chips):
        kind, text = design.integers(2), str(design.integers(100, 9999))
        if number == odd and variant == "missing part":
            continue
        if number == odd and variant == "misplaced part":
            left, top = left + size // 14, top + size // 18
        shade = 20 if kind == 0 else 165
        for pin in range(0, max(1, width // 9)):
            x = left + 5 + 9 * pin
            cv2.rectangle(
                picture, (x, top - 5), (x + 3, top + height + 5), (178, 178, 173), -1, cv2.LINE_AA
            )
        cv2.rectangle(
            picture,
            (left, top),
            (left + width, top + height),
            (shade, shade, shade),
            -1,
            cv2.LINE_AA,
        )
        cv2.rectangle(
            picture, (left, top), (left + width, top + height), (shade + 25,) * 3, 1, cv2.LINE_AA
        )
        if number == odd and variant == "misprint":
            text = text[::-1] + "8"
        cv2.putText(
            picture,
            text,
            (left + 4, top + height // 2 + 4),
            cv2.FONT_HERSHEY_SIMPLEX,
            0.4,
            (60 if kind == 1 else 215,) * 3,
            1,
            cv2.LINE_AA,
        )
    shift = np.float32([[1, 0, own.uniform(-1, 1)], [0, 1, own.uniform(-1, 1)]])
    plane = cv2.warpAffine(
        picture.astype(np.float32) / 255, shift, (size, size), borderMode=cv2.BORDER_REPLICATE
    )
    return photograph(np.clip(plane, 0, 1), own, design), np.ones((size, size), bool)


def etched_board(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """Black artwork on white, thresholded, as an optical scanner of etched boards gives it."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    copper = _traces(design, size, int(design.integers(5, 16)), wide=True)
    shift = np.float32([[1, 0, own.uniform(-0.8, 0.8)], [0, 1, own.uniform(-0.8, 0.8)]])
    copper = cv2.warpAffine(
        cv2.GaussianBlur(copper, (0, 0), 1.0), shift, (size, size), borderMode=cv2.BORDER_REPLICATE
    )
    ragged = copper + 0.12 * smooth_noise(own, size, size / 3)
    binary = (ragged > 0.5 + own.uniform(-0.06, 0.06)).astype(np.float32)
    if np.random.default_rng([seed, 3]).random() < 0.7:
        binary = 1 - binary
    picture = np.repeat((binary * 255).astype(np.uint8)[..., None], 3, axis=2)
    return picture, np.ones((size, size), bool)


def _traces(design: np.random.Generator, size: int, count: int, wide: bool = False) -> Plane:
    """Bundles of bent traces with pads and vias: coverage (size, size) in [0, 1]."""
    canvas = np.zeros((size, size), np.uint8)
    unit = size / 352
    for _bundle in range(count):
        start = design.uniform(0, size, 2)
        step = np.array([[1, 0], [0, 1], [0.7, 0.7], [0.7, -0.7]][int(design.integers(4))])
        thick = int(max(1, unit * design.choice([3, 4, 6, 14 if wide else 8, 30 if wide else 8])))
        lines = int(design.integers(1, 6)) if thick < 10 * unit else 1
        legs = [design.uniform(30, 150) * unit for _leg in range(3)]
        turns = design.choice([-1, 0, 1], 2)
        across = np.array([-step[1], step[0]])
        for line in range(lines):
            point = start + across * line * thick * 2.4
            direction = step.copy()
            path = [point]
            for leg, turn in zip(legs, [0, *turns], strict=True):
                angle = turn * np.pi / 4
                direction = np.array(
                    [
                        direction[0] * np.cos(angle) - direction[1] * np.sin(angle),
                        direction[0] * np.sin(angle) + direction[1] * np.cos(angle),
                    ]
                )
                path.append(path[-1] + direction * leg)
            cv2.polylines(
                canvas, [np.round(np.array(path)).astype(np.int32)], False, 255, thick, cv2.LINE_AA
            )
            for end in (path[0], path[-1]):
                pad = int(unit * design.uniform(4, 11))
                centre = (int(end[0]), int(end[1]))
                if design.random() < 0.3:
                    cv2.rectangle(
                        canvas,
                        (centre[0] - pad, centre[1] - pad),
                        (centre[0] + pad, centre[1] + pad),
                        255,
                        -1,
                    )
                else:
                    cv2.circle(canvas, centre, pad + 2, 255, -1, cv2.LINE_AA)
                    if design.random() < 0.6:
                        cv2.circle(canvas, centre, max(1, pad // 2), 0, -1, cv2.LINE_AA)
    return canvas.astype(np.float32) / 255


def nut_kernel(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    sketch = _Sketch()
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    width, tall = (
        design.uniform(80, 130) * own.uniform(0.93, 1.07, 2) * [1, design.uniform(0.75, 1.2)]
    )
    lumps = sum(
        own.uniform(0, 0.03) * np.cos(order * angle + own.uniform(0, 6)) for order in (2, 3, 4, 5)
    )
    tip = design.uniform(0, 0.3) * np.exp(-((np.minimum(angle, 2 * np.pi - angle)) ** 2) / 0.05)
    radius = 1 + lumps + tip
    brown = np.float32(
        [design.uniform(0.5, 0.9), design.uniform(0.35, 0.72), design.uniform(0.2, 0.5)]
    )
    sketch.add(
        _polygon(
            np.stack([width * radius * np.cos(angle), tall * radius * np.sin(angle)], 1) + 256
        ),
        brown,
        70,
        0.8 * min(width, tall),
    )
    wrinkles = 0.12 * design.random() * smooth_noise(
        own, _CANVAS, 40, 8
    ) + 0.1 * design.random() * smooth_noise(own, _CANVAS, 9)
    pale = 0.25 * design.random() * np.clip(smooth_noise(own, _CANVAS, 14) - 1.2, 0, 1)
    sketch.colour = np.clip(
        sketch.colour * (1 + wrinkles[..., None]) + pale[..., None], 0, 1
    ).astype(np.float32)
    return _photograph_object(
        sketch, seed, size, instance, loose=True, reach=1.3 * max(width, tall)
    )


OBJECT_DRAWERS: dict[str, Drawer] = {
    "screw": screw,
    "nut": nut,
    "washer": washer,
    "bottle_cap": bottle_cap,
    "capsule": capsule,
    "gear": gear,
    "connector": connector,
    "circuit_board": circuit_board,
    "etched_board": etched_board,
    "nut_kernel": nut_kernel,
}

OBJECT_VARIANTS: dict[str, tuple[str, ...]] = {
    "screw": ("bent", "missing part"),
    "nut": ("chipped edge",),
    "washer": ("chipped edge", "missing part"),
    "bottle_cap": ("misprint", "missing part"),
    "capsule": ("bent",),
    "gear": ("missing part", "chipped edge"),
    "connector": ("missing part", "bent", "misplaced part"),
    "circuit_board": ("missing part", "misplaced part", "misprint"),
}
"""The structural defects that each drawing can show."""
