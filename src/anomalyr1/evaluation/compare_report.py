"""The page of a comparison: one HTML file without network or script, and its numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from anomalyr1.evaluation.answers import Answer, Key, is_same_text
from anomalyr1.evaluation.compare import Difference, Run
from anomalyr1.evaluation.mmad_scores import AVERAGE, MEASURES, Cell, Table
from anomalyr1.evaluation.published import PUBLISHED
from anomalyr1.evaluation.score_files import DEFINITIONS
from anomalyr1.images import write_bytes_atomic
from anomalyr1.reporting.layers import encode_thumbnail
from anomalyr1.reporting.page import build_page_environment, write_page

QUESTIONS_SHOWN = 24
"""Questions won, and lost, that a page shows of each run."""

THUMBNAIL_SIDE = 240


def write_comparison(
    out_dir: Path,
    runs: Sequence[Run],
    common: Sequence[Key],
    tables: Mapping[str, Sequence[Table]],
    differences: Sequence[Difference],
    *,
    overlap: str,
    settings: Sequence[Mapping[str, object]],
    picture_folders: Sequence[Path] = (),
) -> Path:
    """Write compare.html and compare.json; returns the page's path.

    Pictures are looked for below `picture_folders` and embedded small; one that cannot be read is
    shown as missing. `overlap` is the page's first line.
    """
    names = [run.name for run in runs]
    averages = {
        protocol: {name: table.rows[AVERAGE] for name, table in zip(names, group, strict=True)}
        for protocol, group in tables.items()
    }
    page = _render_page(
        averages,
        title=f"Comparison: {', '.join(names)}",
        heading=f"{len(names)} runs on the same questions",
        said=f"{len(common):,} questions that all of them answered",
        overlap=overlap,
        names=names,
        row_heading="Run",
        differences=[show_difference(one, runs, picture_folders) for one in differences],
        settings=_gather_settings(settings),
    )
    document = {
        "overlap": overlap,
        "num_questions": len(common),
        "runs": [
            {
                "name": name,
                "settings": dict(given),
                "scores": {
                    protocol: {
                        row: {column: asdict(cell) for column, cell in cells.items()}
                        for row, cells in group[place].rows.items()
                    }
                    for protocol, group in tables.items()
                },
            }
            for place, (name, given) in enumerate(zip(names, settings, strict=True))
        ],
        "differences": [asdict(one) for one in differences],
        "quoted": _list_published(),
    }
    path = out_dir / "compare.html"
    write_page(path, [page])
    text = json.dumps(document, indent=2, ensure_ascii=True, allow_nan=False)
    write_bytes_atomic(out_dir / "compare.json", (text + "\n").encode())
    return path


def write_score_report(
    path: Path,
    name: str,
    tables: Sequence[Table],
    *,
    overlap: str,
    settings: Mapping[str, object],
) -> Path:
    """Write the page of one run: a table a protocol, a row a data set, quoted rows beside."""
    num_questions = tables[0].rows[AVERAGE][AVERAGE].n
    if tables[0].protocol == "mmad":  # which drops answers
        cell = tables[0].rows[AVERAGE][AVERAGE]
        num_questions += cell.num_unread + cell.num_skipped
    page = _render_page(
        {table.protocol: table.rows for table in tables},
        title=f"Scores: {name}",
        heading=name,
        said=f"{num_questions:,} questions answered",
        overlap=overlap,
        names=[name],
        row_heading="Data set",
        differences=[],
        settings=_gather_settings([settings]),
    )
    write_page(path, [page])
    return path


def _render_page(tables: Mapping[str, Mapping[str, Mapping[str, Cell]]], **context: object) -> str:
    """The page with a table a protocol: its rows' cells by column. Columns that no row has a value
    in are left out."""
    rows = [cells for group in tables.values() for cells in group.values()]
    known = {name for cells in rows for name, cell in cells.items() if cell.value is not None}
    return (
        build_page_environment()
        .get_template("compare.html.j2")
        .render(
            columns=[column for column in rows[0] if column in known],
            measures=[column for column in MEASURES if column != AVERAGE],
            tables=[
                {
                    "protocol": protocol,
                    "definition": DEFINITIONS[protocol],
                    "rows": list(group.items()),
                }
                for protocol, group in tables.items()
            ],
            published=_list_published(),
            **context,
        )
    )


def _list_published() -> list[dict[str, Any]]:
    return [{**asdict(row), "known": dict(row.cells)} for row in PUBLISHED]


def _gather_settings(settings: Sequence[Mapping[str, object]]) -> list[tuple[str, list[str]]]:
    names = list(dict.fromkeys(name for given in settings for name in given))
    return [(name, [str(given.get(name, "")) for given in settings]) for name in names]


def show_difference(
    one: Difference, runs: Sequence[Run], folders: Sequence[Path]
) -> dict[str, Any]:
    """What the page shows of a run against the first one: its figures, and questions with their
    pictures, letters as the first run has them."""
    pair = [runs[0], next(run for run in runs if run.name == one.name)]
    return {
        "name": one.name, "points": one.points, "ci_low": one.ci_low, "ci_high": one.ci_high,
        "n": one.n, "is_clear": one.is_clear, "num_won": len(one.won), "num_lost": len(one.lost),
        "won": [_show_question(key, pair, folders) for key in one.won[:QUESTIONS_SHOWN]],
        "lost": [_show_question(key, pair, folders) for key in one.lost[:QUESTIONS_SHOWN]],
    }  # fmt: skip


def _show_question(key: Key, pair: Sequence[Run], folders: Sequence[Path]) -> dict[str, Any]:
    answer = pair[0].answers[key]
    chosen: dict[str, list[str]] = {}
    unread = []
    for run in pair:
        given = run.answers[key]
        if given.is_read:
            chosen.setdefault(_find_letter(answer, given), []).append(run.name)
        else:
            unread.append(run.name)
    return {
        "image": answer.image,
        "subtask": answer.subtask,
        "question": answer.asked,
        "options": list(answer.options.items()),
        "right": answer.correct_answer,
        "chosen": chosen,
        "unread": unread,
        "picture": _encode_picture(answer.image, folders),
    }


def _find_letter(shown: Answer, given: Answer) -> str:
    """The letter, in the order of options that is shown, of what was answered in another order."""
    said = given.options.get(given.given, "")
    letters = [letter for letter, text in shown.options.items() if is_same_text(text, said)]
    return given.given if given.given in letters or not letters else letters[0]


def _encode_picture(image: str, folders: Sequence[Path]) -> str:
    """A JPEG data URI, empty where no folder holds the picture. Paths from a file of answers must
    not reach out of the folder."""
    for folder in folders:
        path = (folder / image).resolve()
        if path.is_relative_to(folder.resolve()) and path.is_file():
            return encode_thumbnail(path, THUMBNAIL_SIDE)
    return ""
