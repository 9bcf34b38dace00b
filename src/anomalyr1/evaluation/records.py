"""Records and their findings to metrics, for all pictures, each category and the categories' mean.

Unread is wrong everywhere: a finding with verdict "unread" or with an error, and a record without
a finding, count as unread. No number is made up: what is undefined is None.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from anomalyr1.evaluation.cases import (
    Case,
    MapLoader,
    MaskLoader,
    build_case,
    count_all_pixels,
    name_subsets,
    pair_findings,
)
from anomalyr1.evaluation.estimates import (
    UNDEFINED,
    Estimate,
    average_estimates,
    build_metric,
    estimate_boxes,
    estimate_masks,
    estimate_pixels,
    estimate_scores,
    estimate_verdicts,
    estimate_words,
)
from anomalyr1.types import Finding, Metric, Record

DEFINITIONS: dict[str, str] = {
    "verdict_balanced_accuracy": "mean of the accuracy on normal and on anomalous pictures",
    "normal_accuracy": "share of normal pictures with verdict normal",
    "anomalous_accuracy": "share of anomalous pictures with verdict anomalous",
    "image_auroc_model": "area under the ROC curve of the model's score",
    "image_ap_model": "average precision of the model's score",
    "image_f1max_model": "highest F1 that any threshold on the model's score reaches",
    "calibration_error_model": "expected calibration error of the model's score, 10 bins",
    "image_auroc_detector": "area under the ROC curve of the detector's score",
    "image_ap_detector": "average precision of the detector's score",
    "image_f1max_detector": "highest F1 that any threshold on the detector's score reaches",
    "calibration_error_detector": "expected calibration error of the detector's score, 10 bins",
    "box_mean_iou": "mean IoU of ground-truth boxes with their match, 0 where there is none",
    "box_accuracy_iou10": "share of ground-truth boxes matched one to one with IoU >= 0.1",
    "box_accuracy_iou30": "share of ground-truth boxes matched one to one with IoU >= 0.3",
    "box_accuracy_iou50": "share of ground-truth boxes matched one to one with IoU >= 0.5",
    "box_precision_iou10": "share of predicted boxes matched one to one with IoU >= 0.1",
    "box_precision_iou30": "share of predicted boxes matched one to one with IoU >= 0.3",
    "box_precision_iou50": "share of predicted boxes matched one to one with IoU >= 0.5",
    "label_accuracy": "share of ground-truth boxes of known kind, of those that a predicted box "
    "meets (IoU >= 0.1), whose kind its label names",
    "label_chance": "label accuracy of always naming the commonest of those kinds",
    "place_accuracy": "share of anomalous pictures with ground-truth boxes whose reasoning names "
    "places, each of which holds one",
    "place_chance": "place accuracy of always naming the commonest of those boxes' places",
    "pixel_auroc": "area under the ROC curve over all pixels of the anomaly maps",
    "pixel_ap": "average precision over all pixels of the anomaly maps",
    "pixel_f1max": "highest F1 over all pixels that any threshold on the maps reaches",
    "aupro": "area under the per-region overlap curve up to a false positive rate of 0.3",
    "aupro_fpr05": "area under the per-region overlap curve up to a false positive rate of 0.05",
    "spro_fpr05": "area under the saturated overlap curve (MVTec LOCO) up to a rate of 0.05",
    "mask_iou": "mean IoU of the united predicted masks and the true mask, anomalous pictures",
    "unread_rate": "share of pictures without a readable verdict",
}
"""Every metric's name, in the order of the report, with what it is."""

NEEDS: dict[str, str] = {
    "normal_accuracy": "a normal picture",
    "anomalous_accuracy": "an anomalous picture",
    "verdict_balanced_accuracy": "normal and anomalous pictures",
    "image": "normal and anomalous pictures, and a score in at least one finding",
    "calibration": "a score in at least one finding",
    "box_mean": "records with ground-truth boxes",
    "box_accuracy": "records with ground-truth boxes",
    "box_precision": "predicted boxes on pictures whose true boxes are known",
    "label": "ground-truth boxes of known kind that a predicted box meets",
    "place": "anomalous pictures with ground-truth boxes",
    "pixel": "anomaly maps and ground-truth masks",
    "aupro": "anomaly maps and ground-truth masks",
    "spro": "anomaly maps, and masks with saturation areas",
    "mask_iou": "anomalous pictures with a ground-truth mask",
    "unread_rate": "a picture",
}
"""What a metric cannot do without, by the start of its name: the reason when it is None."""


def explain_undefined(metric: Metric) -> str:
    """Why a metric has no value; empty if it has one.

    >>> explain_undefined(Metric("normal_accuracy", "all", None, 0))
    'undefined: needs a normal picture'
    """
    if metric.value is not None:
        return ""
    needs = [text for start, text in NEEDS.items() if metric.name.startswith(start)]
    return f"undefined: needs {needs[0]}" if needs else "undefined"


def compute_metrics(
    records: Sequence[Record],
    findings: Sequence[Finding],
    *,
    maps: MapLoader,
    masks: MaskLoader,
    seed: int = 0,
) -> list[Metric]:
    """All metrics of `DEFINITIONS` for subset "all", "mean" (over categories) and each category.

    `maps` gives a finding's anomaly map, float (h, w) in [0, 1] covering the whole picture; `masks`
    the union of its predicted masks, bool (H, W) at the picture's size; both None for none. They
    are called once a picture and nothing of that size is kept.

    The detector's score and map count whatever became of the model's verdict. A missing score or
    map is ranked worst for its class; where no finding of the run has one, the metric is None. n is
    the number of pictures, but of true boxes for box_accuracy, of those among them that have a kind
    and are met by a predicted box for label_accuracy (see `words.tally_words`), and of predicted
    boxes for box_precision (those on normal pictures are wrong). Anomalous pictures without regions
    have no part in metrics of boxes and words, those without a mask none in pixel metrics.
    Intervals are Wilson's for plain shares of pictures and percentile bootstraps over pictures,
    within class, for the rest.

    Raises InputError for a record without label, a finding without record, or either twice.
    """
    cases = [
        build_case(record, finding, masks) for record, finding in pair_findings(records, findings)
    ]
    names = name_subsets([case.record for case in cases])
    sums, pixels = count_all_pixels(cases, names, maps)
    scored = {
        "model": any(case.model_score is not None for case in cases),
        "detector": any(case.detector_score is not None for case in cases),
    }
    subsets = {"all": list(range(len(cases)))}
    for index, name in enumerate(names):
        subsets.setdefault(name, []).append(index)
    by_subset: dict[str, dict[str, Estimate]] = {}
    for position, (subset, indices) in enumerate(subsets.items()):
        chosen = [cases[index] for index in indices]
        chosen_seed = (seed, position)
        by_subset[subset] = _estimate_cases(chosen, scored, chosen_seed) | estimate_pixels(
            chosen, sums.get(subset), [pixels.get(index) for index in indices], chosen_seed
        )
    categories = sorted(subset for subset in subsets if subset != "all")
    by_subset["mean"] = {
        name: average_estimates([by_subset[subset][name] for subset in categories])
        for name in DEFINITIONS
    }
    return [
        build_metric(name, subset, by_subset[subset][name])
        for subset in ("all", "mean", *categories)
        for name in DEFINITIONS
    ]


def write_metrics(
    out_dir: Path, metrics: Sequence[Metric], settings: Mapping[str, object]
) -> tuple[Path, Path]:
    """Write metrics.json (settings, definitions, metrics) and metrics.csv (a row a metric).

    An undefined value is null in JSON and empty in CSV, with the reason in `note`.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    rows = [asdict(metric) | {"note": explain_undefined(metric)} for metric in metrics]
    json_path, csv_path = out_dir / "metrics.json", out_dir / "metrics.csv"
    document = {"settings": dict(settings), "definitions": DEFINITIONS, "metrics": rows}
    text = json.dumps(document, indent=2, default=str, allow_nan=False, ensure_ascii=False)
    json_path.write_text(text + "\n", encoding="utf-8")
    with csv_path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [entry.name for entry in fields(Metric)] + ["note"])
        writer.writeheader()
        writer.writerows(rows)
    return json_path, csv_path


def _estimate_cases(
    cases: Sequence[Case], scored: Mapping[str, bool], seed: Sequence[int]
) -> dict[str, Estimate]:
    estimates = estimate_verdicts(cases, seed)
    sources = {
        "model": [case.model_score for case in cases],
        "detector": [case.detector_score for case in cases],
    }
    for source, scores in sources.items():
        if scored[source]:
            estimates |= estimate_scores(cases, scores, source, seed)
        else:
            names = (f"image_{kind}_{source}" for kind in ("auroc", "ap", "f1max"))
            estimates |= dict.fromkeys((*names, f"calibration_error_{source}"), UNDEFINED)
    estimates |= estimate_boxes(cases, seed) | estimate_words(cases, seed)
    return estimates | estimate_masks(cases, seed)
