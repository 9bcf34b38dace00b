"""The command lines of README and docs are run as they are written, page by page, in a small folder
that holds what they name. What takes long is shortened by options behind it; what needs a GPU, a
cluster or a hub says so on its line, and is only parsed, in test_documented_commands."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from builders import NORMAL, make_inspector
from miniature import write_miniature
from test_documented_commands import PAGES
from test_hub import make_evaluation, make_run
from test_learning import fill
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.checkpoint import resolve_source
from anomalyr1.data.records import write_records
from anomalyr1.data.synthesis import Synthesis, synthesize
from anomalyr1.server.app import build_app
from anomalyr1.server.store import Store

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),
]

ROOT = Path(__file__).parents[1]
NEEDS_MORE = re.compile(r"#.*\b(?:GPU|cluster|hub id)\b|Qwen/|s3://|torchrun|accelerate|sbatch")
ELSEWHERE = re.compile(r"anomalyr1 serve\b|postgresql://")
"""In test_serve_process.py, and on PostgreSQL in test_store.py and test_server_databases.py."""

SHORTER = {
    "adapt": ["--designs", "2", "--head-steps", "2", "--grpo-steps", "0", "--workers", "1"],
    "data fewshot": ["--shots", "1"],
    "data synthesize": ["--products", "1", "--size", "96", "--workers", "1"],
    "train": ["--plan"],
}
"""Options behind what would take minutes. Training itself is in test_training_runs.py."""

STANDS_FOR = {
    "LAYOUT": "mvtec",
    "SOURCE": "MVTec/hazelnut",
    "OUT": "out.jsonl",
    "RECORDS": "records.jsonl",
    "DIR": "new",
    "K": "1",
    "S": "0",
    "NAME": "hazelnut",
    "defect|category": "defect",
}


def list_lines() -> list[str]:
    """Each indented line once, continued lines joined; those between words are only parsed."""
    texts = [page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *PAGES)]
    joined = [re.sub(r"\\\n\s*", "", text) for text in texts]
    lines = [line.strip() for text in joined for line in re.findall(r"^    \S.*", text, re.M)]
    shown = [line for line in lines if line.startswith("anomalyr1 ")]
    here = [line for line in shown if not (NEEDS_MORE.search(line) or ELSEWHERE.search(line))]
    return list(dict.fromkeys(re.sub(r"\s+#.*", "", line) for line in here))


@pytest.fixture(scope="module")
def station() -> Iterator[int]:
    """The port of an endpoint that says "normal" of everything."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        store = Store.open(Path(folder))
        app = build_app(store, lambda name: make_inspector(lambda prompt, shown: NORMAL))
        server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield port
        server.should_exit = True
        thread.join(20)
        store.close()


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the commands name, the recipes among them."""
    folder = tmp_path_factory.mktemp("workspace")
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    plan = Synthesis(
        folder / "drawn",
        num_products=2,
        num_references=8,
        num_queries=12,
        size=112,
        seed=5,
        categories=("washer", "leather"),
    )
    records = [record for product in synthesize(plan) for record in product]
    normal, defective = (
        [record for record in records if record.label == label] for label in ("normal", "anomalous")
    )
    for name in ("records", "parts", "hazelnut", "data/rl/train", "data/rl/test_held_out"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_records(folder / f"{name}.jsonl", records)
    for name in ("good", "good_parts"):
        copy(records[0].reference_paths, folder / name)
    copy([record.image_path for record in records[:2]], folder / "photos")
    shutil.copy(records[0].image_path, folder / "part.jpg")
    (folder / "notes.txt").write_text("Whole washers are even.")
    for kind, paths in (
        ("train/good", records[0].reference_paths),
        ("test/good", [record.image_path for record in normal[:1]]),
    ):
        copy(paths, folder / "MVTec" / "hazelnut" / kind)
    for kind, name, path in (
        ("test/crack", "000.jpg", defective[0].image_path),
        ("ground_truth/crack", "000_mask.png", defective[0].mask_path),
    ):
        (folder / "MVTec" / "hazelnut" / kind).mkdir(parents=True)
        shutil.copy(path, folder / "MVTec" / "hazelnut" / kind / name)
    write_miniature(folder / "MMAD", size=96, num_queries=1)
    make_run(folder / "runs" / "my-run")
    nano = resolve_source("nano")
    shutil.rmtree(folder / "runs" / "my-run" / "checkpoint")
    shutil.copytree(nano, folder / "runs" / "my-run" / "checkpoint")
    write_adapter(folder / "runs" / "lora" / "checkpoint")
    write_dinov2(folder / "DIR_OR_ID")
    write_list(folder / "list.parquet", folder / "photos")
    store = Store.open(folder / "station")
    fill(store)
    store.close()
    return folder


def copy(paths: Any, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        shutil.copy(path, folder)


def write_adapter(folder: Path) -> None:
    peft = pytest.importorskip("peft", reason="adapters need the extra 'train'")
    from dataclasses import replace

    from anomalyr1.checkpoint import load_checkpoint, save_checkpoint

    checkpoint = load_checkpoint("nano")
    lora = peft.LoraConfig(r=2, target_modules=["q_proj"])
    adapted = replace(checkpoint, model=peft.get_peft_model(checkpoint.model, lora))
    save_checkpoint(adapted, folder)


def write_dinov2(folder: Path) -> None:
    from transformers import Dinov2Config, Dinov2Model

    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=56, image_size=224
    )
    Dinov2Model(config).save_pretrained(folder)


def write_list(path: Path, photos: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    images = [str(photo) for photo in sorted(photos.iterdir())]
    pa.parquet.write_table(pa.table({"image_path": images}), path)


def prepare(line: str, words: list[str]) -> None:
    """What an earlier command of a person's would have made, and nothing where it writes."""
    out = Path(words[words.index("--out") + 1]) if "--out" in words else None
    if out is not None and out.is_dir() and "hub push" not in line:
        shutil.rmtree(out)
    shutil.rmtree("new", ignore_errors=True)
    if "results/a" in line:
        for name, model in (("a", "random"), ("b", "majority")):
            shutil.rmtree(f"results/{name}", ignore_errors=True)
            run(["evaluate", "mmad", "--data", "MMAD", "-m", model, "--out", f"results/{name}"])
    if "--evaluation results" in line:
        shutil.rmtree("results", ignore_errors=True)
        make_evaluation(Path("results"))
    if "answers.json" in line:
        shutil.rmtree("answered", ignore_errors=True)
        run(["evaluate", "mmad", "--data", "MMAD", "-m", "random", "--out", "answered"])
        lines = Path("answered/answers.jsonl").read_text().splitlines()
        Path("answers.json").write_text(json.dumps([json.loads(line) for line in lines]))


def run(words: list[str]) -> int:
    done = CliRunner().invoke(cli.app, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 3), done.output
    return done.exit_code


LINES = list_lines()


@pytest.mark.parametrize("line", LINES)
def test_a_documented_command_runs(
    line: str, workspace: Path, station: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    words = shlex.split(line.replace("[", "").replace("]", ""))
    words = [STANDS_FOR.get(word, word) for word in words[words.index("anomalyr1") + 1 :]]
    at = f"127.0.0.1:{station}"
    words = [word.replace("localhost:8000", at).replace("#NAME", "#nano") for word in words]
    if "openai:" in line:
        words = ["nano" if word == "hazelnut" else word for word in words]
    if words[0] in ("batch", "report"):
        pytest.importorskip("ray", reason="batch needs the extra 'batch'")
    words += next((more for name, more in SHORTER.items() if line.find(f"1 {name}") >= 0), [])
    prepare(line, words)
    code = run(words)
    assert code == (3 if "--fail-on-anomaly" in words and code else 0)


def test_lines_are_found() -> None:
    assert len(LINES) > 35
    assert sum("anomalyr1 batch" in line for line in LINES) >= 2
