"""Keeps a picture that kills its worker from stopping a job: who was at work when one died.

A worker that is killed leaves its block's marker behind. After `WHOLE_TRIES` deaths the block is
done picture by picture, the marker naming the one at hand; a picture at which a worker then dies
is an error row.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

from anomalyr1.distributed.storage import exists, join, read_bytes, remove, write_whole
from anomalyr1.types import InputError

WHOLE_TRIES = 3


@dataclass(frozen=True, slots=True)
class Attempt:
    """How often a block was begun before, and the places of pictures that killed its worker."""

    tries: int = 0
    fatal: tuple[int, ...] = ()
    at: int | None = None

    @property
    def is_careful(self) -> bool:
        """Whether the block is to be done picture by picture."""
        return self.tries > WHOLE_TRIES


def begin(destination: str, number: int) -> Attempt:
    """Note that a block is begun, and say what became of it before."""
    place = _name(destination, number)
    last = Attempt()
    if exists(place):
        try:
            fields = json.loads(read_bytes(place))
            last = Attempt(int(fields["tries"]), tuple(fields["fatal"]), fields["at"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{place} cannot be read: remove it ({error})") from error
    fatal = last.fatal if last.at is None else (*last.fatal, last.at)
    attempt = Attempt(last.tries + 1, fatal)
    _write(destination, number, attempt)
    return attempt


def mark(destination: str, number: int, attempt: Attempt, place: int) -> None:
    """Note which picture of a block is at hand."""
    _write(destination, number, replace(attempt, at=place))


def end(destination: str, number: int) -> None:
    """The block is done."""
    remove(_name(destination, number))


def _write(destination: str, number: int, attempt: Attempt) -> None:
    fields = {"tries": attempt.tries, "fatal": list(attempt.fatal), "at": attempt.at}
    write_whole(_name(destination, number), json.dumps(fields).encode())


def _name(destination: str, number: int) -> str:
    return join(destination, f"attempts/part-{number:08d}.json")
