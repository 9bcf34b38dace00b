"""The review page, driven in a real browser: boxes by mouse, touch and keyboard alone, and undo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import SCRIPT, Served, draw_part, open_page, review_broken_part
from playwright.sync_api import Browser, Page, expect
from test_learning import receive

from anomalyr1.server.reviews import retract_review
from anomalyr1.types import Finding


def test_undo_takes_the_reviews_of_a_visit_back_one_after_the_other(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = open_page(browser, served)
    parts = [draw_part(tmp_path / name, broken=False) for name in ("a.png", "bb.png", "ccc.png")]
    page.locator("#files").set_input_files(parts)
    expect(page.locator(".strip button")).to_have_count(3)
    page.goto("/review")
    page.locator("#person").fill("Ann")
    page.locator("h1").click()
    shown = page.locator(".told p.soft").first
    for left in ("2 more in this round", "1 more in this round", "All is reviewed."):
        expect(shown).to_contain_text("png")
        page.keyboard.press("Enter")
        expect(page.get_by_text(left)).to_be_visible()
    reviewed = page.request.get("/api/inspections?reviewed=true&sort=oldest").json()["inspections"]
    retract_review(served.store, reviewed[1]["review"]["id"], "Ben")
    for number, told in ((2, "taken back"), (None, "no review"), (0, "taken back")):
        page.keyboard.press("z")
        expect(page.locator("#status")).to_contain_text(told)
        if number is not None:
            expect(shown).to_contain_text(reviewed[number]["name"])
    expect(page.get_by_text("2 more in this round")).to_be_visible()
    page.keyboard.press("z")
    expect(page.locator("#status")).to_contain_text("Nothing to undo")
    kept = [page.request.get(f"/api/inspections/{item['id']}").json() for item in reviewed]
    assert [item["reviews"][0]["retracted_by"] for item in kept] == ["Ann", "Ben", "Ann"]
    assert [item["review"] for item in kept] == [None] * 3


def read_box(page: Page, place: int = -1) -> list[float]:
    """left, top, right, bottom of a box as it is drawn, in pixels of the picture."""
    box = page.locator("rect.box").nth(place)
    left, top, width, height = (
        float(box.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")
    )
    return [left, top, left + width, top + height]


def load_review(page: Page) -> dict[str, Any]:
    """What the station keeps of the first inspection's review."""
    answer = page.request.get("/api/inspections?reviewed=true").json()
    review: dict[str, Any] = answer["inspections"][0]["review"]
    return review


def saved_boxes(page: Page) -> list[list[float]]:
    return [region["box_xyxy"] for region in load_review(page)["regions"]]


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


def test_a_part_is_judged_and_its_new_box_named_without_a_mouse(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = review_broken_part(browser, served, tmp_path)
    for _ in range(40):  # to the picture, through whatever comes before it
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.classList.contains('stage')"):
            break
    page.keyboard.press("b")
    page.keyboard.press("Enter")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.getAttribute('aria-label')") == "Label of box 2":
            break
    page.keyboard.type("a dent")  # "a", "n" and "d" are letters here, no verdicts
    page.keyboard.press("Escape")
    page.keyboard.press("a")
    expect(page.locator("#status")).to_contain_text("Saved: anomalous")
    assert [region["label"] for region in load_review(page)["regions"]][1:] == ["a dent"]
    assert page.faults == []  # type: ignore[attr-defined]


def test_an_answer_that_was_not_read_is_shown_as_it_was_written(
    browser: Browser, served: Served
) -> None:
    said = f"I would not know. {SCRIPT}"
    _, (task,) = served.store.accept([receive(served.store, 1)], None, None)
    finding = Finding("1", "1.png", "unread", raw_text=said, status="no_answer")
    served.store.finish(task.inspection_id, finding)
    page = open_page(browser, served, "/review")
    expect(page.locator(".verdict.large")).to_have_text("unread")
    page.get_by_text("What the model wrote").click()
    expect(page.locator("details .said")).to_have_text(said)
    expect(page.get_by_role("button", name="Confirm")).to_be_disabled()
    assert page.evaluate("window.hurt") is None


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
