"""The report of an evaluation: what stands on the page, escaped, and how it looks on a phone."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser
from test_evaluate_records import make_pairs, make_record, nothing

from anomalyr1.evaluation.records import DEFINITIONS, compute_metrics
from anomalyr1.evaluation.report import TITLES, write_evaluation_report


def write_page(out_dir, records, findings, settings=None):
    metrics = compute_metrics(records, findings, maps=nothing, masks=nothing)
    path = write_evaluation_report(out_dir, metrics, records, findings, settings or {})
    return path.read_text(encoding="utf-8")


def test_every_metric_has_a_title_on_the_page(tmp_path):
    assert list(TITLES) == list(DEFINITIONS)
    page = write_page(tmp_path, *make_pairs(10), settings={"seed": 0})
    assert all(title in page for title in TITLES.values())
    assert "undefined: needs anomaly maps and ground-truth masks" in page


def test_a_report_escapes_what_a_model_wrote_and_loads_nothing(tmp_path):
    records, findings = make_pairs(10)
    hostile = '<script src="https://evil.example/x.js"></script>'
    findings[1] = replace(findings[1], verdict="normal", reasoning=hostile, category=hostile)
    records[3] = replace(records[3], defect_type=hostile, category=hostile)
    findings[5] = replace(findings[5], verdict="unread", raw_text=hostile, error=hostile)
    page = write_page(tmp_path, records, findings, {hostile: hostile})
    assert "<script" not in page
    assert "&lt;script" in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)


def test_mistakes_are_sorted_worst_first_with_totals(tmp_path):
    records, findings = make_pairs(40)
    for position, score in ((1, 0.4), (3, 0.05), (5, 0.2)):
        findings[position] = replace(findings[position], verdict="normal", anomaly_score=score)
    page = write_page(tmp_path, records, findings)
    assert "Missed defects: 3" in page
    assert page.index("nut-003") < page.index("nut-005") < page.index("nut-001")
    assert "False alarms: 0" in page


def test_only_overlays_inside_the_run_folder_are_shown(tmp_path):
    records, findings = make_pairs(2)
    run = tmp_path / "run"
    run.mkdir()
    for path in (tmp_path / "secret.png", run / "overlay.png"):
        Image.new("RGB", (900, 30)).save(path)
    inside = [findings[0], replace(findings[1], verdict="normal", overlay="overlay.png")]
    assert "data:image/jpeg;base64," in write_page(run, records, inside)
    outside = [findings[0], replace(findings[1], verdict="normal", overlay="../secret.png")]
    page = write_page(run, records, outside)
    assert "data:image/jpeg;base64," not in page
    assert "The picture cannot be read" in page


def test_a_run_without_scores_or_findings_still_has_a_report(tmp_path):
    page = write_page(tmp_path, [make_record("a"), make_record("b", "anomalous")], [])
    assert "no finding in this run" in page
    assert "<polyline" not in page


def test_columns_of_the_results_stand_apart_on_a_phone(browser: Browser, tmp_path: Path) -> None:
    groups = [make_pairs(10, f"category {number}") for number in range(15)]
    records, findings = ([one for group in groups for one in group[part]] for part in (0, 1))
    write_page(tmp_path, records, findings)
    page = browser.new_page(viewport={"width": 360, "height": 740})
    page.goto((tmp_path / "report.html").as_uri())
    gaps = page.evaluate(
        """() => [...document.querySelectorAll(".headline tr")].flatMap((row) => {
        const texts = [...row.querySelectorAll(".number")].map((cell) => {
          const range = document.createRange();
          range.selectNodeContents(cell);
          return range.getBoundingClientRect();
        });
        return texts.slice(1).map((text, place) => text.left - texts[place].right);
        })"""
    )
    assert len(gaps) == 3 * (1 + len(DEFINITIONS))
    assert min(gaps) >= 6
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.close()
