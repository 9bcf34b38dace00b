"""Circuit boards that fill the picture: populated, and bare artwork as a scanner sees it.

Each drawer takes (seed, size, instance, variant) and gives the picture and where the part is.
"""

from __future__ import annotations

import cv2
import numpy as np

from anomalyr1.data.drawn_surfaces import Mask, Picture, Plane, photograph, smooth_noise

_BOARD_COLOURS = ((0.05, 0.3, 0.15), (0.05, 0.15, 0.4), (0.3, 0.05, 0.08), (0.06, 0.06, 0.07))


def circuit_board(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """Traces and chips on a coloured board: a chip gone, out of place or mislabelled."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    board = np.array(_BOARD_COLOURS[int(design.integers(4))], np.float32)
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
    shift = np.array([[1, 0, own.uniform(-1, 1)], [0, 1, own.uniform(-1, 1)]], np.float32)
    plane = cv2.warpAffine(
        picture.astype(np.float32) / 255, shift, (size, size), borderMode=cv2.BORDER_REPLICATE
    )
    return photograph(np.clip(plane, 0, 1), own, design), np.ones((size, size), bool)


def etched_board(seed: int, size: int, instance: int, variant: str | None) -> tuple[Picture, Mask]:
    """Black artwork on white, thresholded, as an optical scanner of etched boards gives it."""
    design, own = np.random.default_rng([seed]), np.random.default_rng([seed, instance + 1])
    copper = _traces(design, size, int(design.integers(5, 16)), wide=True)
    shift = np.array([[1, 0, own.uniform(-0.8, 0.8)], [0, 1, own.uniform(-0.8, 0.8)]], np.float32)
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
    return canvas.astype(np.float32) / np.float32(255)
