"""anomalyr1 evaluate: figures with their intervals, from records whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
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
from anomalyr1.cli.evaluate_compare import compare
from anomalyr1.cli.evaluate_mmad import mmad, score
from anomalyr1.cli.inspect import check_choice, run_inspection
from anomalyr1.cli.options import (
    BatchSize,
    Device,
    Hint,
    Limit,
    Manifest,
    Masks,
    MeasuredModel,
    Sam2Model,
)
from anomalyr1.types import InputError, Metric, Record

if TYPE_CHECKING:
    from anomalyr1.evaluation.shot_draws import ShotDraw
    from anomalyr1.models import RecordInspector

app = typer.Typer(help="Measure a model on records.", no_args_is_help=True)
app.command("mmad")(mmad)
app.command("score")(score)
app.command("compare")(compare)


@app.command("records")
def records(
    records_file: Annotated[Path, typer.Argument(metavar="RECORDS", help="A records file.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for figures and report.")],
    model: MeasuredModel = "nano",
    hint: Hint = "auto",
    masks: Masks = "auto",
    sam2_model: Sam2Model = None,
    max_references: Annotated[
        int | None, typer.Option(min=0, help="Use at most the first so many references.")
    ] = None,
    shots: Annotated[
        list[int] | None,
        typer.Option(
            "--shots",
            min=0,
            help="References a category, drawn by --seed; repeat for 1, 2, 4 and 8 in one go.",
        ),
    ] = None,
    limit: Limit = None,
    draws: Annotated[
        int, typer.Option(min=1, help="With --shots: so many draws of references, seeds in a row.")
    ] = 1,
    manifest: Manifest = None,
    batch_size: BatchSize = 8,
    concurrency: Concurrency = 8,
    timeout: Timeout = 120,
    retries: Retries = 5,
    prices: Prices = None,
    seed: Annotated[int, typer.Option(help="Of the shots and the bootstrap, too.")] = 0,
    device: Device = "auto",
) -> None:
    """Inspect every record and compare with its truth: metrics.json, metrics.csv, report.html.

    With --shots, a folder for each number of shots, and shots.csv with their figures; with --draws,
    a folder for each draw of references too, and their mean with its interval.

    Examples:

      anomalyr1 evaluate records parts.jsonl --model nano --out results

      anomalyr1 evaluate records parts.jsonl -m detector:patch-memory --shots 1 --shots 4 --out few
    """
    from dataclasses import replace

    from anomalyr1.data.records import load_records
    from anomalyr1.data.shots import draw_shots
    from anomalyr1.evaluation.cases import pair_findings
    from anomalyr1.evaluation.overlap import word_overlap
    from anomalyr1.evaluation.shot_draws import average_draws, write_shots
    from anomalyr1.masks import MASKER_NAMES
    from anomalyr1.models import build_inspector, describe_weights

    check_choice("--masks", masks, MASKER_NAMES)
    if shots and max_references is not None:
        raise InputError("--shots and --max-references exclude each other: both choose references")
    loaded: Sequence[Record] = load_records(records_file, limit=None if shots else limit)
    if max_references is not None:
        loaded = [
            replace(record, reference_paths=record.reference_paths[:max_references])
            for record in loaded
        ]
    if draws > 1 and not shots:
        raise InputError("--draws are of the references that --shots draws: give --shots too")
    asking = read_asking(concurrency, timeout, retries, prices)
    runs = {
        (number, drawn): draw_shots(loaded, number, drawn)[:limit]
        for number in sorted(set(shots or ()))
        for drawn in range(seed, seed + draws)
    }
    loaded = loaded[:limit]
    for chosen in runs.values() if runs else [loaded]:
        pair_findings(chosen, [])  # records without a truth are refused before hours are spent
    overlap = word_overlap(manifest, next(iter(runs.values()), loaded))  # all judge the same ones
    if manifest is not None:
        out.print(Text(make_printable(overlap)))
    told = {"manifest": None if manifest is None else str(manifest), "overlap": overlap}
    settings: dict[str, object] = {
        "command": "evaluate records",
        "records": str(records_file),
        "model": model,
        "hint": hint,
        "masks": masks,
        "sam2_model": sam2_model,
        "max_references": max_references,
        "limit": limit,
        "seed": seed,
    }
    with wait_for_model(model):
        inspector = build_inspector(
            model,
            hint=hint,
            masks=masks,
            sam2_model=sam2_model,
            device=device,
            records=loaded,
            asking=asking,
        )
    settings |= describe_weights(model, hint, inspector)
    at_once = choose_batch_size(model, batch_size, asking)
    if not runs:
        metrics = _evaluate(inspector, loaded, out_dir, settings, told, at_once, seed)
        out.print(build_metric_table(metrics))
    measured: dict[ShotDraw, list[Metric]] = {}
    for (number, drawn), chosen in runs.items():
        err.print(f"{number}-shot" + (f", draw {drawn}" if draws > 1 else ""))
        folder = out_dir / f"shots_{number}"
        if draws > 1:
            folder = folder / f"draw_{drawn}"
        own = settings | {"shots": number, "seed": drawn}
        measured[number, drawn] = _evaluate(inspector, chosen, folder, own, told, at_once, drawn)
    print_usage(inspector)
    if measured:
        write_shots(out_dir / "shots.csv", measured)
        out.print(build_shots_table(average_draws(measured)))


def _evaluate(
    inspector: RecordInspector,
    records: Sequence[Record],
    out_dir: Path,
    settings: dict[str, object],
    told: Mapping[str, object],
    batch_size: int,
    seed: int,
) -> list[Metric]:
    """The figures of one run. `told` are settings on which no finding depends."""
    from anomalyr1.evaluation.records import compute_metrics, write_metrics
    from anomalyr1.evaluation.report import write_evaluation_report
    from anomalyr1.run_folder import load_map, load_united_mask

    results = run_inspection(inspector, records, out_dir, settings, batch_size, seed)
    findings = list(follow(results, "evaluating", len(records)))
    metrics = compute_metrics(
        records,
        findings,
        maps=lambda finding: load_map(out_dir, finding),
        masks=lambda finding: load_united_mask(out_dir, finding),
        seed=seed,
    )
    shown = {**settings, **told}
    write_metrics(out_dir, metrics, shown)
    report = write_evaluation_report(out_dir, metrics, records, findings, shown)
    err.print(f"report: {report}", highlight=False, soft_wrap=True)
    return metrics


def build_shots_table(measured: Mapping[int, Sequence[Metric]]) -> Table:
    """A row a metric, a column a number of shots, with the interval beneath."""
    table = Table(header_style="bold", title="mean over categories")
    table.add_column("metric", no_wrap=True)
    for number in measured:
        table.add_column(f"{number}-shot")
    by_key = {
        (number, metric.name): metric
        for number, metrics in measured.items()
        for metric in metrics
        if metric.subset == "mean"
    }
    for name in dict.fromkeys(name for _, name in by_key):
        cells = []
        for number in measured:
            metric = by_key[number, name]
            value = "undefined" if metric.value is None else f"{metric.value:.3f}"
            low, high = metric.ci_low, metric.ci_high
            cells.append(value + ("" if low is None else f"\n{low:.3f} to {high:.3f}"))
        table.add_row(name, *cells)
    return table


def build_metric_table(metrics: list[Metric]) -> Table:
    """The figures over all records, with their intervals."""
    table = Table(header_style="bold")
    for heading in ("metric", "value", "95 % interval", "n", "unread"):
        table.add_column(heading)
    for metric in metrics:
        if metric.subset != "all":
            continue
        value = "undefined" if metric.value is None else f"{metric.value:.3f}"
        interval = "" if metric.ci_low is None else f"{metric.ci_low:.3f} to {metric.ci_high:.3f}"
        table.add_row(metric.name, value, interval, str(metric.n), str(metric.n_unreadable))
    return table
