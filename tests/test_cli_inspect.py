"""anomalyr1 inspect, with a model whose words are scripted: flags, order, errors, exit codes."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import NORMAL, anomalous, make_inspector, make_picture
from PIL import Image
from typer.testing import CliRunner

from anomalyr1 import cli, run_folder
from anomalyr1.cli.inspect import draw_references, read_knowledge
from anomalyr1.inspector import Inspector
from anomalyr1.types import InputError, Prompt

HOSTILE = (
    "<think><script>alert(1)</script> \x1b[2J\x00 \ud800 {{ 7 * 7 }}</think><answer>"
    '{"verdict": "anomalous", "defects": [{"bbox_2d": [5, 5, 20, 20], '
    '"label": "</td><script>alert(2)</script>\\u001b[2J\\ud800[red]", "description": "&<b>"}]}'
    "</answer>"
)


class Script:
    """What the model says, and what it was asked."""

    def __init__(self) -> None:
        self.prompts: list[Prompt] = []
        self.sizes: list[list[tuple[int, int]]] = []
        self.answer: Callable[[str], str] = lambda name: anomalous((5, 5, 20, 20))

    def __call__(self, prompt: Prompt, pictures: list[Image.Image]) -> str:
        self.prompts.append(prompt)
        self.sizes.append([picture.size for picture in pictures])
        return self.answer(prompt.record_id)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    script = Script()
    monkeypatch.setattr(
        Inspector,
        "load",
        lambda *args, **options: make_inspector(script),  # type: ignore[arg-type]
    )
    return script


def inspect(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *arguments: object,
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command as a user has them."""
    monkeypatch.setattr(sys, "argv", ["anomalyr1", "inspect", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    captured = capsys.readouterr()
    return int(left.value.code or 0), captured.out, captured.err


def run(*arguments: object) -> tuple[int, list[dict[str, object]]]:
    """Exit code and findings of the command with --json."""
    result = CliRunner().invoke(cli.app, ["inspect", "--json", *map(str, arguments)])
    if isinstance(result.exception, InputError):
        raise result.exception
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def test_a_bad_picture_in_the_middle_is_a_row_and_the_order_stays(
    tmp_path: Path, script: Script
) -> None:
    names = ["c.png", "a.png", "bad.png", "b.png"]
    paths = [tmp_path / name for name in names]
    for path in paths:
        make_picture(path)
    paths[2].write_bytes(paths[0].read_bytes()[:200])
    for flags in ([], ["--out", tmp_path / "out"]):
        code, lines = run(*paths, "--batch-size", 3, *flags)
        assert code == 1
        assert [Path(str(line["image"])).name for line in lines] == names
        assert [line["verdict"] for line in lines] == [
            "anomalous", "anomalous", "unread", "anomalous"
        ]  # fmt: skip
        assert "bad.png" in str(lines[2]["error"])
        assert [line["error"] for line in lines if line is not lines[2]] == [None] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{}/empty"], "empty"),
        (["{}/nowhere.png"], "nowhere.png"),
        (["{}/part.png", "--masks", "magic"], "magic"),
        (["{}/part.png", "--reference", "{}/empty"], "empty"),
        (["{}/part.png", "--reference", "{}/text.png"], "text.png"),
        (["{}/part.png", "--out", "{}/text.png"], "text.png"),
    ],
)
def test_wrong_input_is_one_line_on_stderr_and_exit_code_2(
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    said: str,
) -> None:
    make_picture(tmp_path / "part.png")
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "empty").mkdir()
    filled = [argument.replace("{}", str(tmp_path)) for argument in arguments]
    code, stdout, stderr = inspect(monkeypatch, capsys, *filled)
    assert (code, stdout) == (2, "")
    assert stderr.startswith("error: ")
    assert said in stderr.strip().splitlines()[-1]
    assert "Traceback" not in stderr
    assert script.prompts == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--max-references", "0"],
        ["--batch-size", "none"],
        ["--batch-size", "0"],
        ["--seed", "x"],
        ["--no-such-flag"],
    ],
    ids=" ".join,
)
def test_a_wrong_flag_is_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
) -> None:
    path = make_picture(tmp_path / "part.png")
    code, _, stderr = inspect(monkeypatch, capsys, path, *flags)
    assert code == 2
    assert flags[0] in stderr


def test_a_hint_that_does_not_exist_is_exit_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_picture(tmp_path / "part.png")
    code, _, stderr = inspect(monkeypatch, capsys, path, "--hint", "magic")
    assert code == 2
    assert "--hint is 'magic'; choose auto, none or dinov2:FOLDER_OR_HUB_ID" in stderr


def test_other_settings_in_the_same_folder_are_exit_code_2_and_name_it(
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = make_picture(tmp_path / "part.png")
    assert inspect(monkeypatch, capsys, path, "--out", tmp_path / "out")[0] == 0
    before = (tmp_path / "out" / "findings.jsonl").read_bytes()
    for flags in (["--category", "nut"], ["--masks", "none"], ["--seed", 1]):
        code, _, stderr = inspect(monkeypatch, capsys, path, "--out", tmp_path / "out", *flags)
        assert code == 2
        assert f"{tmp_path / 'out'} holds a run with other settings" in stderr
    assert (tmp_path / "out" / "findings.jsonl").read_bytes() == before


def test_ctrl_c_says_how_to_continue_and_the_same_command_does(
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(4):
        make_picture(tmp_path / "photos" / f"{number}.png")

    def stop_at_third(name: str) -> str:
        if len(script.prompts) == 3:
            raise KeyboardInterrupt
        return NORMAL

    script.answer = stop_at_third
    arguments = (tmp_path / "photos", "--out", tmp_path / "out", "--batch-size", 1, "--json")
    code, stdout, stderr = inspect(monkeypatch, capsys, *arguments)
    assert code == 130
    assert "run the same command again" in stderr
    assert stdout == (tmp_path / "out" / "findings.jsonl").read_text()
    assert len(stdout.splitlines()) == 2
    code, stdout, stderr = inspect(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "continuing: 2 of 4 are done" in stderr
    assert stdout == (tmp_path / "out" / "findings.jsonl").read_text()
    assert len(stdout.splitlines()) == 4


def test_a_picture_that_failed_is_tried_again_and_its_last_finding_is_shown(
    tmp_path: Path, script: Script
) -> None:
    good, late = make_picture(tmp_path / "good.png"), tmp_path / "late.png"
    late.write_text("")
    arguments = (late, good, "--out", tmp_path / "out")
    assert run(*arguments)[0] == 1
    make_picture(late)
    code, lines = run(*arguments)
    assert code == 0
    assert [line["verdict"] for line in lines] == ["anomalous", "anomalous"]
    assert len(script.prompts) == 2
    assert len((tmp_path / "out" / "findings.jsonl").read_text().splitlines()) == 3
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count('class="card') == 2 or "is empty" not in report


def test_a_full_disk_is_said_and_what_is_written_stays(
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for number in range(3):
        make_picture(tmp_path / "photos" / f"{number}.png")
    write, written = run_folder.write_png_atomic, []

    def write_until_full(path: Path, picture: Image.Image) -> None:
        written.append(path)
        if len(written) > 3:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, picture)

    arguments = (tmp_path / "photos", "--out", tmp_path / "out")
    monkeypatch.setattr(run_folder, "write_png_atomic", write_until_full)
    code, _, stderr = inspect(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "No space left on device" in stderr
    assert str(tmp_path / "out") in stderr
    kept = (tmp_path / "out" / "findings.jsonl").read_text()
    assert len(kept.splitlines()) == 1
    monkeypatch.setattr(run_folder, "write_png_atomic", write)
    assert inspect(monkeypatch, capsys, *arguments)[0] == 0
    assert (tmp_path / "out" / "findings.jsonl").read_text().startswith(kept)


def test_what_a_model_writes_reaches_files_and_terminal_escaped(
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    script.answer = lambda name: HOSTILE
    path = make_picture(tmp_path / "part.png")
    arguments = (path, "--out", tmp_path / "out", "--model", "[/x]")
    code, stdout, stderr = inspect(monkeypatch, capsys, *arguments)
    assert code == 0
    assert "[red]" in stdout
    for text in (stdout, stderr):
        assert not {"\x1b", "\x00", "\ud800"} & set(text)
    lines = (tmp_path / "out" / "findings.jsonl").read_bytes()
    assert lines.isascii()
    assert json.loads(lines)["raw_text"] == HOSTILE
    report = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in report
    assert "<script>alert" not in report
    assert "{{ 7 * 7 }}" in report
    assert not {"\x1b", "\x00", "\ud800"} & set(report)


@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"[red]part.png", b"\x1b[31m.png"], ids=repr)
def test_any_file_name_can_be_inspected_and_shown(
    tmp_path: Path,
    script: Script,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: bytes,
) -> None:
    folder = tmp_path / "[a]"
    make_picture(folder / "part.png").rename(folder / os.fsdecode(name))
    code, stdout, stderr = inspect(monkeypatch, capsys, folder, "--out", folder / "out")
    assert code == 0
    assert "\x1b" not in stdout
    assert f"report: {folder / 'out' / 'report.html'}" in stderr
    code, lines = run(folder, "--out", folder / "out")
    assert [line["image"] for line in lines] == [str(folder / os.fsdecode(name))]
    assert len(script.prompts) == 1


def test_references_are_drawn_from_the_seed(tmp_path: Path) -> None:
    paths = [make_picture(tmp_path / "good" / f"{number:02}.png") for number in range(12)]
    drawn = draw_references([tmp_path / "good"], 3, seed=0)
    assert drawn == draw_references([tmp_path / "good"], 3, seed=0)
    assert len(set(drawn)) == 3
    assert list(drawn) == sorted(drawn)
    assert any(draw_references([tmp_path / "good"], 3, seed=seed) != drawn for seed in (1, 2))
    assert draw_references([tmp_path / "good"], 12, seed=0) == tuple(paths)
    assert draw_references([], 3, seed=0) == ()


def test_references_of_another_size_reach_the_model_and_the_settings(
    tmp_path: Path, script: Script
) -> None:
    path = make_picture(tmp_path / "part.png", (64, 48))
    for number in range(5):
        make_picture(tmp_path / "good" / f"{number}.png", (30 + number, 20))
    arguments = ("--reference", tmp_path / "good", "--max-references", 2, "--out", tmp_path / "out")
    code, lines = run(path, *arguments)
    assert code == 0
    assert len(script.sizes[0]) == 4
    assert script.sizes[0][2:] == [(64, 48), (64, 48)]
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert len(config["references"]) == 2
    assert lines[0]["reference"] == config["references"][0]
    assert run(path, *arguments)[0] == 0
    assert len(script.prompts) == 1


@pytest.mark.parametrize("as_file", [False, True])
def test_knowledge_is_a_text_or_a_file(tmp_path: Path, script: Script, as_file: bool) -> None:
    path = make_picture(tmp_path / "part.png")
    (tmp_path / "notes.txt").write_text("Two screws, não três.\n", encoding="utf-8")
    given = tmp_path / "notes.txt" if as_file else "Two screws, não três."
    assert run(path, "--knowledge", given, "--category", "lid")[0] == 0
    texts = [part for message in script.prompts[0].messages for part in message.parts]
    assert any("Two screws, não três.\n" in str(text) for text in texts)
    assert any("Product: lid." in str(text) for text in texts)


def test_knowledge_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.bin"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"notes\.bin cannot be read as text"):
        read_knowledge(str(path))


@pytest.mark.parametrize("given", ["", "  ", "a" * 5000, "nul \x00 byte", "a" * 300 + "/x"])
def test_any_text_can_be_knowledge(given: str) -> None:
    assert read_knowledge(given) == given.strip()
