"""Every command line in docs/ is one that the program takes; the README's are in
test_project_files. What needs a GPU or a cluster says so there and is only parsed here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from anomalyr1.cli import app

PAGES = sorted((Path(__file__).parent.parent / "docs").glob("*.md"))
_INLINE = re.compile(r"`(anomalyr1 [^`\n]+)`")


def find_commands(text: str) -> list[str]:
    """Command lines in indented blocks, continued lines joined, and those between backticks."""
    joined = re.sub(r"\\\n\s*", "", text)
    lines = [line.strip() for line in joined.splitlines() if line.startswith("    ")]
    shown = [line for line in lines if "anomalyr1" in line.partition("#")[0].split()]
    return shown + [command for command in _INLINE.findall(joined) if "..." not in command]


def read_words(line: str) -> list[str]:
    """The words behind `anomalyr1`, up to what a shell would do next, optional ones included."""
    words = shlex.split(line.replace("[", "").replace("]", ""), comments=True)
    start = words.index("anomalyr1") + 1
    ends = [place for place, word in enumerate(words) if word in ("&&", ";", "|", ">")]
    kept = words[start : min(ends, default=len(words))]
    return ["1" if re.fullmatch("[A-Z]", word) else word for word in kept]  # K shots, seed S


def parse(words: list[str]) -> None:
    """Parse as the program would, without running anything."""
    command = get_command(app)
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    if words:  # else it is only named, as in a sentence
        command.make_context("anomalyr1", list(words))


CASES = [
    pytest.param(line, id=f"{path.name}: {line[:60]}")
    for path in PAGES
    for line in dict.fromkeys(find_commands(path.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("line", CASES)
def test_a_documented_command_is_taken(line: str) -> None:
    parse(read_words(line))


def test_commands_are_found_and_a_wrong_one_fails() -> None:
    assert len(CASES) > 20
    with pytest.raises(Exception, match="no-such-option"):
        parse(["inspect", "photos/", "--no-such-option"])
    with pytest.raises(KeyError):
        parse(["no-such-command"])
