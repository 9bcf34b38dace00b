"""Writes a checkpoint for other programs: one whole model, its adapter merged."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from anomalyr1 import adapters
from anomalyr1.checkpoint import load_checkpoint, save_checkpoint
from anomalyr1.types import InputError

DTYPES = ("bfloat16", "float32", "float16")


def export_checkpoint(source: str, folder: Path, *, dtype: str = "bfloat16") -> None:
    """Write a checkpoint as a whole model that transformers and vLLM load, adapter merged.

    `dtype` is what weights are stored in. They are added up in float32 on the CPU, which takes
    4 bytes of memory a parameter. Raises InputError for a folder that is not empty, an unknown
    dtype or one too small for a weight, and as `load_checkpoint` does.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r} is unknown; choose {', '.join(DTYPES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: give another --out")
    checkpoint = load_checkpoint(source, device="cpu", dtype="float32")
    import torch
    from safetensors import SafetensorError

    model = checkpoint.model
    if adapters.is_adapted(model):
        model = adapters.merge_adapter(model)
    model.to(getattr(torch, dtype))
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise InputError(f"{name} of {source} is not finite in {dtype}: choose another --dtype")
    try:
        save_checkpoint(replace(checkpoint, model=model), folder)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder} cannot be written: {error}") from error
