"""Adapting to one's own part: what is painted, trained and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxscript", reason="training needs the extra 'train'")

from anomalyr1.checkpoint import NANO_FOLDER, find_hint_folder
from anomalyr1.data.corrections import NormalProduct
from anomalyr1.training.adapt import Adaptation, adapt
from anomalyr1.types import InputError


def write_normals(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = np.clip(rng.normal(120, 8, (96, 96, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def follow(items, label, total):  # type: ignore[no-untyped-def]
    yield from items


def test_an_adapted_checkpoint_brings_its_own_detector(tmp_path: Path) -> None:
    normal = write_normals(tmp_path / "plate", 6)
    plan = Adaptation(
        (NormalProduct("plate", normal),),
        tmp_path / "out",
        num_designs=3,
        head_steps=2,
        grpo_steps=0,
    )
    said: list[str] = []
    folder = adapt(plan, resume=False, num_workers=1, follow=follow, say=said.append)
    assert find_hint_folder(str(folder)) == folder / "hint"
    own, bundled = (
        (place / "head.onnx").read_bytes() for place in (folder / "hint", NANO_FOLDER / "hint")
    )
    assert own != bundled
    assert not list(tmp_path.rglob("samples")), "a megabyte a picture, of no use any more"
    assert (folder / "model.safetensors").is_file()
    assert (tmp_path / "out" / "run" / "report.html").is_file()


def test_too_few_normal_pictures_are_refused(tmp_path: Path) -> None:
    normal = write_normals(tmp_path / "plate", 2)
    with pytest.raises(InputError, match="holds 2 pictures: give at least 5"):
        adapt(
            Adaptation(
                (NormalProduct("plate", normal),),
                tmp_path / "out",
                num_designs=1,
                head_steps=1,
                grpo_steps=0,
            ),
            resume=False,
            num_workers=1,
            follow=follow,
            say=print,
        )


def test_a_checkpoint_without_a_detector_uses_the_bundled_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert find_hint_folder(str(tmp_path)) == NANO_FOLDER / "hint"
