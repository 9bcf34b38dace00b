"""Records and findings to metrics: what is unread, absent or without label."""

import csv
import json
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from builders import make_picture
from PIL import Image

from anomalyr1.evaluation.cases import build_case, count_all_pixels, pair_findings
from anomalyr1.evaluation.intervals import bootstrap
from anomalyr1.evaluation.records import (
    DEFINITIONS,
    compute_metrics,
    explain_undefined,
    write_metrics,
)
from anomalyr1.evaluation.report import write_evaluation_report
from anomalyr1.types import Defect, Finding, InputError, MaskPart, Metric, Record, Region

SIZE = (8, 6)
BOX = (1.0, 1.0, 4.0, 4.0)


def make_record(record_id, label="normal", category="nut", **fields):
    return Record(record_id, Path(f"{record_id}.png"), label=label, category=category, **fields)


def make_finding(record_id, verdict="normal", score=0.1, **fields):
    return Finding(
        record_id, f"{record_id}.png", verdict, anomaly_score=score, image_size_wh=SIZE, **fields
    )


def nothing(finding):
    return None


def measure(records, findings, maps=nothing, masks=nothing):
    metrics = compute_metrics(records, findings, maps=maps, masks=masks)
    return {(metric.subset, metric.name): metric for metric in metrics}


def make_pairs(n=20, category="nut", score_of=lambda index, is_anomalous: 0.2 + 0.5 * is_anomalous):
    records, findings = [], []
    for index in range(n):
        is_anomalous = index % 2 == 1
        label = "anomalous" if is_anomalous else "normal"
        record_id = f"{category}-{index:03d}"
        records.append(make_record(record_id, label, category))
        findings.append(make_finding(record_id, label, score_of(index, is_anomalous)))
    return records, findings


def make_masked(tmp_path):
    mask = np.zeros((SIZE[1], SIZE[0]), dtype=bool)
    mask[1:4, 1:4] = True
    path = tmp_path / "mask.png"
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)
    records = [
        make_record("a", "anomalous", mask_path=path, regions=(Region(BOX),)),
        make_record("b"),
    ]
    defects = (Defect("scratch", "", BOX),)
    findings = [make_finding("a", "anomalous", 0.9, defects=defects), make_finding("b")]
    return records, findings, mask


def test_every_metric_is_given_for_all_the_mean_and_each_category():
    nuts, bolts = make_pairs(), make_pairs(category="bolt")
    metrics = compute_metrics(nuts[0] + bolts[0], nuts[1] + bolts[1], maps=nothing, masks=nothing)
    assert [metric.name for metric in metrics] == list(DEFINITIONS) * 4
    subsets = list(dict.fromkeys(metric.subset for metric in metrics))
    assert subsets == ["all", "mean", "bolt", "nut"]


def test_perfect_findings_score_one_with_an_honest_wilson_interval():
    measured = measure(*make_pairs(20))
    for name in ("verdict_balanced_accuracy", "image_auroc_model", "image_ap_model"):
        assert measured["all", name].value == 1.0
    share = measured["all", "normal_accuracy"]
    assert (share.n, share.ci_high) == (10, 1.0)
    assert share.ci_low == pytest.approx(0.7225, abs=1e-4)
    assert measured["all", "unread_rate"].value == 0.0


def test_the_interval_of_the_calibration_error_is_that_of_resampled_pictures(tmp_path):
    rng = np.random.default_rng(0)
    records, findings = make_pairs(40, score_of=lambda index, _: round(float(rng.random()), 3))
    findings[0] = replace(findings[0], anomaly_score=None)
    cases = [
        (record.label == "anomalous", finding.anomaly_score)
        for record, finding in zip(records[1:], findings[1:], strict=True)
    ]

    def measure_slowly(drawn):
        bins = [[] for _ in range(10)]
        for is_anomalous, score in drawn:
            bins[min(int(10 * score), 9)].append((is_anomalous, score))
        means = [(len(inside), np.mean(inside, axis=0)) for inside in bins if inside]
        return sum(n * abs(share - score) for n, (share, score) in means) / len(drawn)

    def measure_each(weights):
        drawn = [np.repeat(np.arange(39), row.astype(int)) for row in weights]
        return np.array([measure_slowly([cases[place] for place in row]) for row in drawn])

    # compute_metrics draws a group's pictures with its seed and the group's place: 0 is "all".
    resampled = bootstrap(measure_each, np.array([one for one, _ in cases]), seed=(0, 0))
    expected = (measure_slowly(cases), *np.percentile(resampled, [2.5, 97.5]))
    metrics = compute_metrics(records, findings, maps=nothing, masks=nothing)
    (metric,) = (
        one for one in metrics if (one.subset, one.name) == ("all", "calibration_error_model")
    )
    assert (metric.value, metric.ci_low, metric.ci_high) == pytest.approx(expected)
    assert (metric.n, metric.n_unreadable) == (39, 1)
    json_path, csv_path = write_metrics(tmp_path, metrics, {})
    with csv_path.open(newline="") as stream:
        rows = [*json.loads(json_path.read_text())["metrics"], *csv.DictReader(stream)]
    told = [
        (float(row["ci_low"]), float(row["ci_high"]))
        for row in rows
        if (row["subset"], row["name"]) == ("all", metric.name)
    ]
    assert told == [(metric.ci_low, metric.ci_high)] * 2
    page = write_evaluation_report(tmp_path, metrics, records, findings, {}).read_text()
    assert f"{100 * metric.ci_low:.1f} to {100 * metric.ci_high:.1f}" in page


@pytest.mark.parametrize("how", ["verdict", "error", "absent"])
@pytest.mark.parametrize("position", [0, 1])
def test_an_unread_answer_counts_as_wrong_and_is_counted(how, position):
    records, findings = make_pairs(10)
    if how == "absent":
        del findings[position]
    elif how == "error":
        findings[position] = replace(findings[position], error="out of memory")
    else:
        findings[position] = replace(findings[position], verdict="unread")
    measured = measure(records, findings)
    assert measured["all", "unread_rate"].value == pytest.approx(0.1)
    for name in ("verdict_balanced_accuracy", "image_auroc_model", "image_ap_model"):
        assert measured["all", name].value < 1.0
        assert measured["all", name].n_unreadable == 1
    assert measured["all", "image_auroc_model"].value == pytest.approx(0.8)


def test_an_unread_verdict_does_not_take_away_the_detector_score():
    records, findings = make_pairs(10)
    findings = [replace(each, detector_score=each.anomaly_score) for each in findings]
    findings[3] = replace(findings[3], verdict="unread")
    measured = measure(records, findings)
    assert measured["all", "image_auroc_detector"].value == 1.0
    assert measured["all", "image_auroc_detector"].n_unreadable == 0


def test_scores_nobody_gave_are_undefined_but_missing_in_one_category_are_worst():
    nuts = make_pairs(score_of=lambda index, is_anomalous: None)
    bolts = make_pairs(category="bolt")
    assert measure(*nuts)["all", "image_auroc_model"].value is None
    measured = measure(nuts[0] + bolts[0], nuts[1] + bolts[1])
    assert measured["nut", "image_auroc_model"].value == 0.0
    assert measured["mean", "image_auroc_model"].value == 0.5


def test_a_category_of_one_class_is_undefined_and_left_out_of_the_mean():
    nuts = make_pairs()
    records = [*nuts[0], make_record("bolt-1", category="bolt")]
    findings = [*nuts[1], make_finding("bolt-1")]
    measured = measure(records, findings)
    undefined = measured["bolt", "verdict_balanced_accuracy"]
    assert undefined.value is None
    assert explain_undefined(undefined) == "undefined: needs normal and anomalous pictures"
    assert measured["mean", "verdict_balanced_accuracy"].value == 1.0
    assert measured["mean", "verdict_balanced_accuracy"].n == 20
    assert measured["all", "normal_accuracy"].n == 11


def test_metrics_ignore_the_order_of_records_and_findings():
    records, findings = make_pairs(30, score_of=lambda index, _: (index * 7 % 30) / 30)
    expected = compute_metrics(records, findings, maps=nothing, masks=nothing)
    turned = compute_metrics(records[::-1], findings[::-1], maps=nothing, masks=nothing)
    assert turned == expected


def test_boxes_masks_and_maps_of_a_perfect_run_score_one(tmp_path):
    records, findings, mask = make_masked(tmp_path)
    blank = np.zeros(mask.shape)
    measured = measure(
        records,
        findings,
        maps=lambda finding: mask * 1.0 if finding.record_id == "a" else blank,
        masks=lambda finding: mask,
    )
    names = ("box_accuracy_iou10", "box_precision_iou50", "pixel_auroc", "aupro", "mask_iou")
    assert [measured["nut", name].value for name in names] == pytest.approx([1.0] * 5)
    assert [measured["nut", name].n for name in names] == [1, 1, 2, 2, 1]


def test_a_box_on_a_normal_picture_lowers_precision_only(tmp_path):
    records, findings, _ = make_masked(tmp_path)
    findings[1] = replace(findings[1], defects=findings[0].defects)
    measured = measure(records, findings)
    assert measured["all", "box_accuracy_iou50"].value == 1.0
    assert measured["all", "box_precision_iou50"].value == 0.5
    assert measured["all", "box_precision_iou50"].n == 2


def match_by_trying(predicted, truth):
    """The IoUs of the pairs whose sum is largest, of all ways to pair boxes one to one."""

    def compute_iou(first, other):
        left, top = np.maximum(first[:2], other[:2])
        right, bottom = np.minimum(first[2:], other[2:])
        shared = max(0.0, right - left) * max(0.0, bottom - top)
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (first, other)]
        return shared / (sum(areas) - shared)

    few, many = sorted((predicted, truth), key=len)
    ways = [
        [compute_iou(box, many[index]) for box, index in zip(few, order, strict=True)]
        for order in permutations(range(len(many)), len(few))
    ]
    return max(ways, key=sum)


@pytest.mark.parametrize("seed", range(3))
def test_box_figures_of_random_boxes_are_those_of_trying_every_pairing(seed):
    rng = np.random.default_rng(seed)

    def draw_boxes(most):
        corners = rng.integers(0, 5, (rng.integers(0, most), 2))
        sizes = rng.integers(1, 4, corners.shape)
        return [tuple(map(float, row)) for row in np.hstack([corners, corners + sizes])]

    records, findings, ious, num_true, num_predicted = [], [], [], 0, 0
    for index in range(30):
        truth, predicted = draw_boxes(5), draw_boxes(5)
        label = "anomalous" if truth else "normal"
        records.append(make_record(str(index), label, regions=tuple(map(Region, truth))))
        defects = tuple(Defect("scratch", "", box) for box in predicted)
        findings.append(make_finding(str(index), "anomalous", 0.9, defects=defects))
        ious += match_by_trying(predicted, truth)
        num_true, num_predicted = num_true + len(truth), num_predicted + len(predicted)
    measured = measure(records, findings)
    assert measured["all", "box_mean_iou"].value == pytest.approx(sum(ious) / num_true)
    for limit in (10, 30, 50):
        matched = sum(iou >= limit / 100 for iou in ious)
        recall, precision = (
            measured["all", f"box_{name}_iou{limit}"].value for name in ("accuracy", "precision")
        )
        assert recall == pytest.approx(matched / num_true)
        assert precision == pytest.approx(matched / num_predicted)


def test_an_unread_finding_has_no_boxes_and_no_mask(tmp_path):
    records, findings, mask = make_masked(tmp_path)
    findings[0] = replace(findings[0], verdict="unread")
    measured = measure(records, findings, masks=lambda finding: mask)
    assert measured["all", "box_accuracy_iou10"].value == 0.0
    assert measured["all", "box_accuracy_iou10"].n_unreadable == 1
    assert measured["all", "box_precision_iou10"].value is None
    assert measured["all", "mask_iou"].value == 0.0


def test_one_missing_map_is_worst_and_no_map_at_all_is_undefined(tmp_path):
    records, findings, mask = make_masked(tmp_path)
    full = np.zeros(mask.shape)
    some = measure(records, findings, maps=lambda each: full if each.record_id == "b" else None)
    assert some["all", "pixel_auroc"].value < 0.5
    assert some["all", "pixel_auroc"].n_unreadable == 1
    assert measure(records, findings)["all", "pixel_auroc"].value is None


def test_an_anomalous_picture_whose_mask_is_empty_is_refused_by_name(tmp_path):
    records, findings, mask = make_masked(tmp_path)
    Image.fromarray(np.zeros(mask.shape, dtype=np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(InputError, match=r"mask\.png holds no defect pixel, yet record a"):
        measure(records, findings)


def test_a_map_that_cannot_be_used_names_the_record(tmp_path):
    records, findings, mask = make_masked(tmp_path)
    with pytest.raises(InputError, match="record a: anomaly map ranges from 0 to 255"):
        measure(records, findings, maps=lambda finding: mask * 255.0)


@pytest.mark.parametrize(
    ("records", "findings", "message"),
    [
        ([make_record("a", None)], [make_finding("a")], "record a .* has no label"),
        ([make_record("a"), make_record("a")], [], "record a is listed twice"),
        ([make_record("a")], [make_finding("a"), make_finding("a")], "two findings for record a"),
        ([make_record("a")], [make_finding("b")], "finding b has no record"),
        ([], [], "no record"),
    ],
)
def test_records_and_findings_that_do_not_pair_are_refused(records, findings, message):
    with pytest.raises(InputError, match=message):
        measure(records, findings)


def test_the_same_category_of_two_data_sets_stays_apart():
    records = [
        make_record("a", dataset="one"),
        make_record("b", dataset="two"),
    ]
    measured = measure(records, [make_finding("a"), make_finding("b")])
    assert {subset for subset, _ in measured} == {"all", "mean", "one/nut", "two/nut"}


def test_written_metrics_hold_settings_notes_and_a_row_a_metric(tmp_path):
    metrics = [Metric("aupro", "all", None, 0), Metric("unread_rate", "nut", 0.25, 8, 2, 0.1, 0.5)]
    json_path, csv_path = write_metrics(tmp_path / "run", metrics, {"seed": 3, "path": Path("x")})
    document = json.loads(json_path.read_text(encoding="utf-8"))
    assert document["settings"] == {"seed": 3, "path": "x"}
    assert document["metrics"][0]["value"] is None
    assert document["metrics"][0]["note"].startswith("undefined: needs anomaly maps")
    rows = list(csv.DictReader(csv_path.read_text(encoding="utf-8").splitlines()))
    assert [row["value"] for row in rows] == ["", "0.25"]
    assert rows[1]["n_unreadable"] == "2"


def test_five_hundred_pictures_are_measured_within_seconds():
    records, findings = make_pairs(500, score_of=lambda index, _: (index * 37 % 500) / 500)
    start = time.perf_counter()
    measure(records, findings)
    assert time.perf_counter() - start < 3


def test_saturation_areas_of_the_records_decide_spro(tmp_path: Path) -> None:
    picture = make_picture(tmp_path / "part.png", (32, 24))
    part = np.zeros((24, 32), np.uint8)
    part[4:12, 4:12] = 255
    mask_path = tmp_path / "mask.png"
    Image.fromarray(part).save(mask_path)
    anomaly_map = np.zeros((24, 32), np.float32)
    anomaly_map[4:8, 4:8] = 1.0  # 16 of 64 pixels
    values = {}
    for area in (16, 32, 64):
        record = Record(
            "part",
            picture,
            label="anomalous",
            mask_path=mask_path,
            mask_parts=(MaskPart(mask_path, area),),
        )
        finding = Finding("part", str(picture), "anomalous", image_size_wh=(32, 24))
        metrics = compute_metrics(
            [record], [finding], maps=lambda _: anomaly_map, masks=lambda _: None
        )
        values[area] = next(one for one in metrics if one.name == "spro_fpr05").value
    assert values == pytest.approx({16: 1.0, 32: 0.5, 64: 0.25}, abs=0.03)


def test_what_is_kept_of_a_picture_to_resample_it_is_small_and_exact(tmp_path: Path) -> None:
    mask = np.zeros((300, 300), dtype=bool)
    mask[:20, :20] = True
    Image.fromarray(255 * mask.astype(np.uint8)).save(tmp_path / "mask.png")
    records = [make_record("a", "anomalous", mask_path=tmp_path / "mask.png"), make_record("b")]
    findings = [replace(make_finding(name), image_size_wh=mask.shape) for name in "ab"]
    cases = [build_case(*pair, nothing) for pair in pair_findings(records, findings)]
    flat = np.full((300, 300), 0.5)
    _sums, pixels = count_all_pixels(cases, ["nut"] * 2, lambda _finding: flat)
    anomalous, normal = pixels[0], pixels[1]
    assert (int(anomalous.normal.max()), int(anomalous.defect.max())) == (90_000 - 400, 400)
    assert anomalous.overlap.sum() == pytest.approx(1.0)
    assert int(normal.normal.max()) == 90_000 and normal.normal.nbytes == 2048
    assert normal.defect is normal.overlap is normal.saturated is anomalous.saturated
