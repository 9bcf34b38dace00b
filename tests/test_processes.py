"""Two processes train as one with the same batch; one that is killed, and a run that is killed,
end with the weights of a run that was not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tiny_training import grpo_table, read_log, read_weights, sft_table, write_model, write_records

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="training needs the extra 'train'")

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def environment() -> dict[str, str]:
    paths = [str(HERE), str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")]
    hidden = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return {**os.environ, **hidden, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_records(tmp_path_factory.mktemp("records"), 8)


@pytest.fixture(scope="module")
def trained(model: Path, records: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Folders of what one process trained, and two."""
    folders = []
    for name, launcher in (("one", [sys.executable]), ("two", TORCHRUN)):
        out = tmp_path_factory.mktemp(name)
        done = subprocess.run(
            [*launcher, str(HERE / "train_together.py"), str(model), str(records), str(out)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        folders.append(out)
    return folders


def read_losses(folder: Path) -> list[float]:
    return [entry["loss"] for entry in read_log(folder) if "loss" in entry]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_two_processes_have_the_losses_and_weights_of_one(trained: list[Path], stage: str) -> None:
    one, two = (folder / f"{stage}-run" for folder in trained)
    assert len(read_losses(one)) == 2
    assert read_losses(two) == pytest.approx(read_losses(one), rel=1e-4, abs=1e-6)
    ours, theirs = (read_weights(run / stage / "checkpoint-2") for run in (one, two))
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], atol=2e-5), name
    assert (two / "checkpoint" / "model.safetensors").is_file()
    assert json.loads((two / "environment.json").read_text())["processes"] == 2


def test_a_model_sharded_by_fsdp2_has_the_loss_and_gradient_of_a_whole_one(
    trained: list[Path],
) -> None:
    one, two = (json.loads((folder / "sharded.json").read_text()) for folder in trained)
    assert one["norm"] > 0
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4, abs=1e-6)
    assert two["norm"] == pytest.approx(one["norm"], rel=1e-3)


def write_recipe(path: Path, model: Path, records: Path, stages: dict[str, Any]) -> Path:
    """A recipe file of these stages."""
    lines = ['description = "d"', 'needs = "n"', f"model = {json.dumps(str(model))}"]
    if "grpo" in stages:
        lines.append('reward_funcs = ["length_reward"]')
    lines += ["[data]", f"records = [{json.dumps(str(records))}]"]
    lines += ["[rows]", "without_hint = 1.0", "with_reference = 0.0"]
    for name, table in stages.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    path.write_text("\n".join(lines) + "\n")
    return path


def start(launcher: list[str], recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    command = [*launcher, "-m", "anomalyr1", "train", str(recipe), "--out", str(out), "--resume"]
    return subprocess.Popen(
        command, env=environment(), stdout=subprocess.DEVNULL, stderr=(out.parent / "log").open("a")
    )


def wait_for(path: Path, process: subprocess.Popen[bytes], out: Path) -> None:
    until = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None and time.monotonic() < until, (out.parent / "log").read_text()
        time.sleep(0.02)


def find_workers(process: subprocess.Popen[bytes]) -> list[int]:
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(number) for number in listed.split()]


@pytest.mark.parametrize("stage", ["sft", "grpo"])
def test_a_run_killed_and_resumed_ends_with_the_weights_of_one_that_was_not(
    model: Path, records: Path, tmp_path: Path, stage: str
) -> None:
    table = {
        "sft": sft_table(max_steps=8),
        # Two updates a rollout: checkpoints wait for the end of one.
        "grpo": grpo_table(max_steps=8, steps_per_generation=2, loss_type="dr_grpo", beta=0.02),
    }[stage]
    recipe = write_recipe(tmp_path / "recipe.toml", model, records, {stage: table})
    out, whole = tmp_path / "killed", tmp_path / "whole"
    process = start([sys.executable], recipe, out)
    wait_for(out / stage / "checkpoint-2" / "trainer_state.json", process, out)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "checkpoint").exists(), "it was killed before its end"
    runs = [start([sys.executable], recipe, folder) for folder in (out, whole)]
    assert [run.wait(timeout=240) for run in runs] == [0, 0], (tmp_path / "log").read_text()
    resumed = read_weights(out / stage / "checkpoint-8")
    unbroken = read_weights(whole / stage / "checkpoint-8")
    for name, value in unbroken.items():
        assert torch.equal(value, resumed[name]), name
    if stage == "grpo":
        saved = sorted(int(path.name[11:]) for path in (whole / stage).glob("checkpoint-*"))
        assert saved == [2, 4, 6, 8]


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="finds workers through /proc")
def test_when_one_of_two_processes_is_killed_both_go_on_from_the_last_checkpoint(
    model: Path, records: Path, tmp_path: Path
) -> None:
    table = sft_table(max_steps=20, per_device_train_batch_size=1, ddp_find_unused_parameters=True)
    recipe = write_recipe(tmp_path / "recipe.toml", model, records, {"sft": table})
    out = tmp_path / "run"
    process = start([*TORCHRUN, "--max-restarts", "1"], recipe, out)
    wait_for(out / "sft" / "checkpoint-2" / "trainer_state.json", process, out)
    os.kill(find_workers(process)[-1], signal.SIGKILL)
    assert process.wait(timeout=90) == 0, (tmp_path / "log").read_text()[-4000:]
    steps = [entry["step"] for entry in read_log(out) if "loss" in entry]
    assert steps.count(1) == 1, "it went on instead of beginning anew"
    assert steps[-1] == 20 and set(steps) == set(range(1, 21))
    assert (out / "checkpoint" / "model.safetensors").is_file()
