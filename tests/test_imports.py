"""Imports point one way, and what a user imports first is light and quiet."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "anomalyr1"

LEVELS = (
    ("types",),
    ("pixels", "geometry", "coco_masks"),
    ("images",),
    ("adapters",),
    (
        "checkpoint",
        "weights",
        "parsing",
        "prompts",
        "hints",
        "data",
        "masks",
        "detectors",
        "engines",
        "solutions",
        "reasoning",
    ),
    ("export", "alignment", "rewards", "preparation"),
    ("evaluation", "reporting", "answered"),
    ("inspector", "training"),
    ("detector_alone",),
    ("run_folder", "models", "hub"),
    ("questioning",),
    ("server", "distributed"),
    ("cli",),
    ("__init__", "__main__"),
)
"""Parts of the package from the bottom up; a part imports from lower levels and its own."""

LEVEL = {part: number for number, parts in enumerate(LEVELS) for part in parts}


def name_part(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def find_imports(path: Path) -> set[str]:
    """The parts of the package that a file imports, inside functions too, but not for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module == "anomalyr1":
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("anomalyr1."):
            names.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            found = (alias.name.split(".") for alias in node.names)
            names.update(parts[1] for parts in found if parts[0] == "anomalyr1" and parts[1:])
    return names


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_stands_below_it(path: Path) -> None:
    part = name_part(path)
    above = {name for name in find_imports(path) - {part} if LEVEL[name] > LEVEL[part]}
    assert above == set()


def test_every_part_of_the_package_has_its_level() -> None:
    assert {name_part(path) for path in FILES} - set(LEVEL) == set()


HEAVY = "{'torch', 'transformers', 'onnxruntime', 'sklearn', 'scipy'} & set(sys.modules)"


@pytest.mark.parametrize(
    "script",
    [
        "import anomalyr1",
        "from anomalyr1 import Finding, InputError, Record",
        "from anomalyr1.cli import app; import anomalyr1.cli.inspect",
        "sys.argv[1:] = ['--help']\ntry: main()\nexcept SystemExit as left: assert left.code == 0",
        "sys.argv[1:] = ['inspect', '--help']\ntry: main()\nexcept SystemExit: pass",
    ],
    ids=["package", "values", "command line", "help", "help of a command"],
)
def test_it_is_quiet_and_loads_no_heavy_library(script: str) -> None:
    head = "import sys\n" + ("from anomalyr1.cli import main\n" if "main()" in script else "")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{head}{script}\nassert not {HEAVY}, {HEAVY}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout == "" or "Usage" in done.stdout
