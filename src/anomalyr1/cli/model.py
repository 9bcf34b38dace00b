"""anomalyr1 model: which model a station uses, on what evidence, and who decided."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from anomalyr1.cli.console import err, follow, make_printable, out
from anomalyr1.cli.serve import Data, Url, open_store
from anomalyr1.types import InputError

app = typer.Typer(help="Which model a station uses.", no_args_is_help=True)

By = Annotated[str, typer.Option("--by", help="Who decides; default: who is logged in here.")]


@app.command("list")
def list_models(data: Data = Path("station"), url: Url = None) -> None:
    """Who promoted which model when, and on which evaluation; the last line is the current one."""
    from anomalyr1.server.promotions import load_promotions

    for row in load_promotions(open_store(data, url)):
        evidence = f" on evaluation {row.evaluation_id}" if row.evaluation_id else ""
        line = f"{row.created_at} {row.action} {row.model} by {row.person}{evidence}"
        out.print(make_printable(line), highlight=False, soft_wrap=True)


@app.command("evaluate")
def evaluate(
    model: Annotated[str, typer.Argument(help="A checkpoint folder, hub id or nano.")],
    data: Data = Path("station"),
    url: Url = None,
    split_seed: Annotated[
        int, typer.Option(help="Which reviewed pictures are held out, as in adapt.")
    ] = 0,
) -> None:
    """Measure a checkpoint beside the station's model, on the reviewed pictures held out.

    Example: anomalyr1 model evaluate runs/candidate/checkpoint --data station
    """
    from anomalyr1.server.learning import evaluate_candidate

    store = open_store(data, url)
    print_comparison(evaluate_candidate(store, model, split_seed=split_seed, follow=follow))


@app.command("promote")
def promote(
    model: Annotated[str, typer.Argument(help="A checkpoint folder, hub id or nano.")],
    data: Data = Path("station"),
    url: Url = None,
    person: By = "",
    without_evaluation: Annotated[
        bool, typer.Option("--without-evaluation", help="Promote what was not measured.")
    ] = False,
) -> None:
    """Make a checkpoint the station's model; a running server loads it within seconds.

    It must have been measured beside the current one, by adapt --from-store or model evaluate; the
    comparison is shown.

    Example: anomalyr1 model promote adapted/run/checkpoint --by Ann
    """
    from anomalyr1.server import promotions
    from anomalyr1.weights import hash_weights

    weights = hash_weights(model)
    store, name, who = open_store(data, url), promotions.name_model(model), _name_person(person)
    if without_evaluation:
        promotions.promote(
            store, name, who, comment="without evaluation", weights_sha256=weights or None
        )
    else:
        found = promotions.find_latest_evaluation(store, weights) if weights else None
        if found is None:
            raise InputError(
                f"{model} was not measured beside the station's model: run anomalyr1 model evaluate"
                f" {model} first, or give --without-evaluation"
            )
        print_comparison(promotions.promote_candidate(store, found.id, who))
    err.print(make_printable(f"{name} is the station's model"), highlight=False, soft_wrap=True)


@app.command("rollback")
def roll_back(data: Data = Path("station"), url: Url = None, person: By = "") -> None:
    """Return to the model before the current one; again: to the one before that."""
    from anomalyr1.server import promotions

    name = promotions.roll_back(open_store(data, url), _name_person(person))
    out.print(f"{name} is the station's model again", highlight=False, soft_wrap=True)


def print_comparison(comparison: dict[str, Any]) -> None:
    """The comparison as a table on stdout."""
    for side in ("current", "candidate"):
        model, weights = comparison[side]["model"], comparison[side]["weights_sha256"]
        out.print(make_printable(f"{side}: {model} ({weights[:12]})"), soft_wrap=True)
    table = Table("figure", "pictures", "n", "current", "candidate")
    table.columns[0].overflow = "fold"  # a name cut short is no name
    for row in comparison["metrics"]:
        cells = (row["name"], "all" if row["subset"] == "all" else row["subset"])
        sides = [_format(row[side]) for side in ("current", "candidate")]
        texts = [*cells, str(row["candidate"]["n"]), *sides]
        table.add_row(*(Text(make_printable(text)) for text in texts))
    out.print(table)
    paired = comparison["paired"]
    out.print(
        f"of {comparison['num_pictures']} held-out pictures: "
        f"only the candidate right {paired['only_candidate']}, "
        f"only the current {paired['only_current']}, both {paired['both_right']}, "
        f"neither {paired['both_wrong']}; p = {paired['p_value']:.3f} (McNemar, exact)",
        soft_wrap=True,
    )


def _format(figure: dict[str, Any]) -> str:
    if figure["value"] is None:
        return "-"
    if figure["low"] is None:
        return f"{figure['value']:.3f}"
    return f"{figure['value']:.3f} ({figure['low']:.2f} to {figure['high']:.2f})"


def _name_person(given: str) -> str:
    return given or getpass.getuser()
