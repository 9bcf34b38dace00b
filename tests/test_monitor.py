"""What a run leaves behind while it trains, and what it does when it is stopped or goes wrong."""

from __future__ import annotations

import json
import os
import signal
from collections import deque
from pathlib import Path
from types import SimpleNamespace

import pytest

from anomalyr1.types import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="training needs the extra 'train'")

from anomalyr1.training.monitor import RunMonitor, find_last_checkpoint  # noqa: E402


class FakeTrainer:
    """What a monitor sees of a trainer."""

    def __init__(self, folder: Path, loss: float = 0.5) -> None:
        self.args = SimpleNamespace(output_dir=str(folder), seed=7)
        self.state = SimpleNamespace(global_step=3, is_world_process_zero=True)
        self.loss = loss

    def add_callback(self, callback: object) -> None:
        self.callback = callback

    def training_step(self, *_arguments: object) -> object:
        return torch.tensor(self.loss)


def watch(folder: Path, loss: float = 0.5) -> tuple[FakeTrainer, RunMonitor]:
    trainer, monitor = FakeTrainer(folder, loss), RunMonitor(folder, "sft")
    monitor.watch(trainer)
    return trainer, monitor


def write_checkpoint(folder: Path, step: int, state: str = "{}") -> Path:
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text(state)
    return path


def test_each_log_is_a_line_of_the_run(tmp_path: Path) -> None:
    trainer, monitor = watch(tmp_path)
    for loss in (2.0, 1.5):
        monitor.on_log(trainer.args, trainer.state, None, {"loss": loss})
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 3, "stage": "sft", "loss": 2.0},
        {"step": 3, "stage": "sft", "loss": 1.5},
    ]
    assert not (tmp_path / "samples.jsonl").exists(), "this trainer has no completions"


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    trainer, monitor = watch(tmp_path)
    trainer.state.is_world_process_zero = False
    monitor.on_log(trainer.args, trainer.state, None, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_completions_are_sampled_with_their_rewards_at_intervals(tmp_path: Path) -> None:
    trainer, monitor = watch(tmp_path)
    trainer.num_generations = 2  # type: ignore[attr-defined]
    trainer.reward_weights = torch.tensor([1.0, 0.5])  # type: ignore[attr-defined]
    message = [{"role": "assistant", "content": [{"type": "text", "text": "<think>"}]}]
    trainer._logs = {  # type: ignore[attr-defined]
        "prompt": deque([[{"role": "user", "content": [{"type": "image"}]}]] * 6),
        "completion": deque([message] * 6),
        "rewards": {"roam_reward": deque([0.8] * 6), "label_reward": deque([float("nan")] * 6)},
        "advantages": deque([0.1] * 6),
        "extra": {"record_id": deque(["a", "a", "b", "b", "c", "c"])},
    }
    monitor.on_log(trainer.args, trainer.state, None, {"loss": 1.0})
    monitor.on_log(trainer.args, trainer.state, None, {"loss": 1.0})
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [sample["record_id"] for sample in samples] == ["a", "a", "b", "b"]
    assert samples[0]["prompt"] == "[picture]" and samples[0]["completion"] == "<think>"
    assert samples[0]["reward"] == pytest.approx(0.8), "a reward that is no number is left out"


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_and_names_batch_and_checkpoint(
    tmp_path: Path, loss: float
) -> None:
    write_checkpoint(tmp_path, 2)
    trainer, _monitor = watch(tmp_path, loss)
    with pytest.raises(InputError, match=r"batch of step 4 \(seed 7 .*checkpoint-2.*learning_rate"):
        trainer.training_step(None, None)


def test_a_good_loss_passes(tmp_path: Path) -> None:
    trainer, _monitor = watch(tmp_path)
    assert float(trainer.training_step(None, None)) == 0.5  # type: ignore[arg-type]


def test_ctrl_c_ends_the_step_and_saves_and_a_second_stops_at_once(tmp_path: Path) -> None:
    trainer, monitor = watch(tmp_path)
    control = SimpleNamespace(should_save=False, should_training_stop=False)
    before = signal.getsignal(signal.SIGINT)
    monitor.on_train_begin(trainer.args, trainer.state, control)
    try:
        os.kill(os.getpid(), signal.SIGINT)
        assert monitor.stopped
        monitor.on_step_end(trainer.args, trainer.state, control)
        assert control.should_save and control.should_training_stop
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        monitor.on_train_end(trainer.args, trainer.state, control)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("state", ["", '{"global_step": '])
def test_a_checkpoint_that_was_cut_short_is_passed_over(tmp_path: Path, state: str) -> None:
    assert find_last_checkpoint(tmp_path / "absent") is None
    whole = write_checkpoint(tmp_path, 9)
    write_checkpoint(tmp_path, 10, state)
    (tmp_path / "checkpoint-11").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert find_last_checkpoint(tmp_path) == whole
