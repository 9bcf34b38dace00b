"""Loads and saves Qwen-VL checkpoints, the bundled one too, and the processor that goes with them.

A checkpoint is a whole model or a LoRA adapter (see `adapters`). Weights come from safetensors
only: a checkpoint that would need unpickling is refused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from anomalyr1 import adapters
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
    """Load "nano", a folder or a hub id; a folder may hold a LoRA adapter instead of a model.

    `device` "auto" takes CUDA when there is one; `dtype` "auto" is bfloat16 there and float32 on
    a CPU. With an adapter, `model` is a peft.PeftModel on the base model that it names, and what
    the folder lacks (tokenizer, image processor, settings) comes from the base. Raises InputError
    when the folder is no checkpoint, holds pickled weights only, or is of a model family that is
    not supported, for a device that is not there, and for an adapter whose base is missing.
    """
    folder = resolve_source(source)  # before the imports below, which take seconds
    adapted = adapters.is_adapter(Path(folder))
    base = resolve_base(Path(folder)) if adapted else folder
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    device = _choose_device(device)
    named, remedy = source, ""
    if adapted:
        named = f"{base}, the base model of {source},"
        remedy = f"; {adapters.name_remedy(Path(folder))}"
    try:
        config = AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{named} is not a checkpoint that can be read: {error}{remedy}"
        ) from error
    if config.model_type not in _FRAMES:
        raise InputError(
            f"{named} is a {config.model_type!r} model; supported are {', '.join(_FRAMES)}"
        )
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            base, dtype=getattr(torch, dtype), use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(f"the weights of {named} cannot be loaded: {error}{remedy}") from error
    if adapted:
        model = adapters.load_adapter(model, Path(folder))
    model.to(device).eval()
    settings = _read_settings(folder if (Path(folder) / SETTINGS_FILE).is_file() else base)
    processor = load_processor(folder, base)
    return Checkpoint(model, processor, _FRAMES[config.model_type], source, settings)


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
    if folder.is_dir() and adapters.is_adapter(folder):
        adapters.read_base(folder)
        return str(folder)
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


def find_hint_folder(source: str) -> Path:
    """The detector that a checkpoint of a name, folder or hub id brings along in `hint/`, or else
    the bundled one."""
    own = Path(resolve_source(source)) / "hint"
    return own if (own / "head.onnx").is_file() else NANO_FOLDER / "hint"


def resolve_base(folder: Path) -> str:
    """The folder or hub id of an adapter's base model. A path may be relative to the adapter."""
    name = adapters.read_base(folder)
    if name != "nano" and not Path(name).exists() and (folder / name).is_dir():
        name = str(folder / name)
    try:
        base = resolve_source(name)
    except InputError as error:
        raise InputError(
            f"the base model of {folder} cannot be loaded: {error}; {adapters.name_remedy(folder)}"
        ) from error
    if adapters.is_adapter(Path(base)):
        raise InputError(
            f"{name}, the base model of {folder}, is an adapter itself: "
            f"merge it with anomalyr1 export, then {adapters.name_remedy(folder)}"
        )
    return base


def load_processor(folder: str, base: str | None = None) -> Any:
    """Image processor and tokenizer as one processor, without the video half (no torchvision).

    Either half that the folder lacks comes from `base`.
    """
    from transformers import AutoImageProcessor, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            _holder(("tokenizer_config.json", "tokenizer.json"), folder, base)
        )
        image_processor = AutoImageProcessor.from_pretrained(
            _holder(("preprocessor_config.json", "processor_config.json"), folder, base),
            backend="pil",
        )
    except (OSError, ValueError) as error:
        raise InputError(f"the processor of {folder} cannot be loaded: {error}") from error
    return build_processor(image_processor, tokenizer)


def _holder(names: tuple[str, ...], folder: str, base: str | None) -> str:
    """The folder where it holds one of the files, else the base."""
    if base is None or any((Path(folder) / name).is_file() for name in names):
        return folder
    return base


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


def shown_size(processor: Any, size_wh: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels at which a Qwen processor shows a picture of `size_wh`."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    images = processor.image_processor
    height, width = smart_resize(
        size_wh[1],
        size_wh[0],
        factor=images.patch_size * images.merge_size,
        min_pixels=images.size["shortest_edge"],
        max_pixels=images.size["longest_edge"],
    )
    return width, height


def save_checkpoint(checkpoint: Checkpoint, folder: Path) -> None:
    """Write a folder that this package and plain transformers load.

    Of a peft.PeftModel the adapter alone is written, with the name of its base model: "nano", or
    what the base was loaded from. So the base must be as it was loaded; raises InputError for one
    that was never loaded or is trained itself. `export.export_checkpoint` writes whole models.
    """
    model = checkpoint.model
    if adapters.is_adapted(model):
        base = adapters.name_base(model)
        folder.mkdir(parents=True, exist_ok=True)
        # The bundled folder lies elsewhere on the next machine.
        adapters.save_adapter(model, folder, "nano" if Path(base) == NANO_FOLDER else base)
    elif hasattr(model, "peft_config"):
        raise TypeError("this model has an adapter inside: give the peft.PeftModel around it")
    else:
        folder.mkdir(parents=True, exist_ok=True)
        model.save_pretrained(folder, safe_serialization=True)
    checkpoint.processor.tokenizer.save_pretrained(folder)
    _forget_processor_class(folder / "tokenizer_config.json")
    checkpoint.processor.image_processor.save_pretrained(folder)
    settings = json.dumps(asdict(checkpoint.settings), indent=2)
    (folder / SETTINGS_FILE).write_text(settings + "\n")


def _forget_processor_class(path: Path) -> None:
    """Take PictureTextProcessor, which a trainer's saving notes, out of a tokenizer's config.

    AutoProcessor does not know that class and would return the tokenizer alone; without a name it
    goes by the model's type.
    """
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("processor_class", None) is not None:
        path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_settings(folder: str) -> CheckpointSettings:
    path = Path(folder) / SETTINGS_FILE
    if not path.is_file():
        return CheckpointSettings()
    try:
        return CheckpointSettings(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
