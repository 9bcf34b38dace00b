"""Options that several commands take, each declared once. Those of endpoints are in `endpoint`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[
    str,
    typer.Option("--model", "-m", help='"nano", a checkpoint folder, a hub id or openai:URL#NAME.'),
]
MeasuredModel = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="nano, a folder, a hub id, openai:URL#NAME, detector:patch-memory, "
        "detector:dinov2:ID, random, majority.",
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(help="What runs the model: transformers, vllm or openai:URL; else its name says."),
]
Hint = Annotated[str, typer.Option(help="auto: show the model an anomaly map; none; dinov2:ID.")]
Masks = Annotated[str, typer.Option(help="auto, map, grabcut, sam2 or none.")]
Sam2Model = Annotated[
    str | None, typer.Option(help="SAM 2 checkpoint folder or hub id, for --masks sam2.")
]
Knowledge = Annotated[
    str, typer.Option(help="What is known of the part: a text, or a file that holds it.")
]
MaxReferences = Annotated[
    int, typer.Option(min=1, help="Use at most this many reference pictures, drawn by seed.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="Only the first so many.")]
Manifest = Annotated[
    Path | None,
    typer.Option(help="What was trained on, for the overlap: manifest.json or records.jsonl."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Pictures put to the model at once.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 ...")]
