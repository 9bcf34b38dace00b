"""anomalyr1 batch: a folder, list or bucket of pictures into Parquet, on Ray Data."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from anomalyr1.cli.console import err, follow, out
from anomalyr1.cli.inspect import check_choice, draw_references, read_knowledge
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
from anomalyr1.types import InputError

EXAMPLES = """
Examples:

  anomalyr1 batch photos/ --out findings --num-workers 2

  anomalyr1 batch s3://bucket/parts --out s3://bucket/findings --reference good/ --address auto

  anomalyr1 batch list.parquet --out findings --engine openai:http://localhost:8000/v1 --model NAME

A job that was stopped or killed goes on when the command is given again.
"""


def batch(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC", help="Folder, .jsonl records or .parquet list; a path or an fsspec URL."
        ),
    ],
    out_dir: Annotated[
        str, typer.Option("--out", "-o", metavar="DEST", help="Folder or fsspec URL to write.")
    ],
    reference: Annotated[
        list[Path] | None,
        typer.Option("--reference", "-r", help="Normal pictures, for all that name none."),
    ] = None,
    knowledge: Knowledge = "",
    category: Annotated[
        str, typer.Option(help="Name of the part; else the first folder below SRC.")
    ] = "",
    model: Model = "nano",
    engine: Engine = None,
    hint: Hint = "auto",
    masks: Masks = "auto",
    sam2_model: Sam2Model = None,
    max_references: MaxReferences = 16,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster (auto, HOST:PORT); else Ray starts here.")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Processes with a model each; else one a core here.")
    ] = None,
    gpus_per_worker: Annotated[
        float, typer.Option(min=0, help="GPUs, or a share of one, that each worker gets.")
    ] = 0.0,
    block_size: Annotated[
        int, typer.Option(min=1, help="Pictures of a category that a worker does at a time.")
    ] = 64,
    batch_size: BatchSize = 8,
    seed: Annotated[int, typer.Option(help="For whatever is drawn at random.")] = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The manifest on stdout.")] = False,
) -> None:
    """Inspect any number of pictures on many workers; findings as Parquet, masks as COCO RLE."""
    from anomalyr1.distributed.job import (
        Pool,
        add_counts,
        claim_destination,
        close_job,
        plan_job,
        run_job,
    )
    from anomalyr1.distributed.plan import list_items
    from anomalyr1.distributed.worker import Job
    from anomalyr1.masks import MASKER_NAMES
    from anomalyr1.models import check_model, describe_weights, name_model
    from anomalyr1.prompts import INSPECTION_TEMPLATE_ID

    model = name_model(model, engine)
    check_choice("--masks", masks, MASKER_NAMES)
    check_model(model)
    check_installed()
    references = draw_references(reference or [], max_references, seed)
    job = Job(_resolve(out_dir), model, hint, masks, sam2_model, device, batch_size, seed)
    text = read_knowledge(knowledge)
    settings: dict[str, object] = {
        "command": "batch",
        "source": _resolve(source),
        "model": model,
        "prompt": INSPECTION_TEMPLATE_ID,
        "hint": hint,
        "masks": masks,
        "sam2_model": sam2_model,
        "category": category,
        "knowledge": text,
        "references": [str(path.resolve()) for path in references],
        "block_size": block_size,
        "seed": seed,
        **describe_weights(model, hint),
    }
    claim_destination(job.destination, settings)
    items = list_items(
        _resolve(source),
        category=category,
        references=tuple(str(path.resolve()) for path in references),
        knowledge=text,
    )
    with err.status("listing pictures"):
        size = plan_job(job.destination, items, block_size)
    err.print(f"pictures: {size.num_pictures}, blocks: {size.num_blocks}", highlight=False)
    workers = num_workers or (os.cpu_count() or 1 if address is None else 0)
    if not workers:
        raise InputError("--address needs --num-workers: how many of the cluster's may work")
    totals: dict[str, int] = {"rows": 0}
    pool = Pool(min(workers, size.num_blocks), address, gpus_per_worker)
    for outcome in follow(run_job(job, size.num_blocks, pool), "blocks", size.num_blocks):
        add_counts(totals, outcome.counts)
    manifest = close_job(job.destination, size, totals, settings)
    if as_json:
        typer.echo(json.dumps(manifest))
    else:
        out.print(
            f"{totals['rows']} pictures: {totals['anomalous']} anomalous, {totals['normal']} "
            f"normal, {totals['unread']} unread, {totals['errors']} of them with an error",
            highlight=False,
        )
    raise typer.Exit(1 if totals["errors"] else 0)


def report(
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="What batch wrote: a folder or an fsspec URL.")
    ],
    out_dir: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of the report; else DEST/report, or report."),
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, help="Pictures shown, the most anomalous first.")
    ] = 500,
) -> None:
    """Write the report of a finished batch job: counts over all, and the most anomalous pictures.

    Example: anomalyr1 report findings --limit 200
    """
    from anomalyr1.distributed.reading import write_batch_report
    from anomalyr1.distributed.storage import is_url

    check_installed()
    folder = out_dir or (Path("report") if is_url(destination) else Path(destination) / "report")
    path = write_batch_report(destination, folder, limit)
    out.print(str(path), highlight=False, soft_wrap=True)


def check_installed() -> None:
    """Raise InputError where the packages of the extra `batch` are not all there."""
    for name in ("fsspec", "pyarrow", "ray"):
        if find_spec(name) is None:
            raise InputError(f"{name} is missing: pip install 'anomalyr1[batch]'")


def _resolve(place: str) -> str:
    """A local path seen from anywhere, since workers have folders of their own."""
    from anomalyr1.distributed.storage import is_url

    return place if is_url(place) else str(Path(place).resolve())
