"""anomalyr1 train: a recipe to a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from anomalyr1.cli.console import err, follow, out
from anomalyr1.types import InputError


def train(
    recipe_file: Annotated[
        Path | None,
        typer.Argument(metavar="RECIPE", help="A recipe, such as recipes/nano-sft.toml."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[SECTION.KEY=VALUE]", help="Settings to change.")
    ] = None,
    out_dir: Annotated[
        Path | None, typer.Option("--out", "-o", help="Run folder; default runs/<recipe>.")
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue in the run folder.")] = False,
    num_workers: Annotated[int, typer.Option("--workers", min=1)] = os.cpu_count() or 1,
    list_recipes: Annotated[
        bool, typer.Option("--list", help="List the recipes of a folder and what they need.")
    ] = False,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Reckon batches, memory and time; train nothing.")
    ] = False,
    nodes: Annotated[int, typer.Option(min=1, help="Machines, for --plan.")] = 1,
    gpus: Annotated[int, typer.Option(min=1, help="GPUs a machine, for --plan.")] = 1,
    gpu_memory: Annotated[float, typer.Option(min=1, help="GiB a GPU, for --plan.")] = 80.0,
    strategy: Annotated[str, typer.Option(help="ddp, zero2, zero3 or fsdp2, for --plan.")] = "ddp",
) -> None:
    """Run a recipe from records to a checkpoint that inspect and evaluate take.

    Examples: anomalyr1 train recipes/nano-sft.toml sft.max_steps=100 --out runs/try

    anomalyr1 train --list

    anomalyr1 train recipes/nano-grpo.toml --plan --nodes 4 --gpus 8
    """
    if list_recipes:
        _list(recipe_file or Path("recipes"))
        return
    if recipe_file is None:
        raise InputError("no recipe: name one, or see them with anomalyr1 train --list")
    from anomalyr1.training.recipe import load_recipe
    from anomalyr1.training.run import run_recipe

    recipe = load_recipe(recipe_file, overrides or [])
    if plan_only:
        from anomalyr1.training.plan import Hardware, plan

        for name, value in plan(recipe, Hardware(nodes, gpus, gpu_memory), strategy):
            out.print(f"{name:15} {value}", highlight=False, soft_wrap=True)
        return
    folder = run_recipe(
        recipe,
        out_dir or Path("runs") / recipe_file.stem,
        resume=resume,
        num_workers=num_workers,
        follow=follow,
        say=lambda text: err.print(text, highlight=False),
    )
    out.print(str(folder), highlight=False, soft_wrap=True)


def _list(folder: Path) -> None:
    from rich.table import Table

    from anomalyr1.training.recipe import load_recipe

    paths = sorted(folder.glob("*.toml"))
    if not paths:
        raise InputError(f"{folder} holds no recipe (*.toml): name a folder that does")
    table = Table(f"recipe in {folder}", "what it trains", "what it needs")
    for path in paths:
        recipe = load_recipe(path)
        table.add_row(path.name, recipe.description, recipe.needs)
    out.print(table)
