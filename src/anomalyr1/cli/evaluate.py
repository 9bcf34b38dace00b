"""anomalyr1 evaluate: figures with their intervals, from records whose truth is known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from anomalyr1.cli.console import err, follow, out, wait_for_model
from anomalyr1.cli.evaluate_compare import compare
from anomalyr1.cli.evaluate_mmad import mmad, score
from anomalyr1.cli.inspect import check_choice, run_inspection
from anomalyr1.types import Metric

app = typer.Typer(help="Measure a model on records.", no_args_is_help=True)
app.command("mmad")(mmad)
app.command("score")(score)
app.command("compare")(compare)


@app.command("records")
def records(
    records_file: Annotated[Path, typer.Argument(metavar="RECORDS", help="A records file.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for figures and report.")],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="As in inspect, or detector:patch-memory, detector:dinov2:ID, random, majority.",
        ),
    ] = "nano",
    hint: Annotated[str, typer.Option(help="As in inspect.")] = "auto",
    masks: Annotated[str, typer.Option(help="auto, map, grabcut, sam2 or none.")] = "auto",
    sam2_model: Annotated[str | None, typer.Option(help="As in inspect.")] = None,
    max_references: Annotated[
        int | None, typer.Option(min=0, help="Use at most the first so many references.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    seed: Annotated[int, typer.Option(help="Of the bootstrap, too.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
) -> None:
    """Inspect every record and compare with its truth: metrics.json, metrics.csv, report.html.

    Example: anomalyr1 evaluate records parts.jsonl --model nano --out results
    """
    from dataclasses import replace

    from anomalyr1.data.records import load_records
    from anomalyr1.evaluation.cases import pair_findings
    from anomalyr1.evaluation.records import compute_metrics, write_metrics
    from anomalyr1.evaluation.report import write_evaluation_report
    from anomalyr1.masks import MASKER_NAMES
    from anomalyr1.models import build_inspector
    from anomalyr1.run_folder import load_map, load_united_mask

    check_choice("--masks", masks, MASKER_NAMES)
    loaded = load_records(records_file)[:limit]
    if max_references is not None:
        loaded = [
            replace(record, reference_paths=record.reference_paths[:max_references])
            for record in loaded
        ]
    pair_findings(loaded, [])  # records without a truth are refused before hours are spent on them
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
            model, hint=hint, masks=masks, sam2_model=sam2_model, device=device, records=loaded
        )
    results = run_inspection(inspector, loaded, out_dir, settings, batch_size, seed)
    findings = list(follow(results, "evaluating", len(loaded)))
    metrics = compute_metrics(
        loaded,
        findings,
        maps=lambda finding: load_map(out_dir, finding),
        masks=lambda finding: load_united_mask(out_dir, finding),
        seed=seed,
    )
    write_metrics(out_dir, metrics, settings)
    report = write_evaluation_report(out_dir, metrics, loaded, findings, settings)
    out.print(build_metric_table(metrics))
    err.print(f"report: {report}", highlight=False, soft_wrap=True)


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
