"""The report is one safe file: everything in it, nothing from outside, no text taken as markup."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyr1.reporting import inspection
from anomalyr1.reporting.inspection import compute_rank, write_report
from anomalyr1.types import Defect, Finding, InputError

SETTINGS = {"model": "nano", "hint": "patch memory", "threshold": 0.5}
ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class PageReader(HTMLParser):
    """Collects what the page would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        inside = self.tags[-1] if self.tags else ""
        if inside == "script" and not self.scripts:
            self.scripts.append(data)
        elif inside == "style" and not self.styles:
            self.styles.append(data)
        else:
            self.text.append(data)


def read_page(path: Path) -> PageReader:
    reader = PageReader()
    reader.feed(path.read_text(encoding="utf-8"))
    return reader


def make_finding(folder: Path, record_id: str = "r0", **changes: object) -> Finding:
    """A finding with picture, mask, map and reference on disk."""
    for name in ("photos", "masks", "maps"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 60), (120, 130, 140)).save(folder / f"photos/{record_id}.png")
    mask = np.zeros((60, 80), np.uint8)
    mask[20:30, 20:40] = 255
    Image.fromarray(mask).save(folder / f"masks/{record_id}.png")
    Image.fromarray(mask // 2).save(folder / f"maps/{record_id}.png")
    fields: dict[str, object] = {
        "record_id": record_id,
        "image": str(folder / f"photos/{record_id}.png"),
        "verdict": "anomalous",
        "anomaly_score": 0.9,
        "detector_score": 0.6,
        "reasoning": "A bright line crosses the ring.",
        "defects": (
            Defect("scratch", "a line", (20.0, 20.0, 40.0, 30.0), f"masks/{record_id}.png", 0.8),
        ),
        "raw_text": "<answer>anomalous</answer>",
        "status": "ok",
        "model": "nano",
        "category": "washer",
        "seconds": 2.0,
        "anomaly_map": f"maps/{record_id}.png",
        "reference": str(folder / f"photos/{record_id}.png"),
        "image_size_wh": (80, 60),
    }
    return Finding(**(fields | changes))  # type: ignore[arg-type]


def test_a_report_holds_pictures_marks_and_words(tmp_path: Path) -> None:
    path = write_report(tmp_path, [make_finding(tmp_path)], SETTINGS)
    page = read_page(path)
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    assert [picture.split(",")[0] for picture in pictures] == [
        "data:image/jpeg;base64",
        "data:image/jpeg;base64",
        "data:image/png;base64",
        "data:image/jpeg;base64",
    ]
    assert ("svg", "viewbox", "0 0 80 60") in page.attributes
    text = " ".join(page.text)
    for words in ("scratch", "a line", "0.80", "A bright line", "0.90", "0.60", "patch memory"):
        assert words in text


def test_nothing_is_loaded_from_outside(tmp_path: Path) -> None:
    page = read_page(write_report(tmp_path, [make_finding(tmp_path)], SETTINGS))
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    for _, name, value in page.attributes:
        if name in {"src", "href"}:
            assert value.startswith(("data:image/", "#"))
        assert not name.startswith("on") and name != "style"
    assert "url(" not in page.styles[0] and "@import" not in page.styles[0]


def test_the_policy_allows_exactly_the_pages_own_script_and_style(tmp_path: Path) -> None:
    page = read_page(write_report(tmp_path, [make_finding(tmp_path)], SETTINGS))
    policy = next(
        value
        for tag, name, value in page.attributes
        if tag == "meta" and name == "content" and value.startswith("default-src")
    )
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for source in (page.scripts[0], page.styles[0]):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert page.tags.count("script") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"image": f"nowhere/{ATTACK}.png"},
        {"category": ATTACK},
        {"reasoning": ATTACK},
        {"raw_text": f"</pre>{ATTACK}"},
        {"error": ATTACK},
        {"model": ATTACK},
        {"status": ATTACK},
        {"anomaly_map": ATTACK},
        {"reference": ATTACK},
        {"defects": (Defect(ATTACK, ATTACK, (0.0, 0.0, 9.0, 9.0), ATTACK),)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_markup_in_any_text_is_shown_and_never_run(
    changes: dict[str, object], tmp_path: Path
) -> None:
    plain = read_page(write_report(tmp_path, [make_finding(tmp_path)], SETTINGS))
    path = write_report(tmp_path, [make_finding(tmp_path, **changes)], SETTINGS | {ATTACK: ATTACK})
    page = read_page(path)
    assert page.tags.count("script") == plain.tags.count("script") == 1
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert not any(value == "x" for _, name, value in page.attributes if name == "src")
    assert "alert(1)" in " ".join(page.text)


@pytest.mark.parametrize("text", ["\ud83d", "\x00\x1b[0m", "日本\u2028🙂", "a" * 100_000])
def test_any_text_can_be_reported(text: str, tmp_path: Path) -> None:
    finding = make_finding(tmp_path, reasoning=text, raw_text=text, image=text, category=text)
    content = write_report(tmp_path, [finding], SETTINGS).read_text(encoding="utf-8")
    assert "\x00" not in content
    assert len(content) < 300_000


def test_a_missing_picture_is_shown_as_missing(tmp_path: Path) -> None:
    finding = make_finding(tmp_path, image="gone.png", reference=None)
    text = " ".join(read_page(write_report(tmp_path, [finding], SETTINGS)).text)
    assert "The picture cannot be shown" in text
    assert "gone.png" in text


@pytest.mark.parametrize("field", ["mask", "map"])
def test_a_damaged_mask_or_map_is_named(field: str, tmp_path: Path) -> None:
    finding = make_finding(tmp_path)
    (tmp_path / f"{field}s/r0.png").write_bytes(b"not a picture")
    text = " ".join(read_page(write_report(tmp_path, [finding], SETTINGS)).text)
    assert re.search(f"Cannot be shown: [^ ]*{field}s/r0.png", text)


def test_layers_take_the_shape_of_the_photograph(tmp_path: Path) -> None:
    finding = make_finding(tmp_path)
    Image.new("L", (16, 16), 200).save(tmp_path / "maps/r0.png")
    page = read_page(write_report(tmp_path, [finding], SETTINGS))
    pictures = [value for tag, name, value in page.attributes if (tag, name) == ("img", "src")]
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(picture.split(",")[1]))).size for picture in pictures
    ]
    assert sizes == [(80, 60)] * 4


def test_a_picture_changed_since_the_run_is_said(tmp_path: Path) -> None:
    finding = make_finding(tmp_path, image_size_wh=(800, 600))
    text = " ".join(read_page(write_report(tmp_path, [finding], SETTINGS)).text)
    assert "now 80 x 60 pixels, it was 800 x 600" in text


def test_pictures_are_found_below_the_image_root(tmp_path: Path) -> None:
    make_finding(tmp_path / "elsewhere")
    finding = make_finding(tmp_path, image="photos/r0.png", reference=None)
    (tmp_path / "photos/r0.png").unlink()
    path = write_report(tmp_path, [finding], SETTINGS, image_root=tmp_path / "elsewhere")
    assert "annot be shown" not in " ".join(read_page(path).text)


@pytest.mark.parametrize("changes", [{}, {"anomaly_map": None}], ids=["map", "no map"])
def test_a_switch_for_maps_is_there_where_a_map_is(
    tmp_path: Path, changes: dict[str, None]
) -> None:
    page = read_page(write_report(tmp_path, [make_finding(tmp_path, **changes)], SETTINGS))
    assert (("input", "value", "heat") in page.attributes) is not bool(changes)


def test_the_summary_counts_every_verdict(tmp_path: Path) -> None:
    verdicts = ["anomalous", "normal", "normal", "unread"]
    findings = [
        make_finding(tmp_path, f"r{index}", verdict=verdict, seconds=float(index))
        for index, verdict in enumerate(verdicts)
    ]
    content = write_report(tmp_path, findings, SETTINGS).read_text(encoding="utf-8")
    tiles = re.findall(r'class="tile (\w+)">.*?<dd>(\d+)<small>(\d+) %', content)
    assert tiles == [("anomalous", "1", "25"), ("normal", "2", "50"), ("unread", "1", "25")]
    assert "1.50<small>s" in content


def test_an_empty_run_gives_a_report_that_says_so(tmp_path: Path) -> None:
    text = " ".join(read_page(write_report(tmp_path / "new", [], {})).text)
    assert "No pictures were inspected" in text


def test_an_unread_picture_stands_between_anomalous_and_normal() -> None:
    ranks = [
        compute_rank(Finding("a", "a.png", verdict))  # type: ignore[arg-type]
        for verdict in ("anomalous", "unread", "normal")
    ]
    assert ranks == [1.0, 0.5, 0.0]
    assert compute_rank(Finding("a", "a.png", "normal", anomaly_score=float("nan"))) == 0.0


def test_beyond_the_limit_the_highest_scores_are_shown_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "MAX_CARDS", 2)
    findings = [
        make_finding(tmp_path, f"r{index}", anomaly_score=score)
        for index, score in enumerate([0.1, 0.9, 0.5])
    ]
    page = read_page(write_report(tmp_path, findings, SETTINGS))
    names = [v for tag, name, v in page.attributes if (tag, name) == ("article", "data-name")]
    assert names == ["r1.png", "r2.png"]
    assert "shows the 2 pictures with the highest scores" in " ".join(page.text)


def test_many_findings_get_smaller_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "THUMBNAIL_SIDES", ((1, 640), (2, 16)))
    findings = [make_finding(tmp_path, f"r{index}") for index in range(2)]
    large = write_report(tmp_path, findings[:1], SETTINGS).stat().st_size
    page = write_report(tmp_path, findings, SETTINGS).stat().st_size
    assert page < 2 * large


def test_an_unwritable_folder_is_named_and_the_old_report_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_report(tmp_path, [make_finding(tmp_path)], SETTINGS)
    before = path.read_bytes()

    def refuse(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(InputError, match=r"report\.html: cannot be written \(No space"):
        write_report(tmp_path, [], SETTINGS)
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".report-*"))
