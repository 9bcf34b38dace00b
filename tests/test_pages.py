"""The pages, driven in a real browser as a person would; more in test_review_page and
test_page_pictures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from browsing import SCRIPT, Served, draw_part, open_page, review_broken_part
from playwright.sync_api import Browser, Route, expect
from test_learning import receive
from test_store import set_times
from test_weights import write_checkpoint

from anomalyr1.server.app import BASE_STYLE, PAGE_TEMPLATE, PAGES
from anomalyr1.server.products import add_reference, create_product
from anomalyr1.server.promotions import load_promotions, record_evaluation
from anomalyr1.server.tables import MOST_NAME
from anomalyr1.types import Defect, Finding
from anomalyr1.weights import hash_weights


def test_a_person_inspects_corrects_and_finds_it_again(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = open_page(browser, served)
    parts = [
        draw_part(tmp_path / name, broken=broken)
        for name, broken in (
            ("one.png", False),
            ("two.png", True),
            (f"{SCRIPT.partition('</')[0]}.png", True),
        )
    ]
    page.locator("#files").set_input_files(parts)
    expect(page.locator(".strip button")).to_have_count(3)
    expect(page.locator(".verdict.large")).to_have_text("anomalous")
    expect(page.get_by_text("onerror=window.hurt").first).to_be_visible()
    shown = page.locator(".world img")
    for name, layer in (("Map", 1), ("Masks", 2)):
        page.get_by_label(name).check()
        expect(shown.nth(layer)).to_be_visible()
        page.get_by_label(name).uncheck()
        expect(shown.nth(layer)).to_be_hidden()
    before = page.locator(".world").bounding_box()
    page.get_by_role("button", name="Zoom in").click()
    after = page.locator(".world").bounding_box()
    assert before and after and after["width"] > 1.2 * before["width"]
    page.locator(".stage").press("ArrowRight")
    panned = page.locator(".world").bounding_box()
    assert panned and panned["x"] == pytest.approx(after["x"] - 40, abs=1)
    page.get_by_role("button", name="Fit the picture").click()

    page.goto("/review")
    page.locator("#person").fill("Ann")
    expect(page.locator(".verdict.large")).to_be_visible()
    page.keyboard.press("Tab")
    page.locator("h1").click()
    page.keyboard.press("b")
    stage = page.locator(".stage").bounding_box()
    assert stage is not None
    x, y = stage["x"] + stage["width"] / 2 - 150, stage["y"] + stage["height"] / 2 - 100
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 50, steps=4)
    page.mouse.up()
    page.locator("input[aria-label^='Label of box']").last.fill("dent")
    page.locator("h1").click()
    page.keyboard.press("a")
    expect(page.locator("#status")).to_contain_text("Saved: anomalous")
    expect(page.get_by_text("2 more in this round")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_text("1 more in this round")).to_be_visible()

    page.goto("/history")
    expect(page.locator(".card")).to_have_count(3)
    page.get_by_label("Reviewer", exact=True).nth(1).fill("Ann")
    page.keyboard.press("Tab")
    expect(page.locator(".card")).to_have_count(2)
    with page.expect_download() as loading:
        page.get_by_role("link", name="COCO").click()
    coco = json.loads(Path(loading.value.path()).read_text())
    assert "dent" in {item["name"] for item in coco["categories"]}

    page.goto("/trends")
    expect(page.locator(".tiles").first).to_contain_text("n = 2")
    assert page.faults == []  # type: ignore[attr-defined]
    assert page.evaluate("window.hurt") is None


def test_a_candidate_is_promoted_with_its_evaluation_in_sight(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / SCRIPT.replace("/", "_"))
    figures = {"value": 0.5, "n": 8, "low": 0.2, "high": 0.8}
    number = record_evaluation(
        served.store,
        {
            "current": {"model": "nano", "weights_sha256": hash_weights("nano")},
            "candidate": {"model": folder, "weights_sha256": hash_weights(folder)},
            "num_pictures": 8,
            "num_normal": 5,
            "num_anomalous": 3,
            "metrics": [
                {
                    "name": "normal_accuracy",
                    "subset": "all",
                    "current": figures,
                    "candidate": {**figures, "value": 0.75},
                }
            ],
            "paired": {"only_candidate": 3, "only_current": 1, "p_value": 0.625},
        },
    )
    page = open_page(browser, served, "/trends")
    candidate = page.locator("details.candidate")
    expect(candidate).to_contain_text("0.75 (0.20 to 0.80)")
    expect(candidate).to_contain_text("alone was right on 3")
    page.once("dialog", lambda dialog: dialog.accept())
    promote = candidate.get_by_role("button", name="Promote")
    promote.click()
    expect(page.locator("#status")).to_contain_text("Write your name")
    page.locator("#person").fill("Ann")
    promote.click()
    expect(page.locator("#status")).to_contain_text("Promoted")
    expect(page.get_by_role("row", name="promote")).to_contain_text("Ann")
    (made,) = load_promotions(served.store)
    assert (made.evaluation_id, made.model) == (number, folder)
    assert page.faults == []  # type: ignore[attr-defined]
    assert page.evaluate("window.hurt") is None


def test_the_trends_page_says_how_many_new_corrections_wait(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = review_broken_part(browser, served, tmp_path)
    page.keyboard.press("n")
    expect(page.locator("#status")).to_contain_text("Saved: normal")
    page.goto("/trends")
    expect(page.get_by_text("1 new correction")).to_be_visible()


def test_a_day_is_one_of_the_persons_own_time_zone(browser: Browser, served: Served) -> None:
    _, tasks = served.store.accept([receive(served.store, level) for level in (1, 2)], None, None)
    first, second = (task.inspection_id for task in tasks)
    # 00:30 and 23:30 of 1 February on Kiritimati: a night shift's two ends, on two days of UTC.
    times = {first: "2026-01-31T10:30:00.000000Z", second: "2026-02-01T09:30:00.000000Z"}
    for number in times:
        finding = Finding(str(number), f"{number}.png", "normal", 0.1, 0.1)
        served.store.finish(number, finding)
    set_times(served.store, times)
    page = open_page(browser, served, "/history", timezone_id="Pacific/Kiritimati")
    expect(page.locator(".card")).to_have_count(2)
    for label, day, count in (
        ("To", "2026-01-31", 0),
        ("To", "2026-02-01", 2),
        ("From", "2026-02-01", 2),
        ("From", "2026-02-02", 0),
    ):
        page.get_by_label(label, exact=True).fill(day)
        expect(page.locator(".card")).to_have_count(count)
    page.goto("/trends")
    expect(page.locator(".chart.days rect")).to_have_count(1)
    expect(page.locator(".chart.days rect title")).to_have_text("2026-02-01: 2 normal")
    assert page.faults == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("path", "shown"), [("/history", ".soft[aria-live]"), ("/trends", ".tiles dd")]
)
def test_an_answer_that_was_overtaken_is_not_shown(
    browser: Browser, served: Served, path: str, shown: str
) -> None:
    product = create_product(served.store, "nut")
    _, (task,) = served.store.accept([receive(served.store, 1)], None, None)
    served.store.finish(task.inspection_id, Finding("1", "1.png", "normal", 0.1, 0.1))
    page = open_page(browser, served, path)
    counted = page.locator(shown).first
    expect(counted).to_contain_text("1")
    held: list[Route] = []
    page.route(re.compile(r"/api/.*product_id="), lambda route: held.append(route))
    with page.expect_request(re.compile("product_id=")):
        page.locator("#product").select_option(str(product))
    with page.expect_response(re.compile(r"/api/(inspections|trends)")):
        page.locator("#product").select_option("")
    with page.expect_response(re.compile("product_id=")) as late:
        held[0].continue_()
    late.value.finished()
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    expect(counted).to_contain_text("1")


def test_many_pictures_travel_in_parcels(browser: Browser, served: Served) -> None:
    page = open_page(browser, served, bypass_csp=True)
    counts = page.evaluate(
        """async () => {
            const { cutIntoParcels } = await import("/static/files.js");
            const files = (count, size) => Array.from({ length: count }, () => ({ size }));
            return [files(40, 9), files(5, 90e6), files(1, 300e6), []].map(
                (some) => cutIntoParcels(some).map((parcel) => parcel.length));
        }"""
    )
    assert counts == [[16, 16, 8], [2, 2, 1], [1], []]


def test_a_product_is_made_with_references_and_a_threshold(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = open_page(browser, served, "/products")
    page.locator("#new-name").fill(SCRIPT)
    page.get_by_role("button", name="Add product").click()
    parts = [draw_part(tmp_path / f"{'x' * n}.png", broken=False) for n in (1, 2, 3)]
    page.locator("#files").set_input_files(parts)
    expect(page.locator("circle.dot")).to_have_count(3)
    page.get_by_label("Threshold of the detector's score").fill("0.7")
    expect(page.locator("output")).to_have_text("0.70")
    expect(page.locator("#status")).to_contain_text("Saved")  # and drawn anew
    line = page.locator("svg.drag").bounding_box()
    assert line is not None
    across = [line["x"] + line["width"] * (10 + 300 * share) / 320 for share in (0.7, 0.4)]
    page.mouse.move(across[0], line["y"] + 20)
    page.mouse.down()
    page.mouse.move(across[1], line["y"] + 20, steps=3)
    page.mouse.up()
    expect(page.locator("output")).to_have_text("0.40")
    expect(page.locator("#status")).to_contain_text("Saved")
    page.get_by_label("Domain knowledge").fill("Grey and even.")
    page.get_by_role("button", name="Save").click()
    page.goto("/")
    expect(page.locator("#product option")).to_have_count(2)
    assert page.faults == []  # type: ignore[attr-defined]
    assert page.evaluate("window.hurt") is None


@pytest.mark.parametrize("path", ["/", "/products", "/history", "/review", "/trends", "/login"])
def test_a_page_fits_a_phone_and_names_its_controls(
    browser: Browser, served: Served, path: str
) -> None:
    page = open_page(browser, served, path, viewport={"width": 360, "height": 740})
    expect(page.locator("h1")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll("input, select, textarea, button")].filter((field) =>
        !(field.labels?.length || field.getAttribute("aria-label") || field.textContent.trim()))
        .map((field) => field.outerHTML)"""
    )
    assert unnamed == []
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.faults == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["/", "/products", "/history", "/review", "/trends"])
def test_names_without_a_space_do_not_widen_a_phones_page(
    browser: Browser, served: Served, path: str
) -> None:
    long = "w" * MOST_NAME
    product = create_product(served.store, long, long * 3)
    add_reference(served.store, product, receive(served.store, 1))
    _, (task,) = served.store.accept([receive(served.store, 2)], product, None)
    defect = Defect(long, long, (4.0, 4.0, 40.0, 40.0))
    finding = Finding("2", "2.png", "anomalous", 0.9, 0.9, long, (defect,))
    served.store.finish(task.inspection_id, finding)
    page = open_page(browser, served, path, viewport={"width": 360, "height": 740})
    expect(page.get_by_text(re.compile("w{99}")).first).to_be_attached()
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.faults == []  # type: ignore[attr-defined]


def test_the_pages_never_build_html_from_strings_and_load_nothing_from_elsewhere() -> None:
    for path in [*PAGES.glob("*.js"), PAGE_TEMPLATE, *PAGES.glob("*.css"), BASE_STYLE]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), path.name
        assert not re.search(r"<style|style=|<script(?! type=\"module\" src=\"/static/)", text)
