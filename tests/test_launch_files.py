"""The launch files of several machines, as accelerate itself reads them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

LAUNCH = pytest.importorskip("accelerate.commands.launch")
FILES = Path(__file__).parents[1] / "recipes" / "accelerate"


def read(name: str, *options: str) -> tuple[Any, Any]:
    given = [
        "--config_file",
        str(FILES / f"{name}.yaml"),
        *options,
        "-m",
        "anomalyr1",
        "train",
        "R",
    ]
    arguments, defaults, _ = LAUNCH._validate_launch_command(
        LAUNCH.launch_command_parser().parse_args(given)
    )
    return arguments, defaults


@pytest.mark.parametrize("name", ["ddp", "fsdp2", "zero2", "zero3"])
def test_a_launch_file_takes_the_machines_of_the_command_line(name: str) -> None:
    machines = ["--num_machines", "4", "--machine_rank", "1", "--num_processes", "32"]
    arguments, _ = read(name, *machines, "--main_process_ip", "10.0.0.1")
    assert (arguments.num_machines, arguments.machine_rank) == (4, 1)
    assert arguments.num_processes == 32 and arguments.mixed_precision == "bf16"
    assert arguments.use_deepspeed == name.startswith("zero")
    assert arguments.use_fsdp == (name == "fsdp2")


@pytest.mark.parametrize(("name", "stage"), [("zero2", 2), ("zero3", 3)])
def test_deepspeed_is_started_on_each_machine_and_not_from_one_by_ssh(
    name: str, stage: int
) -> None:
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    machines = ["--num_machines", "4", "--machine_rank", "1", "--num_processes", "32"]
    arguments, defaults = read(name, *machines, "--main_process_ip", "10.0.0.1")
    arguments.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    command, environment = prepare_deepspeed_cmd_env(arguments)
    assert command is None, "no launcher of its own: torchrun starts this machine's processes"
    assert (arguments.nproc_per_node, arguments.node_rank) == ("8", 1)
    assert (arguments.nnodes, arguments.main_process_ip) == ("4", "10.0.0.1")
    assert environment["ACCELERATE_DEEPSPEED_ZERO_STAGE"] == str(stage)


def test_the_slurm_script_starts_one_launcher_a_machine_that_all_meet_at_the_first(
    tmp_path: Path,
) -> None:
    for name, said in (("scontrol", "echo node7; echo node8"), ("srun", 'echo "$@"')):
        (tmp_path / name).write_text(f"#!/bin/bash\n{said}\n")
        (tmp_path / name).chmod(0o755)
    given = {"SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "11"}
    run = subprocess.run(
        ["bash", FILES / "train.slurm", "my recipe.toml", "runs/a"],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **given},
        capture_output=True,
        text=True,
        check=True,
    )
    assert " ".join(run.stdout.split()) == (
        "--kill-on-bad-exit=0 torchrun --nnodes 2 --nproc-per-node 8 --rdzv-id 11 "
        "--rdzv-backend c10d --rdzv-endpoint node7:29500 --max-restarts 3 -m anomalyr1 train "
        "my recipe.toml --out runs/a --resume"
    )
    refused = subprocess.run(["bash", FILES / "train.slurm"], capture_output=True, text=True)
    assert refused.returncode != 0 and "name a recipe" in refused.stderr
