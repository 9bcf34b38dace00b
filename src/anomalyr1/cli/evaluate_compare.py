"""anomalyr1 evaluate compare: runs side by side on the questions that all of them answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from anomalyr1.cli.console import err, make_printable, out
from anomalyr1.cli.evaluate_mmad import build_score_table, find_folders, read_settings
from anomalyr1.cli.options import Manifest

if TYPE_CHECKING:
    from anomalyr1.evaluation.mmad_scores import Table


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN RUN ...", help="Run folders, or files of answers."),
    ],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for compare.html.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder of the pictures; by default that of the runs.")
    ] = None,
    manifest: Manifest = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Compare runs with the first one: scores, paired differences, questions won and lost.

    Example: anomalyr1 evaluate compare results/base results/tuned --out results/compared
    """
    from anomalyr1.evaluation.answers import load_answers
    from anomalyr1.evaluation.compare import (
        build_run,
        compute_difference,
        compute_tables,
        find_common,
    )
    from anomalyr1.evaluation.compare_report import write_comparison
    from anomalyr1.evaluation.mmad_scores import PROTOCOLS
    from anomalyr1.evaluation.overlap import word_answers_overlap
    from anomalyr1.types import InputError

    if len(runs) < 2:
        raise InputError("one run alone cannot be compared: name two or more")
    settings = [read_settings(path) for path in runs]
    names = name_runs(runs)
    built = [build_run(name, load_answers(path)) for name, path in zip(names, runs, strict=True)]
    common = find_common(built)
    tables: dict[str, list[Table]] = {
        protocol: compute_tables(built, common, protocol, seed=seed) for protocol in PROTOCOLS
    }
    differences = [compute_difference(built[0], run, common, seed=seed) for run in built[1:]]
    folders = [data] if data is not None else find_folders(settings)
    known = manifest or next((Path(g["manifest"]) for g in settings if g.get("manifest")), None)
    overlap = word_answers_overlap(known, folders, {key[0] for key in common})
    path = write_comparison(
        out_dir, built, common, tables, differences,
        overlap=overlap, settings=settings, picture_folders=folders,
    )  # fmt: skip
    out.print(Text(make_printable(overlap)))
    for name, table in zip(names, tables["strict"], strict=True):
        out.print(Text(make_printable(name)))
        out.print(build_score_table(table))
    for one in differences:
        out.print(
            Text(
                f"{make_printable(one.name)} against {make_printable(names[0])}: "
                f"{one.points:+.1f} points ({one.ci_low:+.1f} to {one.ci_high:+.1f}), "
                f"{len(one.won)} won, {len(one.lost)} lost of {one.n}"
            )
        )
    err.print(f"report: {path}", highlight=False, soft_wrap=True)


def name_runs(paths: list[Path]) -> list[str]:
    """Names that differ: a run's folder or file, with its parent where two are called alike."""
    short = [path.resolve().stem if path.is_file() else path.resolve().name for path in paths]
    names = [
        name if short.count(name) == 1 else f"{path.resolve().parent.name}/{name}"
        for name, path in zip(short, paths, strict=True)
    ]
    return [
        name if names.count(name) == 1 else f"{name} ({place})"
        for place, name in enumerate(names, start=1)
    ]
