"""What a station's reviews teach: pictures inspected, reviewed with their truth, and learned from.

    anomalyr1 data import mvtec hazelnut --split test --references 8 --out hazelnut.jsonl
    python benchmarks/station_learning.py learning hazelnut.jsonl [MORE.jsonl ...]

Each category of the records is a product with the references of its first record. A station on the
bundled model inspects the pictures, each is reviewed with the verdict and the boxes of its record,
and `anomalyr1 adapt --from-store` makes a candidate: `candidate/comparison.json` holds its figures
beside the model's on the reviewed pictures that are held out. Options behind `--` go to `adapt`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from itertools import groupby
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "anomalyr1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("records", type=Path, nargs="+")
    parser.add_argument("--port", type=int, default=8017)
    own, further = sys.argv[1:], []
    if "--" in own:
        own, further = own[: own.index("--")], own[own.index("--") + 1 :]
    given = parser.parse_args(own)
    data = given.out / "station"
    server = subprocess.Popen(
        [*COMMAND, "serve", "--data", str(data), "--port", str(given.port)],
        stderr=subprocess.DEVNULL,
    )
    try:
        for path in given.records:
            review_all(f"http://127.0.0.1:{given.port}", path)
    finally:
        server.terminate()
        server.wait(60)
    out = given.out / "candidate"
    started = time.monotonic()
    subprocess.run(
        [*COMMAND, "adapt", "--from-store", str(data), "--out", str(out), *further], check=True
    )
    sys.stdout.write(f"adapted in {time.monotonic() - started:.0f} s: {out / 'comparison.json'}\n")


def review_all(url: str, path: Path) -> None:
    """Make a product of each category, inspect its pictures, and review them with their truth."""
    import httpx

    from anomalyr1.data.records import load_records

    records = sorted(load_records(path), key=lambda record: record.category)
    with httpx.Client(base_url=url, timeout=600) as client:
        wait_until_ready(client)
        for category, group in groupby(records, key=lambda record: record.category):
            chosen = list(group)
            product = post(client, "/api/products", json={"name": category})["id"]
            references = [attach(reference) for reference in chosen[0].reference_paths]
            if references:
                post(client, f"/api/products/{product}/references", files=references)
            for record in chosen:
                pictures = [attach(record.image_path)]
                form = {"product_id": str(product)}
                answer = post(client, "/api/inspect", data=form, files=pictures)
                (inspection,) = answer["inspections"]
                review = build_review(record)
                post(client, f"/api/inspections/{inspection['id']}/reviews", json=review)
            sys.stdout.write(f"{category}: {len(chosen)} pictures reviewed\n")


def build_review(record: Any) -> dict[str, Any]:
    from anomalyr1.data.question_reasoning import true_regions
    from anomalyr1.images import image_size

    regions = true_regions(record, image_size(record.image_path))
    boxes = [{"box_xyxy": region.box_xyxy, "label": region.defect_type} for region in regions]
    return {"reviewer": "truth", "verdict": record.label, "regions": boxes}


def wait_until_ready(client: Any) -> None:
    import httpx

    for _ in range(120):
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise SystemExit("the station does not start: run `anomalyr1 serve` by hand to see why")


def attach(path: Path) -> tuple[str, tuple[str, bytes]]:
    return "pictures", (path.name, path.read_bytes())


def post(client: Any, path: str, **content: Any) -> Any:
    answer = client.post(path, **content)
    answer.raise_for_status()
    return answer.json()


if __name__ == "__main__":
    main()
