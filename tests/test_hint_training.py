"""The hint's head and backbone: they train, and their ONNX says what torch says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from anomalyr1.detectors.patch_memory import open_session, run_head  # noqa: E402
from anomalyr1.training.backbone import TAP_CHANNELS, Backbone, standardise  # noqa: E402
from anomalyr1.training.hint import (  # noqa: E402
    Head,
    Sample,
    export_head,
    load_head,
    save_sample,
    train_head,
)


def make_sample(seed: int, height: int = 24, width: int = 16) -> Sample:
    """Features whose first channel is the mask."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.float16)
    if seed % 2:
        mask[4:12, 4:12] = 1.0
    levels = [
        rng.normal(size=(channels, height >> level, width >> level)).astype(np.float16)
        for level, channels in enumerate(TAP_CHANNELS)
    ]
    levels[0][0] = 4 * mask
    return Sample(*levels, rng.normal(size=(7, height, width)).astype(np.float16), mask)


def write(folder: Path, samples: Sequence[Sample]) -> list[Path]:
    paths = [folder / f"{number}.npz" for number in range(len(samples))]
    for path, sample in zip(paths, samples, strict=True):
        save_sample(path, sample)
    return paths


def test_training_moves_every_parameter_and_repeats_for_a_seed(tmp_path: Path) -> None:
    samples = write(tmp_path, [make_sample(seed) for seed in range(4)])
    torch.manual_seed(0)
    start = {name: value.clone() for name, value in Head().named_parameters()}
    runs = []
    for _run in range(2):
        steps = list(train_head(samples, seed=0, num_steps=3, batch_size=4))
        assert [step for step, _, _ in steps] == [1, 2, 3]
        assert np.isfinite([loss for _, loss, _ in steps]).all()
        runs.append(dict(steps[-1][2].named_parameters()))
    for name, value in runs[0].items():
        assert not torch.equal(value, start[name]), name
        assert torch.allclose(value, runs[1][name], atol=1e-6), name


def test_pictures_of_two_shapes_train_together(tmp_path: Path) -> None:
    samples = write(tmp_path, [make_sample(1), make_sample(2, 16, 32)])
    assert len(list(train_head(samples, seed=0, num_steps=4, batch_size=2))) == 4


def test_the_exported_head_says_what_torch_says(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="exporting needs the extra 'train'")
    torch.manual_seed(0)
    head = Head()
    export_head(head, tmp_path / "head.onnx", {"seed": 0})
    assert (tmp_path / "hint.json").is_file()
    for name, value in load_head(tmp_path / "head.onnx").state_dict().items():
        assert torch.equal(value, head.state_dict()[name]), name
    session = open_session(tmp_path / "head.onnx", 1)
    for height, width in ((24, 16), (32, 48)):
        sample = make_sample(1, height, width)
        arrays = [
            array.astype(np.float32) for array in (sample.stride4, sample.stride8, sample.stride16)
        ]
        channels = sample.distances.astype(np.float32)
        said = run_head(session, tuple(arrays), channels)
        with torch.inference_mode():
            tensors = [torch.from_numpy(array)[None] for array in (*arrays, channels)]
            expected = head(*tensors)[0, 0].numpy()
        assert said.shape == (height, width)
        np.testing.assert_allclose(said, expected, atol=1e-4)


def test_standardised_features_have_mean_0_and_spread_1() -> None:
    torch.manual_seed(0)
    backbone = Backbone().eval()
    pictures = [255 * torch.rand(1, 3, 64, 96) for _number in range(2)]
    standardise(backbone, pictures)
    with torch.inference_mode():
        taps = [backbone(picture) for picture in pictures]
    for index, channels in enumerate(TAP_CHANNELS):
        values = torch.cat([tap[index].reshape(channels, -1) for tap in taps], dim=1)
        assert values.shape[1] == 2 * (64 // (4 << index)) * (96 // (4 << index))
        assert torch.isfinite(values).all()
        assert values.mean(1).abs().max() < 1e-2
        # A channel that hardly varies is not blown up.
        assert values.std(1).max() < 1.05
