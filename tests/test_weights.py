"""A finding says which weights made it, by content."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from builders import NORMAL, make_picture, make_record
from typer.testing import CliRunner

from anomalyr1 import cli, weights
from anomalyr1.checkpoint import NANO_FOLDER
from anomalyr1.data.records import write_records
from anomalyr1.engines.scripted import ScriptedEngine
from anomalyr1.inspector import Inspector
from anomalyr1.reporting.findings import build_finding_line, parse_finding_line
from anomalyr1.types import InputError
from anomalyr1.weights import hash_weights


def write_checkpoint(folder: Path, weights: bytes = b"one") -> str:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return str(folder)


def test_equal_weights_have_one_hash_wherever_they_lie(tmp_path: Path) -> None:
    first, second = write_checkpoint(tmp_path / "a"), write_checkpoint(tmp_path / "b")
    other = write_checkpoint(tmp_path / "c", b"two")
    assert hash_weights(first) == hash_weights(second) != hash_weights(other)


def test_another_detector_is_another_version(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    before = hash_weights(write_checkpoint(folder))
    shutil.copytree(NANO_FOLDER / "hint", folder / "hint")
    assert hash_weights(str(folder)) == before, "the bundled detector, named or not"
    with (folder / "hint" / "head.onnx").open("ab") as file:
        file.write(b"more")
    assert hash_weights(str(folder)) != before


def test_a_changed_base_model_changes_its_adapter(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        f'{{"peft_type": "LORA", "base_model_name_or_path": "{base}"}}'
    )
    (adapter / "adapter_model.safetensors").write_bytes(b"small")
    before = hash_weights(str(adapter))
    (tmp_path / "base" / "model.safetensors").write_bytes(b"changed")
    assert hash_weights(str(adapter)) != before


def test_a_folder_that_is_no_checkpoint_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a checkpoint"):
        hash_weights(str(tmp_path))


def test_a_finding_keeps_the_hash_on_disk_even_where_its_picture_could_not_be_read(
    tmp_path: Path,
) -> None:
    inspector = Inspector(ScriptedEngine(lambda prompt, pictures: NORMAL), weights_sha256="ab" * 32)
    records = [
        make_record(make_picture(tmp_path / "part.png")),
        make_record(tmp_path / "missing.png"),
    ]
    for result in inspector.inspect_records(records):
        again = parse_finding_line(build_finding_line(result.finding))
        assert again.weights_sha256 == "ab" * 32


def test_the_bundled_model_names_its_weights() -> None:
    assert Inspector.load("nano").weights_sha256 == hash_weights("nano")


@pytest.mark.parametrize("command", [["inspect"], ["evaluate", "records"]], ids="-".join)
def test_a_run_reads_its_weights_once(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from anomalyr1.engines.transformers_engine import TransformersEngine

    def load(source: str, **options: object) -> ScriptedEngine:
        return ScriptedEngine(lambda prompt, pictures: NORMAL)

    read: list[str] = []
    stock = weights._add_files

    def add(whole: Any, folder: Path, pattern: str) -> None:
        read.append(pattern)
        stock(whole, folder, pattern)

    monkeypatch.setattr(TransformersEngine, "load", load)
    monkeypatch.setattr(weights, "_add_files", add)
    source = make_picture(tmp_path / "part.png")
    if command[0] == "evaluate":
        write_records(tmp_path / "parts.jsonl", [make_record(source, label="normal")])
        source = tmp_path / "parts.jsonl"
    out = tmp_path / "out"
    flags = ["--hint", "none", "--masks", "none", "--out", str(out)]
    result = CliRunner().invoke(cli.app, [*command, str(source), *flags])
    assert result.exit_code == 0, result.output
    assert sorted(read) == ["*.onnx", "*.safetensors"]
    finding = parse_finding_line((out / "findings.jsonl").read_text())
    named = json.loads((out / "config.json").read_text())["weights_sha256"]
    assert finding.weights_sha256 == named == hash_weights("nano")
