"""Pictures come to the pages as a person brings them: dropped, pasted, chosen, by the camera."""

from __future__ import annotations

from pathlib import Path

import pytest
from browsing import Served, draw_part, drop, open_page, paste
from playwright.sync_api import Browser, Page, expect


@pytest.fixture
def page(browser: Browser, served: Served) -> Page:
    return open_page(browser, served)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of two pictures, one broken and further down, and a text."""
    made = tmp_path / "parts"
    (made / "late" / "shift").mkdir(parents=True)
    draw_part(made / "one.png", broken=False)
    draw_part(made / "late" / "shift" / "two.png", broken=True)
    (made / "notes.txt").write_text("Lot 7")
    return made


def expect_verdicts(page: Page, *verdicts: str) -> None:
    """Verdicts of the pictures that were brought, in any order; nothing went wrong on the way."""
    expect(page.locator(".strip button")).to_have_count(len(verdicts))
    expect(page.locator(".verdict.large")).to_be_visible()
    assert sorted(page.locator(".strip .verdict").all_inner_texts()) == sorted(verdicts)
    assert page.faults == []  # type: ignore[attr-defined]


def test_files_that_are_dropped_are_inspected(page: Page, tmp_path: Path) -> None:
    drop(page, draw_part(tmp_path / "one.png", broken=True))
    expect_verdicts(page, "anomalous")
    drop(page, draw_part(tmp_path / "two.png", broken=False))
    expect_verdicts(page, "anomalous", "normal")


def test_the_pictures_of_a_folder_that_is_dropped_are_inspected(page: Page, folder: Path) -> None:
    drop(page, folder)
    expect_verdicts(page, "normal", "anomalous")


def test_the_pictures_of_a_folder_that_is_chosen_are_inspected(page: Page, folder: Path) -> None:
    with page.expect_file_chooser() as choosing:
        page.get_by_text("Folder", exact=True).click()
    choosing.value.set_files(folder)
    expect_verdicts(page, "normal", "anomalous")


def test_what_is_dropped_without_a_picture_is_told(page: Page, folder: Path) -> None:
    drop(page, folder / "notes.txt")
    expect(page.locator("#status")).to_have_text("No picture among these.")


@pytest.mark.parametrize("path", ["/", "/review"])
@pytest.mark.parametrize("kind", ["dragover", "drop"])
def test_a_file_dropped_beside_a_field_does_not_take_the_pages_place(
    page: Page, path: str, kind: str
) -> None:
    page.goto(path)
    expect(page.locator("h1")).to_be_visible()
    event = f"new DragEvent('{kind}', {{ bubbles: true, cancelable: true }})"
    assert page.evaluate(f"() => !document.querySelector('h1').dispatchEvent({event})")


def test_a_picture_that_is_pasted_is_inspected(page: Page, tmp_path: Path) -> None:
    paste(page, draw_part(tmp_path / "part.png", broken=True))
    expect_verdicts(page, "anomalous")


def test_the_camera_takes_a_picture_that_is_inspected(page: Page) -> None:
    camera = page.get_by_role("button", name="Camera")
    camera.click()
    page.get_by_role("button", name="Close").click()
    expect(page.locator("dialog")).to_have_count(0)
    camera.click()
    page.get_by_role("button", name="Take picture").click()
    expect_verdicts(page, "anomalous")  # the camera of the tests shows green
    expect(page.locator("dialog")).to_have_count(0)


def test_a_camera_that_shows_nothing_yet_takes_no_picture(page: Page) -> None:
    page.evaluate(
        """() => new MutationObserver((_, hurry) => {
            hurry.disconnect();
            document.querySelector("dialog button").click();
        }).observe(document.body, { childList: true })"""
    )
    page.get_by_role("button", name="Camera").click()
    page.get_by_role("button", name="Take picture").click()
    expect_verdicts(page, "anomalous")


def test_a_picture_becomes_a_reference_of_the_product_that_is_shown(
    browser: Browser, served: Served, tmp_path: Path
) -> None:
    page = open_page(browser, served, "/products")
    for name in ("cap", "nut"):
        page.locator("#new-name").fill(name)
        page.get_by_role("button", name="Add product").click()
        expect(page.locator("h2").first).to_have_text(name)
    page.locator("h1").click()
    paste(page, draw_part(tmp_path / "pasted.png", broken=False))
    expect(page.locator(".cards").first).to_contain_text("nut1 reference")
    expect(page.locator(".cards").first).to_contain_text("cap0 references")
    page.goto("/?product=2")
    drop(page, draw_part(tmp_path / "part.png", broken=False))
    expect_verdicts(page, "normal")
    page.locator(".slider input").fill("60")
    reference = page.locator(".world img").nth(3)
    expect(reference).to_be_visible()
    assert "40%" in str(reference.evaluate("image => image.style.clipPath"))
    assert page.faults == []  # type: ignore[attr-defined]
