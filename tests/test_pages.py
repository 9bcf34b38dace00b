"""The pages, driven in a real browser as a person would."""

from __future__ import annotations

import json
import re
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from builders import NORMAL, make_inspector
from PIL import Image, ImageDraw
from playwright.sync_api import Browser, Page, expect, sync_playwright
from test_weights import write_checkpoint

from anomalyr1.inspector import Inspector
from anomalyr1.server.app import PAGE_TEMPLATE, PAGES, build_app
from anomalyr1.server.promotions import load_promotions, record_evaluation
from anomalyr1.server.store import Store
from anomalyr1.weights import hash_weights

SCRIPT = "<img src=x onerror=window.hurt=1><script>window.hurt=1</script>"
CHROMIUM = shutil.which("chromium")
PATIENCE_MS = 30_000
"""For a machine that is busy; nothing waits longer than it takes."""

expect.set_options(timeout=PATIENCE_MS)


def say(prompt: Any, pictures: Any) -> str:
    """Anomalous with a script in every text where the picture is dark, normal elsewhere."""
    if np.asarray(pictures[-2])[..., 0].min() > 60:
        return NORMAL
    answer = {
        "verdict": "anomalous",
        "defects": [{"bbox_2d": [150, 90, 210, 130], "label": SCRIPT, "description": SCRIPT}],
    }
    return f"<think>A dark spot. {SCRIPT}</think><answer>{json.dumps(answer)}</answer>"


def draw_part(path: Path, *, broken: bool) -> Path:
    rng = np.random.default_rng(len(path.name))
    pixels = rng.integers(150, 175, (240, 320, 3)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    if broken:
        ImageDraw.Draw(picture).ellipse((155, 95, 205, 125), fill=(20, 20, 20))
    picture.save(path)
    return path


class Served:
    """A station on a free port of this machine, in a thread."""

    def __init__(self, data: Path, inspector: Inspector) -> None:
        self.store = Store.open(data)
        self.store.claim()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        app = build_app(self.store, lambda name: inspector)
        config = uvicorn.Config(app, port=self.port, log_level="error", timeout_graceful_shutdown=1)
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        ends = time.monotonic() + PATIENCE_MS / 1000
        while not self.server.started and time.monotonic() < ends:
            time.sleep(0.01)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(10)
        self.store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    inspector = make_inspector(say, weights_sha256=hash_weights("nano"))
    made = Served(tmp_path / "data", inspector)
    yield made
    made.close()


def open_page(browser: Browser, served: Served, path: str = "/", **settings: Any) -> Page:
    context = browser.new_context(base_url=f"http://127.0.0.1:{served.port}", **settings)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.faults = []  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.faults.append(str(error)))  # type: ignore[attr-defined]
    page.on(
        "console",
        lambda message: (
            page.faults.append(message.text)  # type: ignore[attr-defined]
            if message.type == "error"
            else None
        ),
    )
    page.goto(path)
    return page


def test_a_person_inspects_corrects_and_finds_it_again(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = open_page(browser, served)
    parts = [
        draw_part(tmp_path / name, broken=broken)
        for name, broken in (("one.png", False), ("two.png", True), ("<b>three.png", True))
    ]
    page.locator("#files").set_input_files(parts)
    expect(page.locator(".strip button")).to_have_count(3)
    expect(page.locator(".verdict.large")).to_have_text("anomalous")
    page.get_by_label("Map").check()
    page.get_by_role("button", name="Zoom in").click()

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


def test_undo_takes_the_last_review_back(browser: Browser, served: Served, tmp_path: Path) -> None:
    page = open_page(browser, served)
    page.locator("#files").set_input_files([draw_part(tmp_path / "a.png", broken=False)])
    expect(page.locator(".verdict.large")).to_have_text("normal")
    page.goto("/review")
    page.locator("#person").fill("Ann")
    page.locator("h1").click()
    page.keyboard.press("Enter")
    expect(page.get_by_text("All is reviewed.")).to_be_visible()
    page.keyboard.press("z")
    expect(page.locator("#status")).to_contain_text("taken back")
    expect(page.locator(".verdict.large")).to_be_visible()


def review_broken_part(browser: Browser, served: Served, folder: Path, **settings: Any) -> Page:
    """The review page with one broken part, whose box is [150, 90, 210, 130]."""
    page = open_page(browser, served, **settings)
    page.locator("#files").set_input_files([draw_part(folder / "a.png", broken=True)])
    expect(page.locator(".verdict.large")).to_have_text("anomalous")
    page.goto("/review")
    expect(page.locator("rect.box")).to_have_count(1)
    page.locator("#person").fill("Ann")
    page.locator("h1").click()
    return page


def read_box(page: Page, place: int = -1) -> list[float]:
    """left, top, right, bottom of a box as it is drawn, in pixels of the picture."""
    box = page.locator("rect.box").nth(place)
    left, top, width, height = (
        float(box.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")
    )
    return [left, top, left + width, top + height]


def saved_boxes(page: Page) -> list[list[float]]:
    """What the station keeps of the first inspection's review."""
    answer = page.request.get("/api/inspections?reviewed=true").json()
    return [region["box_xyxy"] for region in answer["inspections"][0]["review"]["regions"]]


def test_a_box_is_resized_by_its_grips_and_undone(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = review_broken_part(browser, served, tmp_path)
    page.locator("rect.box").click()
    expect(page.locator("rect.grip")).to_have_count(8)
    before = read_box(page)
    grip = page.locator("rect.grip[data-grip=se]").bounding_box()
    assert grip is not None
    x, y = grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 30, steps=3)
    page.mouse.up()
    after = read_box(page)
    assert after[:2] == before[:2], "the other corner stays"
    assert after[2] > before[2] and after[3] > before[3]
    west = page.locator("rect.grip[data-grip=w]").bounding_box()
    assert west is not None
    page.mouse.move(west["x"] + west["width"] / 2, west["y"] + west["height"] / 2)
    page.mouse.down()
    page.mouse.move(x + 900, y, steps=3)  # beyond the other side
    page.mouse.up()
    narrow = read_box(page)
    assert narrow[2] == after[2] and narrow[2] - narrow[0] == pytest.approx(4)
    page.locator("h1").click()
    page.keyboard.press("z")
    assert read_box(page) == after
    page.keyboard.press("a")
    expect(page.locator("#status")).to_contain_text("Saved: anomalous")
    assert saved_boxes(page) == [after]
    assert page.faults == []  # type: ignore[attr-defined]


def test_boxes_are_chosen_moved_resized_drawn_and_deleted_by_keyboard(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = review_broken_part(browser, served, tmp_path)
    told = page.locator(".stage [role=status]")
    before = read_box(page)
    page.locator(".stage").focus()
    page.keyboard.press("PageDown")
    expect(told).to_contain_text("Box 1 of 1")
    expect(told).to_contain_text("left 150, top 90, 60 wide, 40 high")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    moved = read_box(page)
    assert moved[0] > before[0] and moved[1] < before[1]
    assert moved[2] - moved[0] == pytest.approx(60)
    page.keyboard.press("Shift+ArrowDown")
    resized = read_box(page)
    assert resized[:3] == moved[:3] and resized[3] > moved[3]
    page.keyboard.press("z")
    assert read_box(page) == before, "key presses in a row are one step to undo"
    page.keyboard.press("b")
    expect(told).to_contain_text("press Enter")
    page.keyboard.press("Enter")
    expect(page.locator("rect.box")).to_have_count(2)
    drawn = read_box(page)
    expect(told).to_contain_text("Box 2 of 2")
    page.keyboard.press("PageUp")
    page.keyboard.press("Delete")
    expect(page.locator("rect.box")).to_have_count(1)
    assert read_box(page) == drawn
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator("#status")).to_contain_text("Saved: anomalous")
    assert saved_boxes(page) == [drawn]
    assert page.faults == []  # type: ignore[attr-defined]


def test_a_box_is_drawn_and_resized_by_touch(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    page = review_broken_part(browser, served, tmp_path, **phone)
    page.get_by_role("button", name="Draw box").tap()
    page.locator(".stage").scroll_into_view_if_needed()
    stage = page.locator(".stage").bounding_box()
    assert stage is not None
    x, y = stage["x"] + 40, stage["y"] + stage["height"] / 2 - 20
    client = page.context.new_cdp_session(page)

    def swipe(*points: tuple[float, float]) -> None:
        for number, (left, top) in enumerate(points):
            kind = "touchStart" if number == 0 else "touchMove"
            touch = {"type": kind, "touchPoints": [{"x": left, "y": top}]}
            client.send("Input.dispatchTouchEvent", touch)
        client.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    swipe((x, y), (x + 30, y + 20), (x + 60, y + 40))
    expect(page.locator("rect.box")).to_have_count(2)
    expect(page.locator("rect.grip")).to_have_count(8)
    drawn = read_box(page)
    swipe((x + 64, y + 44), (x + 80, y + 50), (x + 90, y + 60))  # beside the grip, as a finger is
    resized = read_box(page)
    assert resized[:2] == drawn[:2] and resized[2] > drawn[2]
    assert page.faults == []  # type: ignore[attr-defined]


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


def test_the_pages_never_build_html_from_strings_and_load_nothing_from_elsewhere() -> None:
    for path in [*PAGES.glob("*.js"), PAGE_TEMPLATE, *PAGES.glob("*.css")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert not re.search(r"https?://(?!www\.w3\.org/)", text), path.name
        assert not re.search(r"<style|style=|<script(?! type=\"module\" src=\"/static/)", text)
