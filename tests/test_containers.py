"""What can be held of the images without a container engine: linters, schemas, and the rules."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from anomalyr1.cli import app

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "containers"
DOCKERFILES = sorted(FOLDER.glob("Dockerfile*"))


def find_tool(name: str) -> str:
    """A tool of this environment; the test is skipped where it is not installed."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: pip install --group dev")
    return found


def load_compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return loaded


def read_instructions(path: Path) -> list[tuple[str, str]]:
    """Instructions of a Dockerfile with their arguments, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n", " ", "\n".join(lines))
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, " ".join(rest.split())) for name, _, rest in pairs]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_hadolint_has_nothing_to_say(path: Path) -> None:
    done = subprocess.run(
        [find_tool("hadolint"), "--no-color", str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_file_is_what_the_specification_allows() -> None:
    done = subprocess.run(
        [find_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec",
         str(FOLDER / "compose.yaml")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_runs_as_a_user_and_copies_only_what_is_there(path: Path) -> None:
    instructions = read_instructions(path)
    last = max(place for place, (name, _) in enumerate(instructions) if name == "FROM")
    users = [rest for name, rest in instructions[last:] if name == "USER"]
    assert users == ["10001:10001"]
    for name, rest in instructions:
        if name == "FROM":
            assert ":" in rest and ":latest" not in rest
        if name == "COPY" and "--from" not in rest:
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    copied = {
        source
        for name, rest in instructions
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert copied <= allowed


def test_both_services_have_a_read_only_root_no_capabilities_and_no_root_user() -> None:
    services = load_compose()["services"]
    assert set(services) == {"station", "database"}
    for service in services.values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert not service["user"].startswith(("0", "root"))
        assert service["volumes"] and "/tmp" in service["tmpfs"]
    assert all(port.startswith("127.0.0.1:") for port in services["station"]["ports"])
    assert "ports" not in services["database"]


def test_no_secret_has_a_default() -> None:
    for service in load_compose()["services"].values():
        for name, value in service["environment"].items():
            if "TOKEN" in name or "PASSWORD" in name:
                assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), name


def test_the_station_is_started_with_options_that_it_has() -> None:
    (serve,) = (
        command
        for name, command in get_command(app).commands.items()
        if name == "serve"  # type: ignore[attr-defined]
    )
    known = {option for parameter in serve.params for option in parameter.opts}
    image = [rest for name, rest in read_instructions(FOLDER / "Dockerfile") if name == "CMD"]
    words = load_compose()["services"]["station"]["command"]
    assert words[0] == "serve"
    given = [word for word in [*words, *re.findall(r'"([^"]+)"', image[-1])] if word[:2] == "--"]
    assert given and set(given) <= known
