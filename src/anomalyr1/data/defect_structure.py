"""Defects of structure on photographs: pieces gone, moved, bent, added or printed wrongly.

Each takes a canvas and returns float32 RGB (H, W, 3), or None where it found no place.
"""

from __future__ import annotations

import cv2
import numpy as np

from anomalyr1.data.defect_marks import (
    add_lip,
    ground_below,
    held_to_part,
    line_length,
    line_width,
    place_on,
    random_sign,
    shifted,
    texture_elsewhere,
    worn_line,
)
from anomalyr1.data.defect_shapes import (
    Canvas,
    Floats,
    blob,
    cover,
    curve,
    fill_from,
    grain,
    pick_pixel,
    shade,
    smooth_noise,
    soften,
    stroke,
    warp,
    window_of,
)


def missing_part(canvas: Canvas) -> Floats | None:
    """A piece gone: background shows in its place, or a recess where all is surface."""
    rng, picture = canvas.rng, canvas.picture.copy()
    boxy, full = bool(rng.random() < 0.4), bool(canvas.part.all())
    area = canvas.area_px(0.002, 0.1)
    rough = 0.04 if boxy else float(rng.uniform(0.04, 0.2))
    place = place_on(canvas)
    alpha = blob(canvas, place, area, 2.5, rough, 0.8 + canvas.feather, None, boxy)
    alpha = held_to_part(canvas, alpha, 2)
    ground = ground_below(canvas, alpha)
    if ground is None:
        return None
    window, content = ground
    cover(picture, alpha, window, content)
    if full or rng.random() < 0.4:
        reach = float(rng.uniform(1.0, 2.5)) * max(canvas.scale, 0.7)
        light = float(rng.uniform(0, 2 * np.pi))
        if full:
            shade(
                picture,
                random_sign(canvas, 0.75) * alpha,
                canvas.amplitude * rng.uniform(0.3, 0.8) + 4,
            )
        inner = np.clip(alpha - shifted(alpha, reach * np.cos(light), reach * np.sin(light)), 0, 1)
        shade(picture, -inner, 0.7 * canvas.amplitude)
    return picture


def misplaced_part(canvas: Canvas) -> Floats | None:
    """A piece cut out, turned and laid down near by; its old place is filled in."""
    rng, picture = canvas.rng, canvas.picture.copy()
    area, (x, y) = canvas.area_px(0.003, 0.05), place_on(canvas)
    boxy = bool(rng.random() < 0.5)
    alpha = blob(canvas, (x, y), area, 2.5, 0.04, 0.8 + canvas.feather, None, boxy)
    alpha = held_to_part(canvas, alpha, 1)
    size = float(np.sqrt(area))
    turn = float(rng.choice([rng.uniform(-25, 25), rng.uniform(30, 150)]))
    away = size * rng.uniform(0.15, 1.6)
    heading = float(rng.uniform(0, 2 * np.pi))
    matrix = np.asarray(cv2.getRotationMatrix2D((x, y), turn, 1.0), np.float64)
    matrix[:, 2] += away * np.array([np.cos(heading), np.sin(heading)])
    height, width = canvas.part.shape
    target = np.asarray(cv2.warpAffine(alpha, matrix, (width, height)), np.float32)
    window = window_of(target)
    ground = ground_below(canvas, alpha)
    if window is None or ground is None:
        return None
    full = bool(canvas.part.all())
    if full and rng.random() < 0.6:
        # the gap shows more of the same surface, not always its blurred colour
        cover(picture, alpha, *texture_elsewhere(canvas, ground[0]))
    else:
        cover(picture, alpha, *ground)
    if full or rng.random() < 0.6:
        shadow = soften(shifted(target, 2 * canvas.scale, 2 * canvas.scale), 1.5 * canvas.scale)
        shade(picture, -np.clip(shadow - target, 0, 1), 0.8 * canvas.amplitude)
    matrix[:, 2] -= [window[1].start, window[0].start]
    rows, columns = target[window].shape
    piece = cv2.warpAffine(
        canvas.picture, matrix, (columns, rows), borderMode=cv2.BORDER_REFLECT
    ).astype(np.float32)
    piece += random_sign(canvas) * (rng.uniform(0.05, 0.25) * canvas.amplitude + 3 * full)
    cover(picture, target, window, piece)
    return picture


def bent(canvas: Canvas) -> Floats | None:
    """A smooth local warp with the fold of light and dark that a bend throws."""
    rng, picture = canvas.rng, canvas.picture.copy()
    area = canvas.area_px(0.01, 0.055)
    radius = float(np.sqrt(area / np.pi))
    centre = place_on(canvas)
    if not canvas.part.all():
        # a bend is seen best where it moves the outline
        rim = cv2.morphologyEx(canvas.part.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3)))
        centre = pick_pixel(rim > 0, rng) or centre
    weight = blob(canvas, centre, 1.3 * area, 2.0, 0.05, 1.6 * radius)
    window = window_of(weight, 2)
    if window is None:
        return None
    turn = float(rng.uniform(0, 2 * np.pi))
    reach = min(canvas.between(0.02, 0.09) * min(canvas.part.shape), 0.55 * radius)
    move_x = reach * np.cos(turn) * weight[window]
    move_y = reach * np.sin(turn) * weight[window]
    moved = warp(canvas.picture, window, move_x, move_y)
    moved_part = np.clip(warp(canvas.part.astype(np.float32), window, move_x, move_y), 0, 1)
    if not canvas.part.all():
        # only the part moves: what it leaves shows the background, which stays still
        left = held_to_part(canvas, (weight > 0.01).astype(np.float32), 1)
        ground = ground_below(canvas, left)
        if ground is None:
            return None
        cover(picture, left, *ground)
        layer = cv2.GaussianBlur(moved_part, (0, 0), canvas.feather)[..., None]
        moved = picture[window] * (1.0 - layer) + moved * layer
    picture[window] = moved
    grid_y, grid_x = np.mgrid[window]
    distance = (grid_x - centre[0]) * np.cos(turn) + (grid_y - centre[1]) * np.sin(turn)
    wave = np.sin(np.clip(distance / (0.45 * radius), -np.pi, np.pi))
    fold = np.zeros(canvas.part.shape, np.float32)
    fold[window] = wave * weight[window] * moved_part
    strength = min(canvas.amplitude, 90.0) * float(rng.uniform(0.3, 0.8))
    shade(picture, np.clip(fold, -1, 0), strength)
    shade(picture, np.clip(fold, 0, 1), strength)
    return picture


def chipped_edge(canvas: Canvas) -> Floats | None:
    """A jagged bite out of an edge of the part, or out of the picture's border if it fills it."""
    rng, picture = canvas.rng, canvas.picture.copy()
    height, width = canvas.part.shape
    border = np.zeros((height, width), np.bool_)
    border[[0, -1], :] = True
    border[:, [0, -1]] = True
    full = bool(canvas.part.all())
    inner = cv2.erode(canvas.part.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1) > 0
    centre = pick_pixel(border if full else canvas.part & ~inner & ~border, rng)
    if centre is None:
        return None
    area = canvas.area_px(0.002, 0.06)
    alpha = blob(canvas, centre, area, 2.2, float(rng.uniform(0.1, 0.28)), 0.8 + canvas.feather)
    alpha = held_to_part(canvas, alpha, 2)
    ground = ground_below(canvas, alpha)
    if ground is None:
        return None
    window, content = ground
    if full:
        content = content * 0 + rng.choice([rng.uniform(5, 50), rng.uniform(200, 250)])
        content = content + grain(canvas, window, 0.8)
    if rng.random() < (0.25 if full else 0.65):
        cover(picture, alpha, window, content)
    else:
        # the break shows the inside of the material: another tone, rough
        rough = smooth_noise(alpha.shape, 5 * canvas.scale + 1, rng)
        shade(picture, random_sign(canvas, 0.4) * alpha, min(canvas.amplitude, 70.0))
        picture += (alpha * rough)[..., None] * 0.15 * canvas.amplitude
    turn, reach = float(rng.uniform(0, 2 * np.pi)), 1.5 * max(canvas.scale, 0.7)
    rim = np.clip(shifted(alpha, reach * np.cos(turn), reach * np.sin(turn)) - alpha, 0, 1)
    sign = random_sign(canvas, 0.4)
    shade(picture, sign * held_to_part(canvas, rim), 0.6 * canvas.amplitude)
    return picture


def thread_pull(canvas: Canvas) -> Floats:
    """A pulled thread along a row or column: texture drawn to it, a line standing out."""
    rng, picture = canvas.rng, canvas.picture.copy()
    centre, length = place_on(canvas), line_length(canvas, 0.1, 0.9)
    angle = float(rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.05))
    points = curve(centre, angle, length, rng.normal(0, 0.06), 0.015, rng)
    width = line_width(canvas, 1.2, 3.0)
    alpha = held_to_part(canvas, worn_line(canvas, points, width, 0.3))
    band = soften(alpha, 3.5 * max(canvas.scale, 0.6))
    window = window_of(band, 2)
    if window is None:
        return picture
    band /= float(band.max()) + 1e-6
    reach = canvas.between(1.5, 5.0) * max(canvas.scale, 0.6) * float(rng.choice([-1, 1]))
    move_x = -reach * np.sin(angle) * band[window]
    move_y = reach * np.cos(angle) * band[window]
    picture[window] = warp(canvas.picture, window, move_x, move_y)
    sign = random_sign(canvas, 0.4)
    # the weave makes a thread go over and under
    beat = 0.75 + 0.25 * smooth_noise(alpha.shape, 2.5 * max(canvas.scale, 0.7), rng)
    shade(picture, sign * np.clip(alpha * beat, 0, 1), canvas.amplitude)
    add_lip(canvas, picture, alpha, -np.sin(angle) * width, np.cos(angle) * width, -sign * 0.35)
    if rng.random() < 0.35:
        radius = rng.uniform(3, 8) * canvas.scale
        loop = curve((0, 0), 0, 2 * np.pi * radius, rng.uniform(4, 6.5), 0.03, rng)
        loop = (loop + points[-1]).astype(np.float32)
        shade(
            picture, sign * held_to_part(canvas, worn_line(canvas, loop, width)), canvas.amplitude
        )
    return picture


def _foreign_colour(canvas: Canvas, local: Floats) -> Floats:
    """A colour that stands off from `local` (3,) by the wanted amplitude or more."""
    rng = canvas.rng
    if canvas.monochrome or rng.random() < 0.5:
        tint = np.zeros(3) if canvas.monochrome else rng.normal(0, 12, 3)
        away = canvas.amplitude * rng.uniform(0.9, 1.3) + 8
        up = float(local.mean()) + away < 250 and rng.random() < 0.5
        up = up or float(local.mean()) - away < 5
        base = local.mean() + (away if up else -away)
        return np.asarray(np.clip(base + tint, 5, 250), np.float32)
    other = rng.uniform(10, 245, 3)
    share = min(canvas.amplitude / 90.0, 1.0)
    return np.asarray(local * (1 - share) + other * share, np.float32)


def contamination(canvas: Canvas) -> Floats:
    """Something lying on the part: a fibre, grains, a lump or a flake, with a tiny shadow."""
    rng, picture = canvas.rng, canvas.picture.copy()
    centre, style = place_on(canvas), float(rng.random())
    shape = canvas.part.shape
    if style < 0.35:
        points = curve(
            centre,
            rng.uniform(0, 6.3),
            line_length(canvas, 0.08, 0.5),
            rng.normal(0, 2.2),
            0.07,
            rng,
            60,
        )
        alpha = worn_line(canvas, points, line_width(canvas, 1.1, 3.0))
        alpha = np.clip(alpha * 1.3, 0, 1)
    elif style < 0.6:
        alpha = np.zeros(shape, np.float32)
        area, spread = canvas.area_px(0.0012, 0.02), canvas.between(6, 30) * canvas.scale
        count = int(rng.integers(2, 14))
        for _ in range(count):
            middle = (centre[0] + rng.normal(0, spread), centre[1] + rng.normal(0, spread))
            size = max(area / count * rng.uniform(0.4, 1.6), 5.0)
            alpha = np.maximum(alpha, blob(canvas, middle, size, 2, 0.15, 0.8 + canvas.feather))
    else:
        area, boxy = canvas.area_px(0.001, 0.05), bool(rng.random() < 0.3)
        rough = float(rng.uniform(0.04, 0.3))
        alpha = blob(canvas, centre, area, 3.0, rough, 0.8 + canvas.feather, None, boxy)
    window = window_of(alpha, 6)
    if window is None:
        return picture
    offset = rng.uniform(-2.5, 2.5, 2) * max(canvas.scale, 0.6)
    shadow = soften(shifted(alpha, float(offset[0]), float(offset[1])), 1.2 * canvas.scale + 0.3)
    shade(picture, -np.clip(shadow - 0.8 * alpha, 0, 1), 0.5 * canvas.amplitude)
    weight = alpha[window][..., None]
    local = (canvas.picture[window] * weight).sum(axis=(0, 1)) / (weight.sum() + 1e-6)
    colour = _foreign_colour(canvas, local.astype(np.float32))
    # the thing has a body: lit on one side, with its own unevenness
    body = soften(alpha, 2.0 * canvas.scale + 0.5)
    relief = shifted(body, float(offset[0]), float(offset[1])) - body
    texture = smooth_noise(shape, rng.uniform(2, 8) * canvas.scale, rng)
    shading = 1.0 - 0.5 * relief + 0.05 * texture
    content = colour * shading[window][..., None] + grain(canvas, window, rng.uniform(0.4, 1.0))
    cover(picture, alpha * float(rng.uniform(0.8, 1.0)), window, content.astype(np.float32))
    return picture


def _printed(canvas: Canvas, picture: Floats) -> None:
    """A few strokes of ink like letters, a bar code or a broken line."""
    rng, (x, y) = canvas.rng, place_on(canvas)
    size = canvas.between(0.03, 0.12) * min(canvas.part.shape)
    angle = float(rng.choice([0.0, np.pi / 2]) + rng.normal(0, 0.03))
    width = max(0.14 * size * rng.uniform(0.6, 1.3), 1.0)
    ink: Floats = np.zeros(canvas.part.shape, np.float32)
    for index in range(int(rng.integers(1, 6))):
        ahead = index * size * 0.85
        corner = np.array([x + ahead * np.cos(angle), y + ahead * np.sin(angle)])
        for _ in range(int(rng.integers(1, 4))):
            joints = corner + rng.integers(0, 3, (int(rng.integers(2, 5)), 2)) * 0.35 * size
            steps = np.linspace(0, len(joints) - 1, 24)
            places = np.stack(
                [np.interp(steps, range(len(joints)), joints[:, axis]) for axis in (0, 1)], axis=1
            ).astype(np.float32)
            level = np.full(24, rng.uniform(0.75, 1.0), np.float32)
            drawn = stroke(canvas.part.shape, places, np.full(24, width, np.float32), level)
            ink = np.maximum(ink, drawn)
    ink = held_to_part(canvas, soften(ink, 0.7 * canvas.feather))
    worn = np.clip(1.0 + 0.25 * smooth_noise(canvas.part.shape, 4 * canvas.scale, rng), 0.3, 1.0)
    shade(picture, random_sign(canvas, 0.75) * ink * worn, canvas.amplitude)


def misprint(canvas: Canvas) -> Floats | None:
    """Structure ghosted, smeared or rubbed out; or strokes printed where none belong."""
    rng, picture = canvas.rng, canvas.picture.copy()
    style = float(rng.random())
    if style < 0.35:
        _printed(canvas, picture)
        return picture
    area = canvas.area_px(0.008, 0.1)
    size = max(int(12 * canvas.scale), 3)
    inner = cv2.erode(canvas.part.astype(np.uint8), np.ones((size, size), np.uint8))
    detail = np.abs(canvas.residual[..., 1]) * inner
    busy = detail > np.percentile(detail[::3, ::3], 90)
    centre = pick_pixel(busy & (detail > 1), rng) or place_on(canvas)
    alpha = held_to_part(canvas, blob(canvas, centre, area, 2.5, 0.12, 3 + canvas.feather))
    reach = max(canvas.between(2.0, 10.0) * canvas.scale, 1.5)
    turn = float(rng.uniform(0, 2 * np.pi))
    pad = int(reach) + 2
    window = window_of(alpha, pad)
    if window is None:
        return None
    area_before = canvas.picture[window]
    if float(cv2.GaussianBlur(area_before, (0, 0), 1.5).std(axis=(0, 1)).mean()) < 12.0:
        # nothing is printed here that could be spoilt
        _printed(canvas, picture)
        return picture
    if style < 0.6:
        moves = np.array([[1, 0, reach * np.cos(turn)], [0, 1, reach * np.sin(turn)]])
        ghost = cv2.warpAffine(
            area_before, moves, area_before.shape[1::-1], borderMode=cv2.BORDER_REFLECT
        )
        darker = np.minimum(area_before, ghost) if rng.random() < 0.5 else ghost
        content = 0.35 * area_before + 0.65 * darker
    elif style < 0.8:
        length = 2 * int(reach) + 3
        kernel = np.zeros((length, length), np.float32)
        middle, arm = length // 2, reach
        start = (round(middle - arm * np.cos(turn)), round(middle - arm * np.sin(turn)))
        stop = (round(middle + arm * np.cos(turn)), round(middle + arm * np.sin(turn)))
        cv2.line(kernel, start, stop, 1.0, 1)
        content = cv2.filter2D(area_before, -1, kernel / kernel.sum()) + grain(canvas, window, 0.5)
    else:
        ground = fill_from(canvas.picture, alpha < 0.01, window)
        content = ground + grain(canvas, window, 0.7)
    cover(picture, alpha, window, np.asarray(content, np.float32))
    return picture
