"""What the README, the constraints and the benchmarks promise is there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from anomalyr1.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _normal_name(requirement: str) -> str:
    return re.split(r"[<>=!~;\[ ]", requirement, maxsplit=1)[0].lower().replace("_", "-")


def test_every_direct_dependency_has_a_tested_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = [
        *project["project"]["dependencies"],
        *(name for extra in project["project"]["optional-dependencies"].values() for name in extra),
        *project["dependency-groups"]["dev"],
    ]
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {_normal_name(line) for line in lines if "==" in line}
    assert {_normal_name(requirement) for requirement in wanted} - pinned == set()


def test_constraints_name_no_build_and_no_index_that_others_may_not_have() -> None:
    text = (ROOT / "constraints.txt").read_text()
    assert "+" not in text
    assert "://" not in text


def test_every_file_of_the_readmes_map_is_there() -> None:
    tree = README.split("## The map of the files")[1].split("```")[1]
    folder, missing = ROOT, []
    for line in tree.strip().splitlines():
        names = line[:22].split()
        base = folder if line.startswith("  ") else ROOT
        if names == ["src/anomalyr1/"]:
            folder = ROOT / names[0]
        missing += [name for name in names if not (base / name).exists()]
    assert missing == []


def _commands() -> list[list[str]]:
    lines = [line.strip() for line in README.splitlines() if line.startswith("    anomalyr1 ")]
    return [shlex.split(line, comments=True)[1:] for line in lines]


@pytest.mark.parametrize("arguments", _commands(), ids=" ".join)
def test_a_command_of_the_readme_has_options_that_exist(arguments: list[str]) -> None:
    command = get_command(app)
    while hasattr(command, "commands"):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context("anomalyr1", list(arguments))


def test_the_script_for_machines_and_the_makefile_are_whole() -> None:
    subprocess.run(["bash", "-n", ROOT / ".ci" / "run"], check=True)
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    makefile = (ROOT / "Makefile").read_text()
    for target in ("demo", "test", "check", "bench"):
        assert f"\n{target}: " in makefile


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda p: p.name)
def test_a_benchmark_can_be_imported_without_running(path: Path) -> None:
    # A script's own folder is where it finds its neighbours.
    code = (
        f"import runpy, sys; sys.path.insert(0, {str(path.parent)!r}); "
        f"runpy.run_path({str(path)!r}, run_name='benchmark')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
