"""The report of an inspection: one HTML file with every picture in it, no network, no server.

Everything a model or a file name says is escaped, and the page's policy lets only its own script
run. Pictures that cannot be read are shown as missing, never left out.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePath

from anomalyr1.reporting.layers import build_heat_layer, build_mask_layer, build_photo
from anomalyr1.reporting.overlays import DEFECT_COLOURS
from anomalyr1.reporting.page import build_page_environment, clean, write_page
from anomalyr1.types import Finding

MAX_CARDS = 10_000
"""Pictures in one report; beyond, a browser no longer opens the file."""

THUMBNAIL_SIDES = ((500, 640), (2_000, 400), (MAX_CARDS, 200))
"""Longest side in pixels of the pictures in a report, by the number of findings up to which it
holds: the file stays below some 150 MB."""

_DISPLAY_WH = (340, 255)


@dataclass(frozen=True, slots=True)
class Frame:
    """A defect as drawn and listed. `box_xywh` is in pixels of the original picture.

    Its number stands at `tag_xy` (original pixels), moved by `tag_dy` display pixels: the page can
    then keep the number's size when it enlarges the picture.
    """

    number: int
    colour: str
    label: str
    description: str
    confidence: float | None
    box_xywh: tuple[float, float, float, float]
    tag_xy: tuple[float, float]
    tag_dy: int


@dataclass(frozen=True, slots=True)
class Card:
    """All the template needs of one finding. Pictures are data URIs, empty where there is none.

    `rank` orders by score with the unknown in its place: an unread picture stands between the
    anomalous and the normal. `unit` is one display pixel in pixels of the original picture.
    """

    number: int
    finding: Finding
    name: str
    folder: str
    rank: float
    size_wh: tuple[int, int]
    unit: float
    photo: str
    masks: str
    heat: str
    reference: str
    frames: tuple[Frame, ...]
    reasoning: str
    raw_text: str
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Summary:
    """Counts over all findings, shown or not. `median_seconds` is None without any finding."""

    n: int
    n_shown: int
    n_anomalous: int
    n_normal: int
    n_unread: int
    n_errors: int
    median_seconds: float | None
    models: tuple[str, ...]
    categories: tuple[str, ...]
    written: str


def write_report(
    out_dir: Path,
    findings: Sequence[Finding],
    settings: Mapping[str, object],
    image_root: Path | None = None,
    summary: Summary | None = None,
) -> Path:
    """Write `out_dir`/report.html for the findings of a run; returns its path.

    Photographs are read from `finding.image`: as given, else below `image_root`, else below
    `out_dir`. Masks (8-bit grey PNG) and maps (8 or 16 bits) are read below it. `settings` are
    shown as a table; "model" and "hint" also at the top. More than `MAX_CARDS` findings: those
    with the highest scores are shown and the page says so. `summary` counts what the findings are a
    selection of; without it, they are all there is. Raises InputError where the file cannot
    be written; an older report is then left as it was.
    """
    ordered = sorted(findings, key=compute_rank, reverse=True)
    shown = ordered[:MAX_CARDS]
    side = next((side for limit, side in THUMBNAIL_SIDES if len(shown) <= limit), 200)
    roots = (Path(), *([] if image_root is None else [image_root]), out_dir)
    template = build_page_environment().get_template("inspection.html.j2")
    # Cards are built as the page is written: ten thousand pictures never lie in memory at once.
    parts = template.generate(
        summary=summary or _build_summary(findings, len(shown)),
        cards=_build_cards(shown, out_dir, roots, side),
        has_maps=any(finding.anomaly_map for finding in shown),
        settings={clean(str(name)): clean(str(value)) for name, value in settings.items()},
    )
    path = out_dir / "report.html"
    write_page(path, parts)
    return path


def tell_time() -> str:
    """Now, as a report says when it was written."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def compute_rank(finding: Finding) -> float:
    """The model's score, or where it gave none: 1 for anomalous, 0 for normal, 0.5 for unread.

    >>> compute_rank(Finding("a", "a.png", "unread"))
    0.5
    """
    if finding.anomaly_score is not None and math.isfinite(finding.anomaly_score):
        return finding.anomaly_score
    return {"anomalous": 1.0, "normal": 0.0}.get(finding.verdict, 0.5)


def _build_summary(findings: Sequence[Finding], n_shown: int) -> Summary:
    verdicts = Counter(finding.verdict for finding in findings)
    seconds = [finding.seconds for finding in findings]
    return Summary(
        n=len(findings),
        n_shown=n_shown,
        n_anomalous=verdicts["anomalous"],
        n_normal=verdicts["normal"],
        n_unread=verdicts["unread"],
        n_errors=sum(finding.error is not None for finding in findings),
        median_seconds=statistics.median(seconds) if seconds else None,
        models=tuple(sorted({clean(finding.model) for finding in findings if finding.model})),
        categories=tuple(
            sorted({clean(finding.category) for finding in findings if finding.category})
        ),
        written=tell_time(),
    )


def _build_cards(
    findings: Sequence[Finding], out_dir: Path, roots: Sequence[Path], side: int
) -> Iterator[Card]:
    for number, finding in enumerate(findings, start=1):
        yield _build_card(number, finding, out_dir, roots, side)


def _build_card(
    number: int, finding: Finding, out_dir: Path, roots: Sequence[Path], side: int
) -> Card:
    problems = [] if finding.error is None else [finding.error]
    photo, photo_wh = build_photo(finding.image, roots, side, problems)
    size_wh = finding.image_size_wh or photo_wh or _DISPLAY_WH
    if photo_wh is not None and photo_wh != size_wh:
        problems.append(
            f"The picture is now {photo_wh[0]} x {photo_wh[1]} pixels, it was {size_wh[0]} x "
            f"{size_wh[1]} when inspected: marks may be in the wrong place."
        )
    reference = ""
    if finding.reference is not None:
        reference, _ = build_photo(finding.reference, roots, min(side, 320), problems)
    unit = max(size_wh[0] / _DISPLAY_WH[0], size_wh[1] / _DISPLAY_WH[1])
    path = PurePath(finding.image)
    folder = clean(str(path.parent))
    return Card(
        number=number,
        finding=finding,
        name=clean(path.name) or "unnamed picture",
        folder="" if folder == "." else folder,
        rank=compute_rank(finding),
        size_wh=size_wh,
        unit=unit,
        photo=photo,
        masks=build_mask_layer(finding, out_dir, size_wh, side, problems),
        heat=build_heat_layer(finding, out_dir, size_wh, min(side, 256), problems),
        reference=reference,
        frames=_build_frames(finding, size_wh, unit),
        reasoning=clean(finding.reasoning),
        raw_text=clean(finding.raw_text),
        problems=tuple(clean(problem) for problem in problems),
    )


def _build_frames(finding: Finding, size_wh: tuple[int, int], unit: float) -> tuple[Frame, ...]:
    frames = []
    for index, defect in enumerate(finding.defects):
        left, right = sorted(min(max(side, 0.0), size_wh[0]) for side in defect.box_xyxy[0::2])
        top, bottom = sorted(min(max(side, 0.0), size_wh[1]) for side in defect.box_xyxy[1::2])
        above = top >= 20 * unit
        anchor_y = top if above else min(bottom, size_wh[1] - 20 * unit)
        frames.append(
            Frame(
                number=index + 1,
                colour="#{:02x}{:02x}{:02x}".format(*DEFECT_COLOURS[index % len(DEFECT_COLOURS)]),
                label=clean(defect.label) or "defect",
                description=clean(defect.description),
                confidence=defect.confidence,
                box_xywh=(left, top, right - left, bottom - top),
                tag_xy=(max(0.0, min(left, size_wh[0] - 20 * unit)), max(0.0, anchor_y)),
                tag_dy=-20 if above else 2,
            )
        )
    return tuple(frames)
