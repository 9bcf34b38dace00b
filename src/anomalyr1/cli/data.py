"""anomalyr1 data: records from folders, and training pictures from normal ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from anomalyr1.cli.console import err, follow, out
from anomalyr1.cli.inspect import check_choice
from anomalyr1.types import InputError

app = typer.Typer(help="Make and read records.", no_args_is_help=True)


@app.command("synthesize")
def synthesize(
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for pictures and records.")],
    num_products: Annotated[int, typer.Option("--products", min=1, help="Designs.")] = 60,
    num_queries: Annotated[int, typer.Option("--queries", min=1, help="Pictures a design.")] = 4,
    num_references: Annotated[int, typer.Option("--references", min=0)] = 4,
    size: Annotated[int, typer.Option(min=64, help="Side in pixels.")] = 352,
    normal: Annotated[
        Path | None, typer.Option(help="Folder of your own normal pictures to paint defects on.")
    ] = None,
    material: Annotated[
        Path | None, typer.Option(help="Folder of photographs of materials to cut parts from.")
    ] = None,
    categories: Annotated[
        list[str] | None, typer.Option("--category", help="Draw only these; repeat the option.")
    ] = None,
    seed: Annotated[int, typer.Option()] = 0,
    num_workers: Annotated[int, typer.Option("--workers", min=1)] = os.cpu_count() or 1,
) -> None:
    """Draw parts, or take normal pictures, and paint defects whose truth is exact.

    Example: anomalyr1 data synthesize --out drawn --products 200
    """
    from anomalyr1.data.synthesis import (
        Synthesis,
        draw_contact_sheet,
        synthesize,
        write_splits,
    )

    if normal is not None and material is not None:
        raise InputError("--normal and --material exclude each other: run the command twice")
    plan = Synthesis(
        out_dir,
        num_products,
        num_references,
        num_queries,
        size,
        seed,
        normal,
        material,
        tuple(categories or ()),
    )
    records = []
    for product in follow(synthesize(plan, num_workers=num_workers), "drawing", num_products):
        records.extend(product)
    counts = write_splits(plan, records)
    draw_contact_sheet(records[:96], out_dir / "contact_sheet.png")
    for split, count in counts.items():
        out.print(f"{out_dir / split}.jsonl: {count} records", highlight=False, soft_wrap=True)
    err.print(f"look at {out_dir / 'contact_sheet.png'}", highlight=False, soft_wrap=True)


@app.command("import")
def import_layout(
    layout: Annotated[str, typer.Argument(help="mvtec, deeppcb or folder.")],
    source: Annotated[Path, typer.Argument(help="The data set's folder.")],
    out_file: Annotated[Path, typer.Option("--out", "-o", help="Records file to write.")],
    split: Annotated[str | None, typer.Option(help="Only this split, such as test.")] = None,
    max_references: Annotated[
        int, typer.Option(min=0, help="Normal training pictures a test record refers to.")
    ] = 8,
    only_with_references: Annotated[
        bool, typer.Option(help="Leave out records that have no reference picture.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Which references are drawn.")] = 0,
) -> None:
    """Read a data set's folder as it is published and write records.

    Example: anomalyr1 data import mvtec MVTec/hazelnut --split test --out hazelnut.jsonl
    """
    from anomalyr1.data.layouts import LAYOUTS
    from anomalyr1.data.record_checks import find_problems
    from anomalyr1.data.records import write_records

    check_choice("LAYOUT", layout, tuple(LAYOUTS))
    if layout == "folder":
        records = LAYOUTS[layout](source)
    else:
        records = LAYOUTS[layout](source, max_references=max_references, seed=seed)
    if split is not None:
        records = [record for record in records if record.split == split]
    if only_with_references:
        records = [record for record in records if record.reference_paths]
    if not records:
        wanted = "" if split is None else f" of split {split!r}"
        which = " with references" if only_with_references else ""
        raise InputError(f"{source} has no records{wanted}{which}")
    problems = [problem for found in find_problems(records) for problem in found]
    if problems:
        more = [f"... and {len(problems) - 20} more problems"] if len(problems) > 20 else []
        raise InputError("\n".join([*problems[:20], *more]))
    write_records(out_file, records)
    out.print(f"{out_file}: {len(records)} records", highlight=False, soft_wrap=True)


@app.command("fewshot")
def fewshot(
    source: Annotated[Path, typer.Argument(metavar="RECORDS", help="Records with labels.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the split.")],
    shots: Annotated[int, typer.Option(min=1, help="Training pictures of each kind.")],
    per: Annotated[
        str,
        typer.Option(
            help="defect: a kind is a defect type of a category, or its normal parts; "
            "category: its anomalous or its normal parts."
        ),
    ] = "defect",
    by_product: Annotated[
        bool, typer.Option("--by-product", help="Test on products that are not trained on.")
    ] = False,
    questions: Annotated[
        bool, typer.Option("--questions", help="Also write multiple-choice questions.")
    ] = False,
    keep_duplicates: Annotated[
        bool,
        typer.Option(
            "--keep-duplicates", help="Train on near-duplicates of pictures to test on, too."
        ),
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Which pictures are drawn.")] = 0,
) -> None:
    """Split records into a few pictures to train on and others to test on.

    Example: anomalyr1 data fewshot nut.jsonl --shots 4 --questions --out nut-4-shot
    """
    from anomalyr1.data.fewshot import PER, FewShot, describe_split, split_fewshot
    from anomalyr1.data.fewshot_files import write_fewshot
    from anomalyr1.data.records import load_records

    check_choice("--per", per, PER)
    plan = FewShot(shots, per, by_product, keep_duplicates, seed)
    split = split_fewshot(load_records(source), plan)
    counts = write_fewshot(out_dir, split, source=source, questions=questions)
    for name, count in counts.items():
        out.print(f"{out_dir / name}: {count} records", highlight=False, soft_wrap=True)
    for line in describe_split(split):
        err.print(line, highlight=False, soft_wrap=True)


@app.command("export")
def export(
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for records and pictures.")],
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="What people reviewed at the station.")
    ] = True,
    data: Annotated[Path, typer.Option("--data", help="The station's folder.")] = Path("station"),
    url: Annotated[str | None, typer.Option("--db", help="The station's database.")] = None,
) -> None:
    """Write what was reviewed at the station as records that train takes, a fifth held out.

    Example: anomalyr1 data export --reviewed --data station --out corrections
    """
    from anomalyr1.cli.serve import open_store
    from anomalyr1.server.exports import export_reviewed

    if not reviewed:
        raise InputError("only reviewed pictures have a truth: give --reviewed")
    for name, count in export_reviewed(open_store(data, url), out_dir).items():
        out.print(f"{out_dir / name}: {count} records", highlight=False, soft_wrap=True)
