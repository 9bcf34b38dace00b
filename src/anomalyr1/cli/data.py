"""anomalyr1 data: records from folders, and training pictures from normal ones."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from anomalyr1.cli.console import err, follow, make_printable, out
from anomalyr1.cli.inspect import check_choice, check_out
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
    check_out(out_dir)
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
    layout: Annotated[str, typer.Argument(help="mmad, or one of --help's layouts.")],
    source: Annotated[Path, typer.Argument(help="The data set's folder; of coco, csv its file.")],
    out_path: Annotated[
        Path, typer.Option("--out", "-o", help="Folder to write to, or a .jsonl file.")
    ],
    split: Annotated[str | None, typer.Option(help="Only this split, such as test.")] = None,
    categories: Annotated[
        list[str] | None, typer.Option("--category", help="Only these; repeat the option.")
    ] = None,
    max_references: Annotated[
        int, typer.Option(min=0, help="Normal training pictures a test record refers to.")
    ] = 8,
    only_with_references: Annotated[
        bool, typer.Option(help="Leave out records that have no reference picture.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Which references are drawn.")] = 0,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Of mmad: go on without absent pictures.")
    ] = False,
    fix: Annotated[
        bool, typer.Option("--fix", help="Mend known faults, and masks that seem inverted.")
    ] = False,
) -> None:
    """Read a data set as it is published, check every file, count, and write records.

    Layouts: mvtec, loco, visa, visa-2cls-fewshot, visa-2cls-highshot, goodsad, btad, mpdd,
    kolektorsdd, kolektorsdd2, dagm, deeppcb, realiad, coco, yolo, csv, classes, folder; and mmad.

    A folder gets records.jsonl and import.json (counts, what differs from the published ones).

    Examples:

      anomalyr1 data import mvtec MVTec/hazelnut --split test --out hazelnut.jsonl

      anomalyr1 data import mmad MMAD --out mmad --fix
    """
    from anomalyr1.data.importing import ImportPlan, import_records
    from anomalyr1.data.layouts import LAYOUTS

    check_choice("LAYOUT", layout, ("mmad", *LAYOUTS))
    check_out(out_path.parent if out_path.suffix == ".jsonl" else out_path)
    done = import_records(
        ImportPlan(
            layout,
            source,
            out_path,
            split=split,
            categories=tuple(categories or ()),
            max_references=max_references,
            only_with_references=only_with_references,
            seed=seed,
            allow_missing=allow_missing,
            fix=fix,
        )
    )
    out.print(f"{done.records_file}: {done.num_records} records", highlight=False, soft_wrap=True)
    for line in done.notes:
        err.print(make_printable(line), highlight=False, soft_wrap=True)


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
    check_out(out_dir)
    plan = FewShot(shots, per, by_product, keep_duplicates, seed)
    split = split_fewshot(list(load_records(source)), plan)
    counts = write_fewshot(out_dir, split, source=source, questions=questions)
    for name, count in counts.items():
        out.print(f"{out_dir / name}: {count} records", highlight=False, soft_wrap=True)
    for line in describe_split(split):
        err.print(line, highlight=False, soft_wrap=True)


@app.command("questions")
def questions(
    source: Annotated[Path, typer.Argument(metavar="RECORDS", help="Records with labels.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for the questions.")],
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N records.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of options and their order.")] = 0,
) -> None:
    """Write multiple-choice questions of MMAD's seven subtasks from records' truth.

    The folder has MMAD's shape, pictures included.

    Example: anomalyr1 data questions nut.jsonl --out nut-questions

    Then: anomalyr1 evaluate mmad --data nut-questions --model nano --out results
    """
    from anomalyr1.data.question_file import write_question_file
    from anomalyr1.data.records import load_records

    check_out(out_dir)
    records = load_records(source, limit=limit)
    count = write_question_file(records, out_dir, seed=seed)
    out.print(
        f"{out_dir}: {count} questions on {len(records)} pictures", highlight=False, soft_wrap=True
    )


@app.command("export")
def export(
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for records and pictures.")],
    reviewed: Annotated[
        bool, typer.Option("--reviewed", help="What people reviewed at the station.")
    ] = True,
    data: Annotated[Path, typer.Option("--data", help="The station's folder.")] = Path("station"),
    url: Annotated[str | None, typer.Option("--db", help="The station's database.")] = None,
    seed: Annotated[int, typer.Option("--split-seed", help="Which fifth is held out.")] = 0,
) -> None:
    """Write what was reviewed at the station as records that train takes, a fifth held out.

    Example: anomalyr1 data export --reviewed --data station --out corrections
    """
    from anomalyr1.cli.serve import open_store
    from anomalyr1.server.exports import export_reviewed

    if not reviewed:
        raise InputError("only reviewed pictures have a truth: give --reviewed")
    check_out(out_dir)
    for name, count in export_reviewed(open_store(data, url), out_dir, seed=seed).items():
        out.print(f"{out_dir / name}: {count} records", highlight=False, soft_wrap=True)
