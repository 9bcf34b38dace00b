"""A station in a thread and a browser that drives its pages. Fixtures are in conftest."""

from __future__ import annotations

import base64
import json
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

from anomalyr1.inspector import Inspector
from anomalyr1.server.app import build_app
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


def launch_browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        # The camera is one of Chromium's own, and asks nobody for leave.
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
        launched = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", *camera]
        )
        yield launched
        launched.close()


def serve(folder: Path) -> Iterator[Served]:
    """A station whose model says what `say` says."""
    made = Served(folder, make_inspector(say, weights_sha256=hash_weights("nano")))
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


def drop(page: Page, *paths: Path) -> None:
    """Drag files or folders from a file manager onto the page's field for pictures."""
    zone = page.locator(".drop")
    zone.scroll_into_view_if_needed()
    box = zone.bounding_box()
    assert box is not None
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    session = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        session.send(
            "Input.dispatchDragEvent",
            {"type": step, "x": box["x"] + 5, "y": box["y"] + 5, "data": data},
        )


def paste(page: Page, path: Path) -> None:
    """Paste a picture that was copied elsewhere, by Control and V."""
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (encoded) => {
            const bytes = Uint8Array.from(atob(encoded), (sign) => sign.charCodeAt());
            const blob = new Blob([bytes], { type: "image/png" });
            await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
        }""",
        base64.b64encode(path.read_bytes()).decode(),
    )
    page.keyboard.press("Control+V")
