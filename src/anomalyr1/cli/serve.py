"""anomalyr1 serve and store: the inspection station and its keeping."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalyr1.cli.console import err, out
from anomalyr1.cli.options import Hint
from anomalyr1.types import InputError

if TYPE_CHECKING:
    from anomalyr1.server.store import Store

store_app = typer.Typer(help="Back up, verify and prune a station's store.", no_args_is_help=True)

Data = Annotated[
    Path, typer.Option("--data", help="Folder of the station's pictures and database.")
]
Url = Annotated[
    str | None,
    typer.Option("--db", help="postgresql://... or sqlite:///FILE; default: in --data."),
]


def serve(
    host: Annotated[
        str, typer.Option(help="Address; another than this machine's needs --token.")
    ] = ("127.0.0.1"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Checkpoint; default: the promoted one, else nano."),
    ] = None,
    data: Data = Path("station"),
    url: Url = None,
    token: Annotated[
        str | None, typer.Option(envvar="ANOMALYR1_TOKEN", help="What clients must know.")
    ] = None,
    hint: Hint = "auto",
    batch_size: Annotated[int, typer.Option(min=1)] = 8,
    max_waiting: Annotated[
        int, typer.Option("--queue", min=1, help="Pictures that may wait; more get 429.")
    ] = 256,
    drain_seconds: Annotated[
        float, typer.Option("--drain", min=0, help="Seconds to finish accepted work at the end.")
    ] = 60.0,
) -> None:
    """Start the inspection station: pages, API and queue, on http://127.0.0.1:8000.

    Example: anomalyr1 serve --data station
    """
    try:
        from anomalyr1.server.run import run_station
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is missing: pip install 'anomalyr1[serve]'") from error

    err.print(f"http://{host}:{port}  store: {data}", highlight=False, soft_wrap=True)
    run_station(
        data,
        url,
        host=host,
        port=port,
        model=model,
        hint=hint,
        token=token,
        batch_size=batch_size,
        max_waiting=max_waiting,
        drain_seconds=drain_seconds,
    )


def open_store(data: Path, url: str | None) -> Store:
    """A store that is there. Raises InputError for a folder without one."""
    from anomalyr1.server.store import Store

    if not (data / "pictures").is_dir():
        raise InputError(f"{data} holds no station: name its folder with --data")
    return Store.open(data, url)


@store_app.command("verify")
def verify(data: Data = Path("station"), url: Url = None) -> None:
    """Compare every row with its file and every file with its hash; exit code 1 for a problem."""
    from anomalyr1.server.maintenance import verify_store

    health = verify_store(open_store(data, url))
    for problem in health.problems:
        err.print(problem, highlight=False, soft_wrap=True)
    out.print(
        f"{len(health.problems)} problems; {health.num_pictures} pictures, "
        f"{health.num_inspections} inspections ({health.num_waiting} waiting), "
        f"{health.num_loose} files without a row",
        highlight=False,
    )
    raise typer.Exit(1 if health.problems else 0)


@store_app.command("backup")
def backup(target: Path, data: Data = Path("station"), url: Url = None) -> None:
    """Copy a SQLite store to a new folder; a server may run meanwhile.

    Example: anomalyr1 store backup backups/monday
    """
    from anomalyr1.server.maintenance import back_up_store

    count = back_up_store(open_store(data, url), target)
    out.print(f"{target}: database and {count} pictures", highlight=False, soft_wrap=True)


@store_app.command("prune")
def prune(
    data: Data = Path("station"),
    url: Url = None,
    days: Annotated[
        int | None, typer.Option(min=1, help="Remove inspections older than this, not reviewed.")
    ] = None,
) -> None:
    """Remove old inspections that nobody reviewed, and pictures that nothing names."""
    from anomalyr1.server.maintenance import prune_store

    num_inspections, num_files = prune_store(open_store(data, url), days=days)
    out.print(f"removed {num_inspections} inspections and {num_files} files", highlight=False)
