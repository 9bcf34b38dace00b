"""Loads and saves Qwen-VL checkpoints, the bundled one too, and the processor that goes with them.

Weights come from safetensors only: a checkpoint that would need unpickling is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomalyr1.types import BoxFrame, InputError

NANO_FOLDER = Path(__file__).parent / "nano"
"""The bundled checkpoint."""

_FRAMES: dict[str, BoxFrame] = {"qwen2_5_vl": "absolute", "qwen3_vl": "relative_1000"}
"""Model types that can be loaded, with how each writes boxes (the families' model cards)."""

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")

SETTINGS_FILE = "anomalyr1.json"
"""Beside a checkpoint's weights: what prompts it was trained on. Absent: defaults."""


@dataclass(frozen=True, slots=True)
class CheckpointSettings:
    """How a checkpoint wants its prompts: reference pictures shown, tokens to write at most."""

    max_references: int = 4
    max_new_tokens: int = 512


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded model with its processor. `frame` is how it writes boxes; `name` names it."""

    model: Any
    processor: Any
    frame: BoxFrame
    name: str
    settings: CheckpointSettings


def load_checkpoint(source: str, *, device: str = "auto", dtype: str = "auto") -> Checkpoint:
    """Load "nano", a folder or a hub id.

    `device` "auto" takes CUDA when there is one; `dtype` "auto" is bfloat16 there and float32 on
    a CPU. Raises InputError when the folder is no checkpoint, holds pickled weights only, or is
    of a model family that is not supported, and for a device that is not there.
    """
    folder = resolve_source(source)  # before the imports below, which take seconds
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    device = _choose_device(device)
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"{source} is not a checkpoint that can be read: {error}") from error
    if config.model_type not in _FRAMES:
        raise InputError(
            f"{source} is a {config.model_type!r} model; supported are {', '.join(_FRAMES)}"
        )
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=getattr(torch, dtype), use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"the weights of {source} cannot be loaded: {error}") from error
    model.to(device).eval()
    return Checkpoint(
        model, load_processor(folder), _FRAMES[config.model_type], source, _read_settings(folder)
    )


def _choose_device(device: str) -> str:
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"device {device!r} cannot be used ({reason}); choose auto, cpu or cuda"
        ) from error
    return device


def resolve_source(source: str) -> str:
    """The folder or hub id behind a model's name. Raises InputError for an unusable folder."""
    if source == "nano":
        return str(NANO_FOLDER)
    folder = Path(source)
    if not folder.exists():
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise InputError(f"model folder {source} does not exist")
        return source
    if not folder.is_dir() or not (folder / "config.json").is_file():
        raise InputError(f"{source} is not a checkpoint: it has no config.json")
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
        reason = f"only pickled weights ({', '.join(pickled)})" if pickled else "no weights"
        raise InputError(
            f"{source} holds {reason}; only safetensors are loaded: "
            "save it again with save_pretrained(..., safe_serialization=True)"
        )
    return str(folder)


def load_processor(folder: str) -> Any:
    """Image processor and tokenizer as one processor, without the video half (no torchvision)."""
    from transformers import AutoImageProcessor, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        image_processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    except (OSError, ValueError) as error:
        raise InputError(f"the processor of {folder} cannot be loaded: {error}") from error
    return build_processor(image_processor, tokenizer)


def build_processor(image_processor: Any, tokenizer: Any) -> Any:
    """A Qwen2.5-VL processor of pictures and text only.

    Upstream's Qwen2_5_VLProcessor demands a video processor, which imports torchvision
    (transformers 5.23, processing_qwen2_5_vl.py); this one declares what we use.
    """
    return _processor_class()(image_processor, tokenizer, chat_template=tokenizer.chat_template)


_PROCESSOR_CLASS: list[type] = []


def _processor_class() -> type:
    """Made on first use, since the base class is a heavy import."""
    if _PROCESSOR_CLASS:
        return _PROCESSOR_CLASS[0]
    from transformers import Qwen2_5_VLProcessor
    from transformers.processing_utils import ProcessorMixin

    class PictureTextProcessor(Qwen2_5_VLProcessor):  # type: ignore[misc]
        """Qwen2_5_VLProcessor that declares only image_processor and tokenizer."""

        def __init__(
            self, image_processor: Any = None, tokenizer: Any = None, chat_template: Any = None
        ) -> None:
            self.image_token = "<|image_pad|>"
            self.video_token = "<|video_pad|>"
            self.image_token_id = tokenizer.convert_tokens_to_ids(self.image_token)
            self.video_token_id = tokenizer.convert_tokens_to_ids(self.video_token)
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)

    _PROCESSOR_CLASS.append(PictureTextProcessor)
    return PictureTextProcessor


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a folder that this package and plain transformers load."""
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.model.save_pretrained(folder, safe_serialization=True)
    checkpoint.processor.tokenizer.save_pretrained(folder)
    checkpoint.processor.image_processor.save_pretrained(folder)
    settings = {
        "max_references": checkpoint.settings.max_references,
        "max_new_tokens": checkpoint.settings.max_new_tokens,
    }
    (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2) + "\n")


def _read_settings(folder: str) -> CheckpointSettings:
    path = Path(folder) / SETTINGS_FILE
    if not path.is_file():
        return CheckpointSettings()
    try:
        return CheckpointSettings(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
