"""anomalyr1 adapt: a checkpoint that knows one's own part."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from anomalyr1.cli.console import err, follow, out


def adapt(
    normal: Annotated[Path, typer.Option(help="Folder of normal pictures of the part.")],
    defects: Annotated[
        Path | None, typer.Option(help="Records file with labelled pictures of the part, if any.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help='"nano" or a checkpoint folder.')
    ] = "nano",
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for pictures, run and checkpoint.")
    ] = Path("adapted"),
    head_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the detector's head; 0 keeps it.")
    ] = 500,
    grpo_steps: Annotated[
        int, typer.Option(min=0, help="Steps of GRPO; 0 keeps the language model.")
    ] = 24,
    resume: Annotated[bool, typer.Option(help="Continue a run that was stopped.")] = False,
    seed: Annotated[int, typer.Option()] = 0,
    num_workers: Annotated[int, typer.Option("--workers", min=1)] = os.cpu_count() or 1,
) -> None:
    """Adapt a checkpoint to a part, from its normal pictures: about 15 minutes on 2 CPU cores.

    Example: anomalyr1 adapt --normal good_parts/ --out adapted

    Then: anomalyr1 inspect photos/ -r good_parts/ --model adapted/run/checkpoint
    """
    from anomalyr1.training.adapt import Adaptation
    from anomalyr1.training.adapt import adapt as run

    plan = Adaptation(
        normal,
        out_dir,
        defects,
        model,
        head_steps=head_steps,
        grpo_steps=grpo_steps,
        seed=seed,
    )
    folder = run(
        plan,
        resume=resume,
        num_workers=num_workers,
        follow=follow,
        say=lambda text: err.print(text, highlight=False),
    )
    out.print(str(folder), highlight=False, soft_wrap=True)
