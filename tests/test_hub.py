"""The hub: a card from the run's own files, and the real client against a hub on loopback."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.checkpoint import load_checkpoint, save_checkpoint
from anomalyr1.engines.transformers_engine import TransformersEngine
from anomalyr1.hub import build_card, find_checkpoint, list_files, load_evaluation, push
from anomalyr1.prompts import build_inspection_prompt
from anomalyr1.types import InputError, Record


def make_run(folder: Path) -> Path:
    """A run's folder as training leaves it, with a secret pickle that must stay."""
    checkpoint = folder / "checkpoint"
    (checkpoint / "hint").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "anomalyr1.json", "hint/head.onnx"):
        (checkpoint / name).write_bytes(b"{}" if name.endswith("json") else name.encode())
    (checkpoint / "optimizer.pt").write_bytes(b"pickle")
    (checkpoint / ".cache.json").write_bytes(b"{}")
    config = {
        "model": "Qwen/Qwen2.5-VL-3B-Instruct",
        "data": {"records": ["/home/someone/secret/train.jsonl"]},
        "sft": {"max_steps": 20},
    }
    (folder / "config.json").write_text(json.dumps(config))
    environment = {"device": "CPU, 2 threads", "packages": {"torch": "2.13.0"}, "git": "abc123"}
    (folder / "environment.json").write_text(json.dumps(environment))
    lines = [
        {"stage": "sft", "step": 10, "loss": 2.5},
        {"stage": "sft", "step": 20, "loss": 1.25},
        {"stage": "sft", "step": 20, "train_runtime": 33.0},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def make_evaluation(folder: Path) -> Path:
    row = {"n": 40, "n_unreadable": 3, "ci_low": 0.5, "ci_high": 0.75, "note": ""}
    metrics = [
        {"name": "verdict_balanced_accuracy", "subset": "all", "value": 0.625, **row},
        {"name": "verdict_balanced_accuracy", "subset": "nut", "value": 0.1, **row},
        {"name": "aupro", "subset": "all", "value": None, **row},
    ]
    settings = {"records": "/home/someone/hazelnut.jsonl", "hint": "auto", "seed": 0}
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"settings": settings, "metrics": metrics}))
    return folder


def test_a_card_tells_what_the_run_wrote_and_nothing_of_the_machine(tmp_path: Path) -> None:
    run, evaluation = make_run(tmp_path / "run"), make_evaluation(tmp_path / "results")
    card = build_card(run, "me/nut", "apache-2.0", [load_evaluation(evaluation)])
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "apache-2.0"
    assert head["base_model"] == "Qwen/Qwen2.5-VL-3B-Instruct"
    assert "| sft | 20 | 33 | 1.250 |" in card
    assert "| verdict_balanced_accuracy | 0.625 | 0.500 to 0.750 | 40 | 3 |" in card
    assert "`hazelnut.jsonl`" in card and "abc123" in card and "torch 2.13.0" in card
    assert "0.100" not in card and "aupro" not in card
    assert "someone" not in card and "train.jsonl" in card


def test_a_card_without_run_or_evaluation_says_so(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    card = build_card(run / "checkpoint", "me/nut", "mit")
    assert "how it was trained is not known" in card
    assert "None were measured" in card
    assert "base_model" not in card


def test_only_safe_files_travel(tmp_path: Path) -> None:
    checkpoint = find_checkpoint(make_run(tmp_path / "run"))
    assert [path.as_posix() for path in list_files(checkpoint)] == [
        "anomalyr1.json", "config.json", "hint/head.onnx", "model.safetensors",
    ]  # fmt: skip


@pytest.mark.parametrize("wrong", ["missing", "empty"])
def test_a_folder_without_a_checkpoint_or_figures_is_refused(tmp_path: Path, wrong: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        find_checkpoint(tmp_path / wrong)
    with pytest.raises(InputError, match=r"metrics\.json"):
        load_evaluation(tmp_path / wrong)


@dataclass
class Hub:
    """A hub that takes commits: what was created, its files' contents, how it answers."""

    url: str = ""
    created: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    status: int = 200


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub()
    blobs: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: object, status: int = 200) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def read(self) -> bytes:
            return self.rfile.read(int(self.headers.get("content-length", 0)))

        def do_POST(self) -> None:
            content = self.read()
            made.keys.add(self.headers.get("authorization", ""))
            if made.status != 200:
                self.answer({"error": "no"}, made.status)
            elif self.path == "/api/repos/create":
                made.created.append(json.loads(content))
                self.answer({"url": f"{made.url}/me/nut", "name": "me/nut", "id": "1"})
            elif self.path == "/api/validate-yaml":
                self.answer({"warnings": [], "errors": []})
            elif self.path.endswith("/preupload/main"):
                files = [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs"
                        if one["path"].endswith(("safetensors", "onnx"))
                        else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for one in json.loads(content)["files"]
                ]
                self.answer({"files": files})
            elif self.path.endswith("/info/lfs/objects/batch"):
                objects = [
                    {**one, "actions": {"upload": {"href": f"{made.url}/blob/{one['oid']}"}}}
                    for one in json.loads(content)["objects"]
                ]
                self.answer({"objects": objects, "transfer": "basic"})
            elif "/commit/main" in self.path:
                for line in map(json.loads, content.decode().splitlines()):
                    value = line["value"]
                    if line["key"] == "file":
                        made.files[value["path"]] = base64.b64decode(value["content"])
                    elif line["key"] == "lfsFile":
                        made.files[value["path"]] = blobs[value["oid"]]
                commit = {"commitUrl": f"{made.url}/me/nut/commit/abc", "commitOid": "abc"}
                self.answer({"success": True, **commit})
            else:
                self.answer({}, 404)

        def do_PUT(self) -> None:
            content = self.read()
            assert self.path == f"/blob/{hashlib.sha256(content).hexdigest()}"
            blobs[self.path.rpartition("/")[2]] = content
            self.answer({})

        def do_GET(self) -> None:
            self.answer({"id": "me/nut", "sha": "abc", "siblings": [], "xetEnabled": False})

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    made.url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", made.url)
    yield made
    server.shutdown()
    server.server_close()


def test_push_commits_checkpoint_and_card_at_once(tmp_path: Path, hub: Hub) -> None:
    run, evaluation = make_run(tmp_path / "run"), make_evaluation(tmp_path / "results")
    arguments = ["hub", "push", str(run), "me/nut", "--licence", "apache-2.0",
                 "--evaluation", str(evaluation), "--private"]  # fmt: skip
    shown = CliRunner().invoke(cli.app, [*arguments, "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert not hub.created and 'license: "apache-2.0"' in shown.output
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 0, (done.output, done.exception)
    assert done.output.strip().endswith("/me/nut/commit/abc")
    assert hub.created[0]["visibility"] == "private"
    assert hub.keys == {"Bearer hf_secret"}
    sent = {name: content for name, content in hub.files.items() if name != "README.md"}
    checkpoint = run / "checkpoint"
    assert sent == {
        path.as_posix(): (checkpoint / path).read_bytes() for path in list_files(checkpoint)
    }
    assert hub.files["README.md"].decode() in shown.output
    assert not re.search(r"optimizer|pickle", str(hub.files))


@pytest.mark.parametrize(("status", "told"), [(401, "HF_TOKEN"), (403, "HF_TOKEN"), (500, "again")])
def test_a_hub_that_refuses_is_said_with_a_remedy(
    tmp_path: Path, hub: Hub, status: int, told: str
) -> None:
    hub.status = status
    checkpoint = find_checkpoint(make_run(tmp_path / "run"))
    with pytest.raises(InputError, match=told):
        push(checkpoint, "me/nut", "card", endpoint=hub.url)
    with pytest.raises(InputError, match="no name of a repository"):
        push(checkpoint, "not a name", "card", endpoint=hub.url)


def test_a_folder_written_here_loads_in_plain_transformers_with_the_same_scores(
    tmp_path: Path,
) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    ours = load_checkpoint("nano", device="cpu")
    save_checkpoint(ours, tmp_path / "folder")
    plain = AutoModelForImageTextToText.from_pretrained(tmp_path / "folder", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "folder")
    engine = TransformersEngine(ours)
    prompt = build_inspection_prompt(Record("1", Path("1.png")), num_references=0, hint=None)
    inputs = engine._inputs(prompt, [Image.new("RGB", (196, 168), "grey")])
    with torch.inference_mode():
        expected = ours.model(**inputs).logits
        found = plain(**inputs).logits
    assert torch.allclose(found, expected, atol=1e-5)
    text = "<think>Even.</think>"
    assert tokenizer(text)["input_ids"] == ours.processor.tokenizer(text)["input_ids"]
    assert tokenizer.chat_template == ours.processor.tokenizer.chat_template
