"""anomalyr1 export: a checkpoint to one folder for transformers and vLLM."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anomalyr1.cli.console import out, wait_for_model
from anomalyr1.export import DTYPES, export_checkpoint


def export(
    checkpoint: Annotated[
        str, typer.Argument(help='A folder, with a LoRA adapter or a whole model, or "nano".')
    ],
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write; new or empty.")
    ],
    dtype: Annotated[
        str, typer.Option(help=f"What weights are stored in: {', '.join(DTYPES)}.")
    ] = "bfloat16",
) -> None:
    """Merge a LoRA adapter into its base model and write a folder that other programs load.

    Example: anomalyr1 export runs/lora/checkpoint --out exported && vllm serve exported
    """
    with wait_for_model(checkpoint):
        export_checkpoint(checkpoint, out_dir, dtype=dtype)
    out.print(str(out_dir), highlight=False, soft_wrap=True)
