"""Reads files of a run that may be missing, cut off or odd; what is wrong is put into words."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any


def read_number(value: object) -> float | None:
    """A finite number a page can draw; None for all else.

    >>> read_number(2), read_number(float("nan")), read_number(True), read_number("0.5")
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    # Squares and differences of larger ones are no longer finite.
    return number if math.isfinite(number) and abs(number) < 1e100 else None


def read_json(path: Path) -> tuple[Any, str]:
    """What a JSON file holds and "", or None and what is wrong with it."""
    try:
        return json.loads(path.read_bytes().decode("utf-8", errors="replace")), ""
    except FileNotFoundError:
        return None, "is missing"
    except (OSError, ValueError, RecursionError) as error:
        return None, f"cannot be read ({str(error)[:200]})"


def read_optional_json(path: Path, problems: list[str]) -> Any:
    """What a file holds, None where it is missing or, told in `problems`, cannot be read."""
    value, problem = read_json(path)
    if problem and problem != "is missing":
        problems.append(f"{path.name} {problem}.")
    return value


def read_lines(path: Path, problems: list[str]) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file, in order; what else it holds is told in `problems`.

    A run that was killed leaves half a line at its end. A missing file has no lines.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{path.name} cannot be read ({error.strerror or error}).")
        return []
    *whole, rest = text.split("\n")
    lines, num_bad = [], 0
    for number, line in enumerate([*whole, rest]):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict):
            lines.append(value)
        elif number == len(whole):
            problems.append(f"The last line of {path.name} is cut off and left out.")
        else:
            num_bad += 1
    if num_bad:
        problems.append(f"Lines of {path.name} that cannot be read and are left out: {num_bad}.")
    return lines


def read_text(value: object) -> str:
    """A text as it is, None as an empty one, all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
