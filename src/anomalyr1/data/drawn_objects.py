"""Objects on a background: drawn flat in a canonical frame, turned, shaded and photographed.

Each drawer takes (seed, size, instance, variant) and gives the picture and where the part is.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from anomalyr1.data.drawn_boards import circuit_board, etched_board
from anomalyr1.data.drawn_surfaces import Mask, Picture, smooth_noise
from anomalyr1.data.sketches import (
    CANVAS,
    Sketch,
    choose_metal,
    choose_shade,
    draw_box,
    draw_disc,
    draw_polygon,
    photograph_object,
)

Drawer = Callable[[int, int, int, str | None], tuple[Picture, Mask]]


def screw(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """Shank, thread and head, lying anywhere: bent, or its tip gone."""
    design = np.random.default_rng([seed])
    metal, sketch = choose_metal(design), Sketch()
    radius, length = design.uniform(22, 34), design.uniform(240, 330)
    pitch, head = design.uniform(11, 20), design.uniform(1.6, 2.2)
    left = 256 - length / 2
    bend = design.uniform(20, 38) if variant == "bent" else 0.0
    end = 0.72 * length if variant == "missing part" else length
    x = np.arange(0, end, pitch / 4)
    sag = bend * np.clip((x / length - 0.35) / 0.65, 0, 1) ** 2
    wave = radius + np.where(x > 0.2 * length, radius * 0.14 * np.sin(2 * np.pi * x / pitch), 0)
    wave *= np.clip((length - x) / (1.2 * radius), 0.05, 1)
    top, bottom = (
        np.stack([left + x, 256 + sag - wave], 1),
        np.stack([left + x, 256 + sag + wave], 1),
    )
    sketch.add(draw_polygon(np.concatenate([top, bottom[::-1]])), metal, 26, radius)
    for place in np.arange(
        0.22 * length, length * (0.7 if variant == "missing part" else 0.93), pitch
    ):
        level = 256 + np.interp(place, x, sag)
        groove = draw_polygon(
            np.array(
                [
                    [left + place, level - radius],
                    [left + place + 3, level - radius],
                    [left + place + 9, level + radius],
                    [left + place + 6, level + radius],
                ]
            )
        )
        sketch.darken(groove, 0.45)
    sketch.add(
        draw_box(left - 34, 256 - head * radius, left + 4, 256 + head * radius),
        metal * 0.95,
        30,
        12,
    )
    sketch.add(draw_box(left - 34, 250, left - 22, 262), metal * 0.3, 5, 3)
    return photograph_object(sketch, seed, size, instance, loose=True)


def nut(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """A hexagon with a hole, lying anywhere; a corner may be broken off."""
    design = np.random.default_rng([seed])
    metal, sketch = choose_metal(design), Sketch()
    outer = design.uniform(120, 165)
    angle = np.arange(6) * np.pi / 3
    points = outer * np.stack([np.cos(angle), np.sin(angle)], 1) + 256
    if variant == "chipped edge":
        # Both ends of the break lie on the sides, so that only the corner is gone.
        corner, after, before = points[0], points[1], points[5]
        broken = [
            corner + 0.24 * (before - corner),
            corner + np.array([-0.24 * outer, 2]),
            corner + 0.2 * (after - corner),
        ]
        points = np.concatenate([points[1:], broken])
    sketch.add(draw_polygon(points), metal, 40, 16)
    ring = draw_disc(256, 256, outer * 0.72) - draw_disc(256, 256, outer * 0.66)
    sketch.colour *= 1 - 0.25 * ring[..., None]
    hole = outer * design.uniform(0.4, 0.52)
    for step in range(3):
        sketch.colour *= 1 - 0.3 * draw_disc(256, 256, hole + 9 - 3 * step)[..., None]
    sketch.cut(draw_disc(256, 256, hole))
    return photograph_object(sketch, seed, size, instance, loose=True, reach=outer)


def washer(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """A flat ring, lying anywhere: with a bite out of its rim, or open."""
    design = np.random.default_rng([seed])
    metal, sketch = choose_metal(design), Sketch()
    outer = design.uniform(110, 180)
    sketch.add(draw_disc(256, 256, outer), metal, 22, 9)
    sketch.cut(draw_disc(256, 256, outer * design.uniform(0.35, 0.6)))
    if variant == "chipped edge":
        sketch.cut(
            draw_polygon(
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
        sketch.cut(
            draw_polygon(np.array([[256, 256], [256 + 2 * outer, 160], [256 + 2 * outer, 300]]))
        )
    return photograph_object(sketch, seed, size, instance, loose=True, reach=outer)


def bottle_cap(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """A crimped cap with four printed signs: smeared print, or a part torn out."""
    design = np.random.default_rng([seed])
    sketch, colour = Sketch(), choose_shade(design, 0.5, 0.95, 1.0)
    teeth, outer = int(design.integers(18, 30)), design.uniform(140, 180)
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = outer + 6 * np.sign(np.sin(teeth * angle))
    sketch.add(
        draw_polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) + 256),
        colour,
        36,
        26,
    )
    ink = choose_shade(design, 0.1, 0.9, 0.8)
    ring = draw_disc(256, 256, outer * 0.7) - draw_disc(256, 256, outer * 0.64)
    sketch.tint(ring, ink, 0.9)
    letters = np.zeros((CANVAS, CANVAS), np.uint8)
    text = "".join(design.choice(list("ABCDEFHKLMNPRSTVXZ0123456789"), 4))
    cv2.putText(letters, text, (176, 276), cv2.FONT_HERSHEY_DUPLEX, 2.0, 255, 6, cv2.LINE_AA)
    if variant == "misprint":
        letters[:, 250:] = np.roll(letters, 22, axis=0)[:, 250:]
        letters[:, 190:225] = letters[:, 190:225] // 4
    if variant == "missing part":
        ring = draw_disc(256, 256, outer * 0.3)
        sketch.cut(
            draw_polygon(
                np.array(
                    [[256 + 0.75 * outer, 216], [600, 190], [600, 320], [256 + 0.8 * outer, 290]]
                )
            )
        )
    sketch.tint(letters / 255.0, ink, 1.0)
    return photograph_object(sketch, seed, size, instance, loose=True, reach=outer)


def capsule(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """Two halves of two colours, often with a number; one end may be pushed in."""
    design = np.random.default_rng([seed])
    sketch = Sketch()
    radius, half = design.uniform(55, 80), design.uniform(60, 110)
    first, second = choose_shade(design, 0.4, 0.95, 1.0), choose_shade(design, 0.7, 1.0, 0.5)
    body = np.clip(
        draw_disc(256 - half, 256, radius)
        + draw_disc(256 + half, 256, radius)
        + draw_box(256 - half, 256 - radius, 256 + half, 256 + radius),
        0,
        1,
    )
    sketch.add(body, second, 60, radius)
    right = draw_box(256 + design.uniform(-30, 20), 0, CANVAS, CANVAS) * body
    sketch.tint(right, first, 1.0)
    if design.random() < 0.6:
        letters = np.zeros((CANVAS, CANVAS), np.uint8)
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
        rows = np.arange(CANVAS, dtype=np.float32)
        map_x, map_y = np.meshgrid(rows, rows)
        map_y = map_y + 30 * np.exp(-((map_x - 256 - half) ** 2) / (2 * 45**2))
        for name in ("height", "colour", "inside"):
            setattr(sketch, name, cv2.remap(getattr(sketch, name), map_x, map_y, cv2.INTER_LINEAR))
    return photograph_object(sketch, seed, size, instance, loose=True, reach=half + radius)


def gear(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """A toothed wheel with bores: a tooth gone, or broken down."""
    design = np.random.default_rng([seed])
    metal, sketch = choose_metal(design), Sketch()
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
        draw_polygon(np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1) + 256),
        metal,
        24,
        8,
    )
    sketch.add(draw_disc(256, 256, outer * 0.62), metal * 0.8, 14, 10)
    for number in range(int(design.integers(0, 6))):
        place = 2 * np.pi * number / 5
        sketch.cut(
            draw_disc(
                256 + 0.42 * outer * np.cos(place), 256 + 0.42 * outer * np.sin(place), 0.1 * outer
            )
        )
    sketch.cut(draw_disc(256, 256, outer * design.uniform(0.14, 0.24)))
    return photograph_object(sketch, seed, size, instance, loose=True, reach=outer)


def connector(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """A housing with a row of pins in a fixed pose: one gone, bent or out of line."""
    design = np.random.default_rng([seed])
    sketch, metal = Sketch(), choose_metal(design)
    pins, half = int(design.integers(4, 10)), design.uniform(150, 210)
    sketch.add(
        draw_box(256 - half, 180, 256 + half, 290), choose_shade(design, 0.1, 0.9, 0.8), 30, 10
    )
    step = 2 * half / (pins + 1)
    odd = int(design.integers(pins))
    for pin in range(pins):
        x = 256 - half + step * (pin + 1)
        sketch.add(
            draw_box(x - step * 0.28, 200, x + step * 0.28, 270), np.full(3, 0.08, np.float32), 4, 4
        )
        if pin == odd and variant == "missing part":
            continue
        lean = step * 0.45 if pin == odd and variant == "bent" else 0.0
        if pin == odd and variant == "misplaced part":
            x += step * 0.35
        sketch.add(
            draw_polygon(
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
    return photograph_object(sketch, seed, size, instance, loose=False, reach=half)


def nut_kernel(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """A wrinkled brown kernel: each instance has a shape of its own."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    sketch = Sketch()
    angle = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    width, tall = (
        design.uniform(80, 130) * own.uniform(0.93, 1.07, 2) * [1, design.uniform(0.75, 1.2)]
    )
    lumps = sum(
        own.uniform(0, 0.03) * np.cos(order * angle + own.uniform(0, 6)) for order in (2, 3, 4, 5)
    )
    tip = design.uniform(0, 0.3) * np.exp(-((np.minimum(angle, 2 * np.pi - angle)) ** 2) / 0.05)
    radius = 1 + lumps + tip
    brown = np.array(
        [design.uniform(0.5, 0.9), design.uniform(0.35, 0.72), design.uniform(0.2, 0.5)], np.float32
    )
    sketch.add(
        draw_polygon(
            np.stack([width * radius * np.cos(angle), tall * radius * np.sin(angle)], 1) + 256
        ),
        brown,
        70,
        0.8 * min(width, tall),
    )
    wrinkles = 0.12 * design.random() * smooth_noise(
        own, CANVAS, 40, 8
    ) + 0.1 * design.random() * smooth_noise(own, CANVAS, 9)
    pale = 0.25 * design.random() * np.clip(smooth_noise(own, CANVAS, 14) - 1.2, 0, 1)
    sketch.colour = np.clip(
        sketch.colour * (1 + wrinkles[..., None]) + pale[..., None], 0, 1
    ).astype(np.float32)
    return photograph_object(sketch, seed, size, instance, loose=True, reach=1.3 * max(width, tall))


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
