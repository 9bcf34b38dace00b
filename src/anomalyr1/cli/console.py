"""What every command prints with: answers on stdout, progress and errors on stderr."""

from __future__ import annotations

import gc
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Item = TypeVar("Item")

# No markup and no emoji: names of files and what a model says are shown as they are.
out = Console(markup=False, emoji=False)
err = Console(stderr=True, markup=False, emoji=False)


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error in plain text and leave."""
    err.print("error:", style="bold red", end=" ")
    err.print(make_printable(message), highlight=False, soft_wrap=True)
    raise SystemExit(code)


@contextmanager
def wait_for_model(model: str) -> Iterator[None]:
    """Says on stderr that a model is being loaded, which stays until the command ends.

    Python's collector of cycles rests meanwhile and passes over what was loaded afterwards: to walk
    over all those modules, again and again, was a quarter of the time of loading.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with err.status(Text(f"loading {make_printable(model)}")):
            yield
        gc.freeze()
    finally:
        if collects:
            gc.enable()


def make_printable(text: str) -> str:
    """The text with what a terminal would obey, or could not encode, as U+FFFD.

    Names of files and the words of a model reach the terminal: an escape sequence in them must
    not, nor a lone surrogate, which is how Python reads a file name that is not UTF-8.

    >>> make_printable("crack" + chr(27) + "[2J")
    'crack�[2J'
    """
    return "".join(
        "\ufffd" if unicodedata.category(sign) in ("Cc", "Cs") and sign != "\n" else sign
        for sign in text
    )


def follow(items: Iterable[Item], label: str, total: int | None) -> Iterator[Item]:
    """The items, with a progress bar on stderr that says how long is left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=not sys.stderr.isatty()) as progress:
        yield from progress.track(items, total=total, description=label)
