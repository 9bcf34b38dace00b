"""anomalyr1 data import says what it could not find or use."""

from __future__ import annotations

import errno
import sys
from pathlib import Path

import pytest
from builders import make_picture
from typer.testing import CliRunner

from anomalyr1 import cli, images
from anomalyr1.data.records import load_records
from anomalyr1.types import InputError


def import_layout(*arguments: object) -> None:
    result = CliRunner().invoke(cli.app, ["data", "import", *map(str, arguments)])
    if result.exception is not None:
        raise result.exception


def make_mvtec(folder: Path) -> Path:
    for number in range(3):
        make_picture(folder / "nut" / "train" / "good" / f"{number}.png", level=90 + number)
    for number in range(2):
        make_picture(folder / "nut" / "test" / "good" / f"{number}.png", level=120 + number)
    return folder / "nut"


def test_a_split_is_written_as_records(tmp_path: Path) -> None:
    nut, out = make_mvtec(tmp_path), tmp_path / "nut.jsonl"
    import_layout("mvtec", nut, "--split", "test", "--max-references", 2, "--out", out)
    records = load_records(out)
    assert [record.label for record in records] == ["normal", "normal"]
    assert all(len(record.reference_paths) == 2 for record in records)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--split", "nowhere"], "no records of split 'nowhere'"),
        (["--max-references", "0", "--only-with-references"], "no records with references"),
    ],
)
def test_nothing_found_is_said_with_what_was_asked_for(
    tmp_path: Path, flags: list[str], said: str
) -> None:
    nut, out = make_mvtec(tmp_path), tmp_path / "nut.jsonl"
    with pytest.raises(InputError, match=said):
        import_layout("mvtec", nut, "--out", out, *flags)
    assert not out.exists()


def test_a_damaged_picture_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    nut, out = make_mvtec(tmp_path), tmp_path / "nut.jsonl"
    (nut / "test" / "good" / "1.png").write_text("text")
    with pytest.raises(InputError, match=r"1\.png"):
        import_layout("mvtec", nut, "--split", "test", "--out", out)
    assert not out.exists()


@pytest.mark.parametrize("name", ["out", "out/deeper", "out/records.jsonl"])
def test_an_output_folder_that_is_a_file_is_refused_before_anything_is_read(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InputError, match=r"out is no folder; choose another --out"):
        import_layout("mvtec", tmp_path / "nowhere", "--out", tmp_path / name)


@pytest.mark.parametrize(
    "command",
    [
        ["questions", "nowhere.jsonl"],
        ["fewshot", "nowhere.jsonl", "--shots", "1"],
        ["synthesize", "--normal", "nowhere"],
        ["export", "--data", "nowhere"],
    ],
)
def test_an_output_below_a_file_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").touch()
    result = CliRunner().invoke(cli.app, ["data", *command, "--out", "out/deeper"])
    assert isinstance(result.exception, InputError)
    assert str(result.exception) == "--out out/deeper: out is no folder; choose another --out"
    assert sorted(tmp_path.iterdir()) == [tmp_path / "out"]


def test_a_disk_that_is_full_ends_an_import_with_one_line_and_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    nut, out = make_mvtec(tmp_path), tmp_path / "out"
    monkeypatch.setattr(images.os, "fsync", fail)
    arguments = ["anomalyr1", "data", "import", "mvtec", str(nut), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 2
    said = f"error: {out / 'records.jsonl'}: No space left on device; free some space and give"
    assert capsys.readouterr().err.startswith(said)
    assert list(out.iterdir()) == []


def test_a_layout_that_is_not_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="LAYOUT is 'imagenet'; choose one of"):
        import_layout("imagenet", tmp_path, "--out", tmp_path / "out.jsonl")
