from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomalyr1.detectors.dinov2 import Dinov2Detector
from anomalyr1.types import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    config = Dinov2Config(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, patch_size=56, image_size=224
    )
    path = tmp_path_factory.mktemp("dinov2")
    Dinov2Model(config).save_pretrained(path)
    return path


def make_picture(seed: int) -> Image.Image:
    noise = np.random.default_rng(seed).integers(90, 110, (120, 160, 3))
    return Image.fromarray(noise.astype(np.uint8))


def test_a_spoiled_patch_stands_out_from_the_references(folder: Path) -> None:
    detector = Dinov2Detector.load(str(folder))
    references = [make_picture(1), make_picture(2), make_picture(3)]
    spoiled = np.asarray(make_picture(4)).copy()
    spoiled[80:120, 120:160] = (250, 0, 0)
    quiet = detector.detect(make_picture(5), references)
    loud = detector.detect(Image.fromarray(spoiled), references)
    assert loud.score > quiet.score
    anomaly_map = np.asarray(loud.anomaly_map)
    assert anomaly_map.shape == (9, 12)
    assert anomaly_map[6:, 9:].mean() > anomaly_map[:6].mean()


def test_it_asks_for_references(folder: Path) -> None:
    with pytest.raises(InputError, match="--reference"):
        Dinov2Detector.load(str(folder)).detect(make_picture(1), [])


def test_other_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="DINOv2"):
        Dinov2Detector.load(str(tmp_path))
