"""LoRA adapters in PEFT's folders: what base model one stands on; loading, saving, merging it.

Safetensors only, as with full checkpoints. PEFT comes with the extra `train`.
"""

from __future__ import annotations

import json
import sys
from copy import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from anomalyr1.types import InputError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_ADAPTER = "default"
"""PEFT's name for the one adapter of a folder; TRL's copy of it for KL is called "ref"."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter instead of a whole model."""
    return (folder / CONFIG_FILE).is_file()


def read_base(folder: Path) -> str:
    """Name of the base model of an adapter folder, as its adapter_config.json has it.

    Raises InputError for an adapter that is not LoRA, without a base model, with pickled weights,
    or beside a whole model (which of the two was meant?), and where PEFT is not installed.
    """
    path = folder / CONFIG_FILE
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        kind, base = settings["peft_type"], settings["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} cannot be read: {error!r}") from error
    if kind != "LORA":
        raise InputError(f"{path} has peft_type {kind!r}; only 'LORA' is loaded")
    if not isinstance(base, str) or not base:
        raise InputError(f"{path} names no base model: {name_remedy(folder)}")
    if not (folder / WEIGHTS_FILE).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        reason = "pickled weights (adapter_model.bin)" if pickled else "no adapter weights"
        raise InputError(
            f"{folder} holds {reason}; only safetensors are loaded: "
            "save it again with save_pretrained(..., safe_serialization=True)"
        )
    if any(folder.glob("model*.safetensors")):
        raise InputError(
            f"{folder} holds an adapter and a whole model: move {CONFIG_FILE} or "
            "the model*.safetensors elsewhere"
        )
    if find_spec("peft") is None:
        raise InputError(
            f"{folder} is a LoRA adapter, which needs PEFT: pip install 'anomalyr1[train]'"
        )
    return base


def name_remedy(folder: Path) -> str:
    """What to do about a base model that is not there."""
    return (
        f'set base_model_name_or_path in {folder / CONFIG_FILE} to "nano", '
        "a model folder or a hub id"
    )


def load_adapter(model: Any, folder: Path) -> Any:
    """The base model wrapped as a peft.PeftModel with the folder's adapter, frozen.

    Raises InputError when the adapter does not fit: other shapes, other layers, missing weights.
    """
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError

    try:
        config = PeftConfig.from_pretrained(str(folder))
        config.inference_mode = True
        adapted = PeftModel(model, config, _ADAPTER)
        found = adapted.load_adapter(
            str(folder), _ADAPTER, key_mapping=getattr(model, "_checkpoint_conversion_mapping", {})
        )
    except (OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise InputError(f"the adapter {folder} cannot be loaded: {error}") from error
    # PEFT warns of these at most, and goes on with weights that were never trained.
    for reason, names in (("lacks", found.missing_keys), ("has unknown", found.unexpected_keys)):
        if names:
            raise InputError(
                f"the adapter {folder} does not fit its base model: "
                f"it {reason} {len(names)} weights, such as {names[0]}"
            )
    return adapted


def is_adapted(model: Any) -> bool:
    """Whether a loaded model is a peft.PeftModel."""
    return "peft" in sys.modules and isinstance(model, sys.modules["peft"].PeftModel)


def name_base(model: Any) -> str:
    """Folder or hub id that the model under an adapter was loaded from.

    Raises InputError for one that never was: its adapter could not be loaded again.
    """
    base = model.get_base_model().name_or_path
    if not base:
        raise InputError(
            "the model under the adapter was never loaded from a folder, so the adapter alone "
            "could not be loaded again: save that model first, load it and adapt it, or merge"
        )
    return str(base)


def save_adapter(model: Any, folder: Path, base: str) -> None:
    """Write adapter_config.json and adapter_model.safetensors; `base` is the base model's name.

    PEFT's own save_pretrained would ask the hub for the base model, write a model card with the
    path of this machine, and keep TRL's "ref" copy too. Raises InputError where weights were
    trained that are not the adapter's, since they would be lost.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    tensors = get_peft_model_state_dict(model, adapter_name=_ADAPTER, save_embedding_layers=False)
    kept = {value.data_ptr() for value in tensors.values()}
    for name, weight in model.named_parameters():
        if weight.requires_grad and weight.data_ptr() not in kept:
            raise InputError(
                f"{name} is trained too, but only the adapter would be saved: freeze the base "
                "model, or merge the adapter and save the whole"
            )
    # Cloned, since safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    config = copy(model.peft_config[_ADAPTER])
    config.base_model_name_or_path = base
    config.inference_mode = True
    config.save_pretrained(str(folder))


def merge_adapter(model: Any) -> Any:
    """The base model with the adapter added to its weights, in the base model's dtype.

    Raises InputError where no sum gives the same model: an adapter on tied embeddings, which are
    one tensor in two places, and one that makes a weight infinite or NaN.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    base = model.get_base_model()
    embeddings = (base.get_input_embeddings(), base.get_output_embeddings())
    if base.config.get_text_config().tie_word_embeddings and any(
        isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper) for layer in embeddings
    ):
        raise InputError(
            "the adapter changes embeddings that the base model uses twice (tie_word_embeddings), "
            "so it cannot be merged: train it without embed_tokens and lm_head"
        )
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise InputError(f"the adapter cannot be merged: {error}") from error
