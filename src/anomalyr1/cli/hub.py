"""anomalyr1 hub: a checkpoint with its card to a model hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from anomalyr1.cli.console import err, out

app = typer.Typer(help="Put checkpoints on a model hub.", no_args_is_help=True)


@app.callback()
def hub() -> None:
    """Put checkpoints on a model hub."""


@app.command("push")
def push_checkpoint(
    folder: Annotated[Path, typer.Argument(help="A training run's folder, or a checkpoint.")],
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="OWNER/NAME.")],
    licence: Annotated[str, typer.Option(help="Of the weights, as the hub names it.")],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="--out folder of evaluate records, whose figures the card quotes."),
    ] = None,
    private: Annotated[bool, typer.Option(help="Only for those you let in.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the card and the files; send nothing.")
    ] = False,
) -> None:
    """Upload a checkpoint, its model card filled in from the run and from evaluations.

    The token is HF_TOKEN's or that of `hf auth login`; another hub is named by HF_ENDPOINT.

    Example: anomalyr1 hub push runs/my-run OWNER/NAME --licence apache-2.0 --evaluation results
    """
    from anomalyr1.hub import build_card, find_checkpoint, list_files, load_evaluation, push

    checkpoint = find_checkpoint(folder)
    figures = [load_evaluation(path) for path in evaluation or []]
    card = build_card(folder, repository, licence, figures)
    if dry_run:
        err.print("\n".join(map(str, list_files(checkpoint))), highlight=False)
        typer.echo(card)
        return
    with err.status("sending"):
        url = push(checkpoint, repository, card, private=private)
    out.print(url, highlight=False, soft_wrap=True)
