"""The command line: arguments only. Heavy imports wait until a command runs."""

from __future__ import annotations

import errno
import sys

import typer

from anomalyr1.cli import (
    adapt,
    batch,
    data,
    demo,
    evaluate,
    export,
    hub,
    inspect,
    model,
    serve,
    train,
)
from anomalyr1.cli.console import fail
from anomalyr1.types import InputError

app = typer.Typer(
    name="anomalyr1",
    help="Explained visual inspection: verdict, reason, boxes and masks for pictures of parts.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command("inspect")(inspect.inspect)
app.command("batch", epilog=batch.EXAMPLES)(batch.batch)
app.command("report")(batch.report)
app.command("demo")(demo.demo)
app.command("train")(train.train)
app.command("adapt")(adapt.adapt)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.add_typer(serve.store_app, name="store")
app.add_typer(model.app, name="model")
app.add_typer(hub.app, name="hub")
app.add_typer(data.app, name="data")
app.add_typer(evaluate.app, name="evaluate")

STOPPED = 130
"""Exit code of a run that was stopped with Ctrl-C: 128 + SIGINT, as shells have it."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Errors of a disk, or of a user's share of one, on which nothing more can be written."""


def main() -> None:
    """Entry point: an InputError or a full disk is one clear line on stderr and exit code 2."""
    try:
        app()
    except InputError as error:
        fail(str(error))
    except SystemExit as left:
        # Typer turns Ctrl-C into this code, without a word.
        if left.code == STOPPED:
            fail(
                "stopped; what is written stays, run the same command again to continue "
                "(train and adapt: with --resume)",
                STOPPED,
            )
        raise
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(141) from None
    except OSError as error:
        if error.errno not in FULL:
            raise
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{error.strerror}; free some space and give the command again")
