from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from builders import NORMAL, anomalous, make_inspector, make_picture
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.inspector import Inspector
from anomalyr1.types import InputError

KEYS = {
    "image", "verdict", "anomaly_score", "detector_score", "reasoning", "defects", "raw_text",
    "status", "model", "seconds", "error",
}  # fmt: skip


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command's inspector says anomalous of pictures whose name holds "bad"."""

    def script(prompt: object, pictures: object) -> str:
        return anomalous((5, 5, 20, 20)) if "bad" in prompt.record_id else NORMAL  # type: ignore[attr-defined]

    monkeypatch.setattr(Inspector, "load", lambda *args, **kwargs: make_inspector(script))


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    if isinstance(result.exception, InputError):
        return 2, str(result.exception)
    return result.exit_code, result.stdout


@pytest.mark.usefixtures("scripted")
def test_json_lines_hold_the_documented_keys(tmp_path: Path) -> None:
    for name in ("bad.png", "good.png"):
        make_picture(tmp_path / "photos" / name)
    code, stdout = run("inspect", tmp_path / "photos", "--json", "--out", tmp_path / "out")
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert code == 0
    assert [line["verdict"] for line in lines] == ["anomalous", "normal"]
    assert all(set(line) >= KEYS for line in lines)
    assert set(lines[0]["defects"][0]) == {
        "label", "description", "box_xyxy", "mask", "confidence"
    }  # fmt: skip
    assert (tmp_path / "out" / "report.html").is_file()
    assert lines == [json.loads(line) for line in (tmp_path / "out" / "findings.jsonl").open()]


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("names", "flags", "code"),
    [
        (["good.png"], [], 0),
        (["good.png"], ["--fail-on-anomaly"], 0),
        (["bad.png"], [], 0),
        (["bad.png", "good.png"], ["--fail-on-anomaly"], 3),
        (["good.png", "broken.png"], [], 1),
        (["bad.png", "broken.png"], ["--fail-on-anomaly"], 1),
    ],
)
def test_exit_codes(tmp_path: Path, names: list[str], flags: list[str], code: int) -> None:
    for name in names:
        if name == "broken.png":
            (tmp_path / name).write_text("text")
        else:
            make_picture(tmp_path / name)
    assert run("inspect", tmp_path, *flags)[0] == code


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere/"], "nowhere"),
        ([".", "--masks", "magic"], "magic"),
        ([".", "--reference", "nowhere.png"], "nowhere.png"),
    ],
)
def test_wrong_usage_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    make_picture(tmp_path / "part.png")
    monkeypatch.chdir(tmp_path)
    code, message = run("inspect", *arguments)
    assert code == 2
    assert said in message


@pytest.mark.usefixtures("scripted")
def test_a_finished_run_is_read_and_not_done_again(tmp_path: Path) -> None:
    make_picture(tmp_path / "photos" / "bad.png")
    arguments = ("inspect", tmp_path / "photos", "--json", "--out", tmp_path / "out")
    assert run(*arguments) == run(*arguments)
    assert len((tmp_path / "out" / "findings.jsonl").read_text().splitlines()) == 1


@pytest.mark.usefixtures("scripted")
def test_records_are_evaluated_with_intervals_and_a_report(tmp_path: Path) -> None:
    from anomalyr1.data.records import write_records
    from anomalyr1.types import Record, Region

    records = []
    for number, name in enumerate(["bad1.png", "bad2.png", "good1.png", "good2.png"]):
        path = make_picture(tmp_path / name, level=60 + 20 * number)
        spoiled = name.startswith("bad")
        regions = (Region((5, 5, 20, 20), "crack"),) if spoiled else ()
        label = "anomalous" if spoiled else "normal"
        records.append(Record(name, path, category="part", label=label, regions=regions))  # type: ignore[arg-type]
    write_records(tmp_path / "parts.jsonl", records)
    code, _ = run("evaluate", "records", tmp_path / "parts.jsonl", "--out", tmp_path / "out")
    assert code == 0
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    values = {entry["name"]: entry["value"] for entry in metrics if entry["subset"] == "all"}
    assert values["verdict_balanced_accuracy"] == 1.0
    assert values["box_accuracy_iou50"] == 1.0
    assert values["unread_rate"] == 0.0
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "metrics.csv").is_file()


def test_help_and_import_load_no_heavy_library() -> None:
    script = (
        "import sys\nimport anomalyr1\nfrom anomalyr1 import cli\n"
        "from typer.testing import CliRunner\n"
        "assert 'inspect' in CliRunner().invoke(cli.app, ['--help']).stdout\n"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True)


def test_an_input_error_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "anomalyr1", "inspect", str(tmp_path / "none.png")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "none.png" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["missing", "empty", "pickled"])
def test_a_folder_that_is_no_checkpoint_is_refused(tmp_path: Path, kind: str) -> None:
    from anomalyr1.checkpoint import load_checkpoint

    folder = tmp_path / "model"
    if kind != "missing":
        folder.mkdir()
    if kind == "pickled":
        (folder / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(InputError, match="model"):
        load_checkpoint(str(folder))
