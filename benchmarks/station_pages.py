"""How soon the pages of a running station can be used, in a headless Chromium.

The station must hold a product and a few inspections: a control of the content is waited for.

    anomalyr1 serve --data /tmp/station &
    python benchmarks/station_pages.py --times 5 --out station_pages.json

Milliseconds from the start of the navigation until a control of the page's content is there and
enabled, each time with an empty cache; needs `playwright` and Debian's chromium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
from pathlib import Path

PAGES = ("/", "/products", "/history", "/review", "/trends")
USABLE = """() => {
    const content = document.querySelector("main :is(input, select, button, summary):enabled");
    return content && content.checkVisibility() ? performance.now() : false;
}"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("station_pages.json"))
    given = parser.parse_args()
    result = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for path in PAGES:
            waits = []
            for _ in range(given.times):
                # The policy of the pages would refuse to evaluate the condition.
                context = browser.new_context(base_url=given.url, bypass_csp=True)
                page = context.new_page()
                page.goto(path, wait_until="commit")
                waits.append(page.wait_for_function(USABLE).json_value())
                context.close()
            result[path] = {
                "median_ms": round(statistics.median(waits)),
                "most_ms": round(max(waits)),
                "n": len(waits),
            }
        browser.close()
    given.out.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
