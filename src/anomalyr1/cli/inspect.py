"""anomalyr1 inspect: pictures in, verdicts, reasons, boxes, masks and a report out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from anomalyr1.cli.console import err, follow, make_printable, out, wait_for_model
from anomalyr1.cli.endpoint import (
    Concurrency,
    Prices,
    Retries,
    Timeout,
    choose_batch_size,
    print_usage,
    read_asking,
)
from anomalyr1.cli.options import (
    BatchSize,
    Device,
    Engine,
    Hint,
    Knowledge,
    Masks,
    MaxReferences,
    Model,
    Sam2Model,
)
from anomalyr1.reporting.findings import build_finding_line
from anomalyr1.reporting.inspection import write_report
from anomalyr1.types import Finding, InputError, Record

if TYPE_CHECKING:
    from anomalyr1.models import RecordInspector

EXAMPLES = """
Examples:

  anomalyr1 inspect photos/ --reference good_parts/ --out results

  anomalyr1 inspect part.jpg --json --fail-on-anomaly

  anomalyr1 inspect photos/ --model Qwen/Qwen2.5-VL-3B-Instruct --knowledge notes.txt

Exit codes: 0 done, 1 a picture could not be read, 2 wrong usage, 3 something is anomalous
(with --fail-on-anomaly).
"""


def inspect(
    paths: Annotated[list[Path], typer.Argument(help="Pictures, or folders that are walked.")],
    reference: Annotated[
        list[Path] | None,
        typer.Option("--reference", "-r", help="Normal pictures of the part: files or folders."),
    ] = None,
    knowledge: Knowledge = "",
    category: Annotated[str, typer.Option(help="Name of the part.")] = "",
    model: Model = "nano",
    engine: Engine = None,
    hint: Hint = "auto",
    masks: Masks = "auto",
    sam2_model: Sam2Model = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for findings, masks and report.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="JSON lines on stdout instead of a table.")
    ] = False,
    fail_on_anomaly: Annotated[
        bool, typer.Option(help="Exit with 3 when a picture is anomalous.")
    ] = False,
    max_references: MaxReferences = 16,
    batch_size: BatchSize = 8,
    concurrency: Concurrency = 8,
    timeout: Timeout = 120,
    retries: Retries = 5,
    prices: Prices = None,
    seed: Annotated[int, typer.Option(help="For whatever is drawn at random.")] = 0,
    device: Device = "auto",
) -> None:
    """Inspect pictures: a verdict, a score, the reasoning, boxes and masks for each."""
    from anomalyr1.masks import MASKER_NAMES
    from anomalyr1.models import build_inspector, describe_weights, name_model

    model = name_model(model, engine)
    check_choice("--masks", masks, MASKER_NAMES)
    asking = read_asking(concurrency, timeout, retries, prices)
    pictures = find_pictures(paths, out_dir)
    references = draw_references(reference or [], max_references, seed)
    text = read_knowledge(knowledge)
    records = [
        Record(str(path), path, category=category, knowledge=text, reference_paths=references)
        for path in pictures
    ]
    settings: dict[str, object] = {
        "command": "inspect",
        "model": model,
        "hint": hint,
        "masks": masks,
        "sam2_model": sam2_model,
        "category": category,
        "knowledge": text,
        "references": [str(path) for path in references],
        "seed": seed,
    }
    with wait_for_model(model):
        inspector = build_inspector(
            model, hint=hint, masks=masks, sam2_model=sam2_model, device=device, asking=asking
        )
    settings |= describe_weights(model, hint, inspector)
    at_once = choose_batch_size(model, batch_size, asking)
    results = run_inspection(inspector, records, out_dir, settings, at_once, seed)
    findings = []
    for finding in follow(results, "inspecting", len(records)):
        findings.append(finding)
        if as_json:
            typer.echo(build_finding_line(finding).rstrip("\n"))
    print_usage(inspector)
    if out_dir is not None:
        report = write_report(out_dir, findings, settings)
        err.print(f"report: {report}", highlight=False, soft_wrap=True)
    if not as_json:
        out.print(build_table(findings))
    raise typer.Exit(choose_exit_code(findings, fail_on_anomaly=fail_on_anomaly))


def run_inspection(
    inspector: RecordInspector,
    records: Sequence[Record],
    out_dir: Path | None,
    settings: Mapping[str, object],
    batch_size: int,
    seed: int,
) -> Iterator[Finding]:
    """Findings in the order of the records; into a run folder, where a killed run continues."""
    from anomalyr1.run_folder import RunFolder, inspect_into

    if out_dir is None:
        for inspection in inspector.inspect_records(records, batch_size=batch_size, seed=seed):
            yield inspection.finding
        return
    with RunFolder(out_dir, settings) as run:
        done = run.finished()
        if done:
            known = sum(record.record_id in done for record in records)
            err.print(f"continuing: {known} of {len(records)} are done")
        waiting = (record for record in records if record.record_id not in done)
        fresh = inspector.inspect_records(waiting, batch_size=batch_size, seed=seed)
        yield from inspect_into(run, records, fresh)


def check_out(folder: Path) -> None:
    """Raise InputError for an output folder that cannot be made or written to; makes nothing."""
    found = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    if not found.is_dir():
        raise InputError(f"--out {folder}: {found} is no folder; choose another --out")
    if not os.access(found, os.W_OK | os.X_OK):
        raise InputError(f"--out {folder}: {found} may not be written to; choose another --out")


def check_choice(flag: str, value: str, allowed: Sequence[str]) -> None:
    """Raise InputError for a value that is not allowed, naming those that are."""
    if value not in allowed:
        raise InputError(f"{flag} is {value!r}; choose one of {', '.join(allowed)}")


def find_pictures(paths: Sequence[Path], out_dir: Path | None) -> list[Path]:
    """The pictures of files and folders, without those that an earlier run wrote to `out_dir`.

    A run continues in a folder that may lie among the photographs: its masks are none of them.
    """
    from anomalyr1.images import find_images
    from anomalyr1.run_folder import CONFIG_FILE, PICTURE_FOLDERS

    pictures = find_images(paths)
    if out_dir is None or not (out_dir / CONFIG_FILE).is_file():
        return pictures
    written = {(out_dir / name).resolve() for name in PICTURE_FOLDERS}
    kept = [path for path in pictures if written.isdisjoint(path.resolve().parents)]
    if len(kept) < len(pictures):
        err.print(f"left out: {len(pictures) - len(kept)} pictures that a run wrote to {out_dir}")
    if not kept:
        raise InputError(f"all pictures named were written by a run to {out_dir}: name others")
    return kept


def draw_references(sources: Sequence[Path], max_references: int, seed: int) -> tuple[Path, ...]:
    """The reference pictures of files and folders; more than wanted are drawn from the seed."""
    from anomalyr1.images import check_image, find_images

    if not sources:
        return ()
    paths = find_images(sources)
    if len(paths) > max_references:
        paths = sorted(Random(seed).sample(paths, max_references))
    for path in paths:
        check_image(path)
    return tuple(paths)


def read_knowledge(given: str) -> str:
    """The text itself, or what the file of that name holds."""
    try:
        is_file = bool(given) and Path(given).is_file()
    except (OSError, ValueError):  # too long for a file's name: a text
        is_file = False
    if not is_file:
        return given.strip()
    try:
        return Path(given).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--knowledge {given} cannot be read as text: {error}") from error


def build_table(findings: Sequence[Finding], truth: Sequence[str] = ()) -> Table:
    """One row a picture: verdict, scores, defects, time, and the truth where it is known."""
    table = Table(header_style="bold")
    for heading in ("picture", "verdict", "score", "detector", "defects", "seconds"):
        table.add_column(heading, overflow="fold")
    if truth:
        table.add_column("truth")
    styles = {"anomalous": "bold red", "normal": "green", "unread": "yellow"}
    for number, finding in enumerate(findings):
        defects = ", ".join(defect.label or "defect" for defect in finding.defects)
        table.add_row(
            Text(make_printable(finding.image)),
            Text(finding.verdict, styles[finding.verdict]),
            _number(finding.anomaly_score),
            _number(finding.detector_score),
            Text(make_printable(finding.error or defects)),
            f"{finding.seconds:.2f}",
            *truth[number : number + 1],
        )
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def choose_exit_code(findings: Sequence[Finding], *, fail_on_anomaly: bool) -> int:
    """1 when a picture has an error, else 3 when one is anomalous and that is to fail, else 0."""
    if any(finding.error for finding in findings):
        return 1
    if fail_on_anomaly and any(finding.verdict == "anomalous" for finding in findings):
        return 3
    return 0
