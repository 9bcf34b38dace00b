"""What is no checkpoint is refused by name, before anything heavy is loaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from anomalyr1.checkpoint import NANO_FOLDER, SETTINGS_FILE, load_checkpoint, resolve_source
from anomalyr1.types import InputError

PICKLES = ["pytorch_model.bin", "model.pt", "model.pth", "last.ckpt", "weights.pkl"]


def make_folder(folder: Path, *names: str) -> str:
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"{}")
    return str(folder)


def test_a_folder_with_a_config_and_safetensors_is_taken(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "model", "config.json", "model.safetensors")
    assert resolve_source(source) == source


def test_nano_is_the_bundled_folder() -> None:
    assert resolve_source("nano") == str(NANO_FOLDER)


@pytest.mark.parametrize("source", ["Qwen/Qwen2.5-VL-3B-Instruct", "some-model"])
def test_a_name_that_is_no_folder_is_left_to_the_hub(source: str) -> None:
    assert resolve_source(source) == source


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/model", "~/model", "runs/try/model"])
def test_a_path_that_does_not_exist_is_not_looked_for_on_the_hub(source: str) -> None:
    with pytest.raises(InputError, match=f"{source} does not exist"):
        resolve_source(source)


@pytest.mark.parametrize("names", [[], ["model.safetensors"], ["report.html"]], ids=str)
def test_a_folder_without_a_config_is_no_checkpoint(tmp_path: Path, names: list[str]) -> None:
    source = make_folder(tmp_path / "other", *names)
    with pytest.raises(InputError, match=r"other is not a checkpoint: it has no config\.json"):
        resolve_source(source)


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="is not a checkpoint"):
        resolve_source(str(path))


@pytest.mark.parametrize("name", PICKLES)
def test_pickled_weights_are_refused_and_named(tmp_path: Path, name: str) -> None:
    source = make_folder(tmp_path / "model", "config.json", name)
    with pytest.raises(InputError, match=rf"only pickled weights \({name}\).*safetensors"):
        resolve_source(source)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "model", "config.json", SETTINGS_FILE)
    with pytest.raises(InputError, match="model holds no weights"):
        resolve_source(source)


def test_a_folder_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from anomalyr1.inspector import Inspector\n"
        "from anomalyr1.types import InputError\n"
        "try: Inspector.load(sys.argv[1], hint='none')\n"
        "except InputError as error: print(error)\n"
        "print({'torch', 'transformers'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "nowhere")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert "nowhere" in done.stdout


def test_a_device_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    source = make_folder(tmp_path / "model", "config.json", "model.safetensors")
    with pytest.raises(InputError, match="device 'abacus' cannot be used") as caught:
        load_checkpoint(source, device="abacus")
    assert "\n" not in str(caught.value)
