"""anomalyr1 evaluate mmad and score: questions answered, and answers scored, as MMAD has it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
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
from anomalyr1.cli.inspect import check_choice, check_out
from anomalyr1.cli.options import Device, Limit, Manifest, MeasuredModel

if TYPE_CHECKING:
    from anomalyr1.evaluation.answers import Answer
    from anomalyr1.evaluation.mmad_scores import Table as ScoreTable

STEMS = {"mmad": "scores", "strict": "scores_strict"}


def mmad(
    data: Annotated[Path, typer.Option(help="MMAD's folder, or a question file of its shape.")],
    out_dir: Annotated[Path, typer.Option("--out", "-o", help="Folder for answers and scores.")],
    model: MeasuredModel = "nano",
    shots: Annotated[int, typer.Option(min=0, max=1, help="Normal pictures shown: 0 or 1.")] = 1,
    template: Annotated[str, typer.Option(help="similar or random: which of them.")] = "random",
    domain_knowledge: Annotated[
        bool, typer.Option("--domain-knowledge", help="Show MMAD's text on the product.")
    ] = False,
    subset: Annotated[
        list[str] | None,
        typer.Option(help="A data set, data set/product or subtask; may be given several times."),
    ] = None,
    limit: Limit = None,
    hint: Annotated[
        str, typer.Option(help="As in inspect; auto is none for openai: models.")
    ] = "auto",
    manifest: Manifest = None,
    allow_missing: Annotated[
        bool, typer.Option(help="Leave out questions whose picture is missing.")
    ] = False,
    fix: Annotated[bool, typer.Option(help="Mend MMAD's known faults; see data import.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Questions put at once.")] = 8,
    concurrency: Concurrency = 8,
    timeout: Timeout = 120,
    retries: Retries = 5,
    prices: Prices = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap and of chance.")] = 0,
    device: Device = "auto",
) -> None:
    """Answer MMAD's questions and score them: answers.jsonl, scores.csv, scores.json, report.html.

    One question a prompt, options in the published order, greedy; the product is not named. A run
    that was stopped or killed goes on when the command is given again.

    Example: anomalyr1 evaluate mmad --data MMAD --model nano --shots 1 --out results
    """
    from anomalyr1.data.mmad import load_mmad, name_picture, word_missing
    from anomalyr1.models import build_inspector, describe_weights
    from anomalyr1.preparation import WORKING_SIDE
    from anomalyr1.prompts import CHOICE_TEMPLATE_ID
    from anomalyr1.questioning import answer_into, choose_questions, part_missing
    from anomalyr1.types import InputError

    check_choice("--template", template, ("similar", "random"))
    if model.startswith("openai:") and hint == "auto":
        hint = "none"
    asking = read_asking(concurrency, timeout, retries, prices)
    loaded = load_mmad(data, allow_missing=True, fix=fix)
    for note in (*loaded.faults, *loaded.mended):
        err.print(Text(f"note: {make_printable(note)}"))
    records = choose_questions(
        loaded,
        shots=shots,
        template="similar" if template == "similar" else "random",
        domain_knowledge=domain_knowledge,
        subset=subset or (),
        limit=None if allow_missing else limit,
    )
    kept, missing = part_missing(records, loaded)
    if missing and not allow_missing:
        raise InputError(word_missing(missing, loaded.root))
    for path in missing:
        err.print(Text(f"missing: {make_printable(str(path))}"))
    if missing:
        left_out = len(records) - len(kept)
        err.print(f"{len(missing)} files are missing; {left_out} questions are left out")
    if not kept:
        raise InputError("no question is left to ask: check the data folder")
    records = kept[:limit]
    settings: dict[str, object] = {
        "command": "evaluate mmad",
        "data": str(data),
        "model": model,
        "shots": shots,
        "template": template if shots else None,
        "domain_knowledge": domain_knowledge,
        "hint": hint,
        "subset": sorted(subset or []),
        "limit": limit,
        "fix": fix,
        "batch_size": batch_size,
        "prompt": CHOICE_TEMPLATE_ID,
        "questions_per_prompt": 1,
        "option_order": "as published",
        "product_named": False,
        "answers_without_tags": "read",
        "decoding": "greedy",
        "image_side_at_most": WORKING_SIDE,
        "seed": seed,
        "manifest": None if manifest is None else str(manifest),
    }
    with wait_for_model(model):
        inspector = build_inspector(
            model, hint=hint, masks="none", device=device, records=records, asking=asking
        )
    settings |= describe_weights(model, hint, inspector)
    at_once = choose_batch_size(model, batch_size, asking)
    found = answer_into(out_dir, inspector, records, settings, batch_size=at_once, seed=seed)
    answers = list(follow(found, "answering", len(records)))
    print_usage(inspector)
    settings["missing_files"] = len(missing)
    if manifest is not None:
        settings["overlap"] = tell_overlap(manifest, settings, map(name_picture, records))
    write_both(out_dir, answers, settings, seed, ("mmad", "strict"), prices=asking.prices)
    failed = [str(one.details["error"]) for one in answers if one.details.get("error")]
    if failed:
        err.print(
            Text(
                f"{len(failed)} questions have no answer, the first for: "
                f"{make_printable(failed[0])}; give the command again to ask them again"
            )
        )
        raise typer.Exit(1)


def score(
    answers_file: Annotated[
        Path, typer.Argument(metavar="ANSWERS", help="A JSON list, JSON Lines, or a run's folder.")
    ],
    protocol: Annotated[
        str | None, typer.Option(help="mmad or strict; both when left out.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for scores.csv and scores.json.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Check the answers against this question file or folder.")
    ] = None,
    manifest: Manifest = None,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
) -> None:
    """Score answers from anywhere, those of MMAD's published runners too.

    With both protocols, scores.csv holds `mmad` and scores_strict.csv `strict`. For --manifest, the
    pictures are looked for in --data, or where the run's settings say.

    Example: anomalyr1 evaluate score answers_1_shot.json --protocol mmad --out results
    """
    from anomalyr1.data.mmad import load_mmad
    from anomalyr1.evaluation.answer_checks import check_answers
    from anomalyr1.evaluation.answers import load_answers
    from anomalyr1.evaluation.mmad_scores import PROTOCOLS

    if protocol is not None:
        check_choice("--protocol", protocol, PROTOCOLS)
    if out_dir is not None:
        check_out(out_dir)
    answers = load_answers(answers_file)
    notes = []
    if data is not None:
        notes = check_answers(answers, load_mmad(data, allow_missing=True).records)
    own = {"command": "evaluate score", "answers": str(answers_file), "seed": seed}
    given = {"data": data, "manifest": manifest}
    own |= {name: str(path) for name, path in given.items() if path is not None}
    settings = read_settings(answers_file) | own
    if manifest is not None:
        settings["overlap"] = tell_overlap(manifest, settings, (one.image for one in answers))
    chosen = (protocol,) if protocol else PROTOCOLS
    write_both(out_dir, answers, settings, seed, chosen, notes)


def write_both(
    out_dir: Path | None,
    answers: Sequence[Answer],
    settings: Mapping[str, object],
    seed: int,
    protocols: Sequence[str],
    notes: Sequence[str] = (),
    prices: tuple[float, float] | None = None,
) -> None:
    """Compute, write and print the tables; one protocol alone is always scores.csv."""
    from anomalyr1.engines.openai_engine import compute_cost
    from anomalyr1.evaluation.answer_checks import find_faults
    from anomalyr1.evaluation.compare_report import write_score_report
    from anomalyr1.evaluation.mmad_scores import compute_table
    from anomalyr1.evaluation.overlap import word_overlap
    from anomalyr1.evaluation.score_files import write_scores

    faults = [*notes, *find_faults(answers)]
    for fault in faults:
        err.print(Text(f"note: {make_printable(fault)}"))
    said = ", ".join(f"{name} {value}" for name, value in settings.items() if value is not None)
    out.print(Text(make_printable(said)))
    read, written = (
        sum(int(one.details.get(name) or 0) for one in answers)
        for name in ("num_prompt_tokens", "num_tokens")
    )
    if read or written:
        cost = "" if prices is None else f"; cost {compute_cost(read, written, prices):.4f}"
        out.print(f"tokens: {read} read, {written} written{cost}")
    for status, count in Counter(one.details.get("status") for one in answers).items():
        if status in ("error", "refused", "truncated", "malformed", "no_answer"):
            err.print(f"{count} answers are {status}", highlight=False)
    tables = [
        compute_table(answers, "strict" if name == "strict" else "mmad", seed=seed)
        for name in protocols
    ]
    for table in tables:
        out.print(build_score_table(table))
        if out_dir is not None:
            stem = STEMS[table.protocol] if len(tables) > 1 else "scores"
            path = write_scores(out_dir, table, settings=settings, faults=faults, stem=stem)
            err.print(f"{table.protocol}: {path}", highlight=False, soft_wrap=True)
    if out_dir is not None:
        overlap = str(settings.get("overlap") or word_overlap(None, ()))
        name = str(settings.get("model") or settings.get("answers"))
        report = write_score_report(
            out_dir / "report.html", name, tables, overlap=overlap, settings=settings
        )
        err.print(f"report: {report}", highlight=False, soft_wrap=True)


def tell_overlap(manifest: Path, settings: Mapping[str, object], images: Iterable[str]) -> str:
    """Print and return the overlap of training with answers' pictures, which are looked for in the
    data that the settings name."""
    from anomalyr1.evaluation.overlap import word_answers_overlap

    overlap = word_answers_overlap(manifest, find_folders([settings]), images)
    out.print(Text(make_printable(overlap)))
    return overlap


def find_folders(settings: Sequence[Mapping[str, object]]) -> list[Path]:
    """The data folders that the settings of runs name."""
    paths = [Path(str(given["data"])) for given in settings if given.get("data")]
    return list(dict.fromkeys(path if path.is_dir() else path.parent for path in paths))


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run folder; none for a file of answers."""
    from anomalyr1.reporting.run_files import read_json

    found, _problem = read_json(path / "config.json") if path.is_dir() else (None, "")
    return found if isinstance(found, dict) else {}


def build_score_table(table: ScoreTable) -> Table:
    """A table for the terminal: columns upright, since a terminal is narrower than MMAD's table,
    and two lines a cell, the value and its interval."""
    shown = Table(title=table.protocol, header_style="bold", box=SIMPLE_HEAD)
    shown.add_column("")
    for row in table.rows:
        shown.add_column(Text(make_printable(row)), justify="right", no_wrap=True)
    for column in table.columns:
        cells = [table.rows[row][column] for row in table.rows]
        name = Text(make_printable(column.replace(" ", "\n", 1)))
        shown.add_row(name, *(_word(cell.value, cell.ci_low, cell.ci_high) for cell in cells))
    counts = [table.rows[row]["Average"] for row in table.rows]
    shown.add_section()
    shown.add_row("n", *(str(cell.n) for cell in counts))
    shown.add_row("unread", *(str(cell.num_unread) for cell in counts))
    if table.protocol == "mmad":
        shown.add_row("skipped", *(str(cell.num_skipped) for cell in counts))
    return shown


def _word(value: float | None, low: float | None, high: float | None) -> Text:
    if value is None:
        return Text("-")
    interval = "" if low is None else f"\n{low:.0f} to {high:.0f}"
    return Text(f"{value:.2f}", "bold") + Text(interval, "dim")
