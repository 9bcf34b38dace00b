"""The report of an evaluation: one HTML file with numbers, curves and the worst mistakes.

It needs no network and runs no script. Whatever a model or a data set wrote is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomalyr1.evaluation.cases import pair_findings, read_verdict
from anomalyr1.evaluation.detection import bin_reliability, compute_roc_curve
from anomalyr1.evaluation.records import DEFINITIONS, explain_undefined
from anomalyr1.reporting.layers import encode_thumbnail
from anomalyr1.reporting.page import build_page_environment, write_page
from anomalyr1.types import Finding, Metric, Record

NUM_SCORE_BINS = 20
MISTAKES_PER_KIND = 8
THUMBNAIL_SIDE = 480

TITLES: dict[str, str] = {
    "verdict_balanced_accuracy": "Balanced accuracy",
    "normal_accuracy": "Normal accuracy",
    "anomalous_accuracy": "Anomalous accuracy",
    "image_auroc_model": "Image AUROC, model",
    "image_ap_model": "Average precision, model",
    "image_f1max_model": "F1-max, model",
    "calibration_error_model": "Calibration error, model",
    "image_auroc_detector": "Image AUROC, detector",
    "image_ap_detector": "Average precision, detector",
    "image_f1max_detector": "F1-max, detector",
    "calibration_error_detector": "Calibration error, detector",
    "box_mean_iou": "Box mean IoU",
    "box_accuracy_iou10": "Box accuracy, IoU 0.1",
    "box_accuracy_iou30": "Box accuracy, IoU 0.3",
    "box_accuracy_iou50": "Box accuracy, IoU 0.5",
    "box_precision_iou10": "Box precision, IoU 0.1",
    "box_precision_iou30": "Box precision, IoU 0.3",
    "box_precision_iou50": "Box precision, IoU 0.5",
    "label_accuracy": "Label accuracy",
    "label_chance": "Label accuracy by chance",
    "place_accuracy": "Place accuracy",
    "place_chance": "Place accuracy by chance",
    "pixel_auroc": "Pixel AUROC",
    "pixel_ap": "Pixel AP",
    "pixel_f1max": "Pixel F1-max",
    "aupro": "AUPRO (to 0.3)",
    "aupro_fpr05": "AUPRO (to 0.05)",
    "spro_fpr05": "sPRO (to 0.05)",
    "mask_iou": "Mask IoU",
    "unread_rate": "Unread",
}
"""How each metric of `DEFINITIONS` is called on the page."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A ROC curve: `points` is an SVG polyline in a 100 x 100 square, y down."""

    name: str
    style: str
    points: str
    auroc: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """Pictures a score bin over [0, 1]; bars are shares of the tallest bin of both classes."""

    name: str
    normal: tuple[float, ...]
    anomalous: tuple[float, ...]
    top: int
    n_missing: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """How often pictures of a score are anomalous: `points` are (mean score, share, n) a bin."""

    name: str
    style: str
    points: tuple[tuple[float, float, int], ...]
    top: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """A picture with a wrong or unread verdict; `picture` is a data URI or empty."""

    record: Record
    finding: Finding | None
    verdict: str
    picture: str
    has_overlay: bool


@dataclass(frozen=True, slots=True)
class MistakeGroup:
    """The worst mistakes of one kind, and how many there are in all."""

    title: str
    total: int
    shown: tuple[Mistake, ...]


def write_evaluation_report(
    out_dir: Path,
    metrics: Sequence[Metric],
    records: Sequence[Record],
    findings: Sequence[Finding],
    settings: Mapping[str, object],
) -> Path:
    """Write `out_dir`/report.html and return its path; an earlier one is replaced whole.

    `metrics` are those of `compute_metrics`. Pictures of mistakes are the finding's overlay if it
    lies in `out_dir`, else the record's picture, else none; they are embedded at most 480 pixels
    long, 8 of each kind of mistake. The settings' `overlap` is the page's first line. Raises
    InputError where records and findings do not pair.
    """
    pairs = pair_findings(records, findings)
    environment = build_page_environment()
    environment.globals["interval"] = _write_interval
    environment.globals["explain"] = explain_undefined
    by_key = {(metric.subset, metric.name): metric for metric in metrics}
    subsets = list(dict.fromkeys(metric.subset for metric in metrics))
    page = environment.get_template("evaluation.html.j2").render(
        names=[name for name in DEFINITIONS if any(key[1] == name for key in by_key)],
        titles=TITLES,
        definitions=DEFINITIONS,
        metrics=by_key,
        categories=[subset for subset in subsets if subset not in ("all", "mean")],
        num_pictures=len(pairs),
        num_anomalous=sum(record.label == "anomalous" for record, _ in pairs),
        num_unread=sum(read_verdict(finding) == "unread" for _, finding in pairs),
        curves=build_curves(pairs, by_key),
        histograms=build_histograms(pairs),
        reliabilities=build_reliabilities(pairs),
        groups=build_mistakes(out_dir, pairs),
        settings={str(name): str(value) for name, value in settings.items()},
    )
    path = out_dir / "report.html"
    write_page(path, [page])
    return path


def build_curves(
    pairs: Sequence[tuple[Record, Finding | None]], metrics: Mapping[tuple[str, str], Metric]
) -> list[Curve]:
    """ROC curves of the model's and the detector's score; without any score there is no curve."""
    is_anomalous = _classes(pairs)
    curves = []
    for source in ("model", "detector"):
        scores = _scores(pairs, source)
        if all(score is None for score in scores):
            continue
        points = compute_roc_curve(is_anomalous, scores)
        metric = metrics.get(("all", f"image_auroc_{source}"))
        if points:
            auroc = f"{metric.value:.3f}" if metric and metric.value is not None else ""
            path = " ".join(f"{100 * x:.2f},{100 - 100 * y:.2f}" for x, y in points)
            curves.append(Curve(source.capitalize(), source, path, auroc))
    return curves


def build_histograms(pairs: Sequence[tuple[Record, Finding | None]]) -> list[Histogram]:
    """Score histograms of both classes, model and detector; missing scores are only counted."""
    is_anomalous = _classes(pairs)
    histograms = []
    for source in ("model", "detector"):
        scores = _scores(pairs, source)
        known = np.array([score is not None for score in scores])
        if not known.any():
            continue
        values = np.array([0.0 if score is None else score for score in scores])
        edges = np.linspace(0, 1, NUM_SCORE_BINS + 1)
        normal, _ = np.histogram(values[known & ~is_anomalous], edges)
        anomalous, _ = np.histogram(values[known & is_anomalous], edges)
        top = int(max(normal.max(), anomalous.max(), 1))
        histograms.append(
            Histogram(
                name=f"{source.capitalize()} score",
                normal=tuple(float(count) / top for count in normal),
                anomalous=tuple(float(count) / top for count in anomalous),
                top=top,
                n_missing=int((~known).sum()),
            )
        )
    return histograms


def build_reliabilities(
    pairs: Sequence[tuple[Record, Finding | None]],
) -> list[Reliability]:
    """Reliability of the model's and the detector's score; none without a score."""
    is_anomalous = _classes(pairs)
    found = []
    for source in ("model", "detector"):
        points = tuple(bin_reliability(is_anomalous, _scores(pairs, source)))
        if points:
            top = max(n for *_, n in points)
            found.append(Reliability(source.capitalize(), source, points, top))
    return found


def build_mistakes(
    out_dir: Path, pairs: Sequence[tuple[Record, Finding | None]]
) -> list[MistakeGroup]:
    """Missed defects (lowest score first), false alarms (highest first) and unread pictures."""
    missed: list[tuple[Record, Finding | None]] = []
    alarms: list[tuple[Record, Finding | None]] = []
    unread: list[tuple[Record, Finding | None]] = []
    for record, finding in pairs:
        verdict = read_verdict(finding)
        if verdict == "unread":
            unread.append((record, finding))
        elif verdict != record.label:
            (missed if record.label == "anomalous" else alarms).append((record, finding))
    missed.sort(key=lambda pair: _known_score(pair[1]))
    alarms.sort(key=lambda pair: -_known_score(pair[1]))
    unread.sort(key=lambda pair: pair[0].label != "anomalous")
    groups = []
    for title, members in (
        ("Missed defects", missed),
        ("False alarms", alarms),
        ("Unread pictures", unread),
    ):
        shown = tuple(
            _build_mistake(out_dir, record, finding)
            for record, finding in members[:MISTAKES_PER_KIND]
        )
        groups.append(MistakeGroup(title, len(members), shown))
    return groups


def _build_mistake(out_dir: Path, record: Record, finding: Finding | None) -> Mistake:
    overlay = _find_overlay(out_dir, finding)
    picture = encode_thumbnail(overlay, THUMBNAIL_SIDE) if overlay is not None else ""
    has_overlay = bool(picture)
    return Mistake(
        record=record,
        finding=finding,
        verdict=read_verdict(finding),
        picture=picture or encode_thumbnail(record.image_path, THUMBNAIL_SIDE),
        has_overlay=has_overlay,
    )


def _find_overlay(out_dir: Path, finding: Finding | None) -> Path | None:
    if finding is None or finding.overlay is None:
        return None
    path = (out_dir / finding.overlay).resolve()
    # A findings file from elsewhere must not pull other files of this machine into the page.
    return path if path.is_relative_to(out_dir.resolve()) and path.is_file() else None


def _scores(pairs: Sequence[tuple[Record, Finding | None]], source: str) -> list[float | None]:
    if source == "detector":
        return [finding.detector_score if finding else None for _, finding in pairs]
    return [
        finding.anomaly_score if finding and read_verdict(finding) != "unread" else None
        for _, finding in pairs
    ]


def _known_score(finding: Finding | None) -> float:
    score = finding.anomaly_score if finding is not None else None
    return 0.5 if score is None else score


def _classes(pairs: Sequence[tuple[Record, Finding | None]]) -> NDArray[np.bool_]:
    return np.array([record.label == "anomalous" for record, _ in pairs], dtype=bool)


def _write_interval(metric: Metric) -> str:
    if metric.ci_low is None or metric.ci_high is None:
        return ""
    return f"{100 * metric.ci_low:.1f} to {100 * metric.ci_high:.1f}"
