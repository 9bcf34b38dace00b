"""anomalyr1 adapt: a checkpoint that knows one's own parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomalyr1.cli.console import err, follow, make_printable, out
from anomalyr1.types import InputError

if TYPE_CHECKING:
    from anomalyr1.server.learning import Course


def adapt(
    normal: Annotated[
        Path | None, typer.Option(help="Folder of normal pictures of the part.")
    ] = None,
    defects: Annotated[
        Path | None, typer.Option(help="Records file with labelled pictures of the part, if any.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option("--from-store", help="Instead: a station's folder; learn from its reviews."),
    ] = None,
    url: Annotated[str | None, typer.Option("--db", help="That station's database.")] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Checkpoint; default: the station's model, or nano."),
    ] = None,
    out_dir: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for pictures, run and checkpoint.")
    ] = Path("adapted"),
    num_designs: Annotated[
        int, typer.Option("--designs", min=1, help="Groups of four painted pictures.")
    ] = 80,
    head_steps: Annotated[
        int, typer.Option(min=0, help="Steps of the detector's head; 0 keeps it.")
    ] = 500,
    grpo_steps: Annotated[
        int, typer.Option(min=0, help="Steps of GRPO; 0 keeps the language model.")
    ] = 16,
    resume: Annotated[bool, typer.Option(help="Continue a run that was stopped.")] = False,
    seed: Annotated[int, typer.Option()] = 0,
    split_seed: Annotated[
        int, typer.Option(help="Of --from-store: which reviewed pictures are held out.")
    ] = 0,
    num_workers: Annotated[int, typer.Option("--workers", min=1)] = os.cpu_count() or 1,
) -> None:
    """Adapt a checkpoint to a part, from its normal pictures: about 15 minutes on 2 CPU cores.

    Example: anomalyr1 adapt --normal good_parts/ --out adapted

    Then: anomalyr1 inspect photos/ -r good_parts/ --model adapted/run/checkpoint

    From a station's reviews, measured beside its model on reviewed pictures that are held out:

      anomalyr1 adapt --from-store station --out candidate

      anomalyr1 model promote candidate/run/checkpoint --data station --by Ann
    """
    if (normal is None) == (store is None):
        raise InputError("give --normal FOLDER or --from-store STATION, one of them")
    if store is not None:
        from anomalyr1.server.learning import Course

        if defects is not None:
            raise InputError("--defects goes with --normal: a station's defects are in its reviews")
        course = Course(
            out_dir,
            model,
            num_designs=num_designs,
            head_steps=head_steps,
            grpo_steps=grpo_steps,
            seed=seed,
            split_seed=split_seed,
        )
        _adapt_from_store(store, url, course, resume=resume, num_workers=num_workers)
        return
    from anomalyr1.data.corrections import NormalProduct
    from anomalyr1.training.adapt import Adaptation
    from anomalyr1.training.adapt import adapt as run

    assert normal is not None
    plan = Adaptation(
        (NormalProduct(normal.resolve().name, normal.resolve()),),
        out_dir,
        defects,
        model or "nano",
        num_designs=num_designs,
        head_steps=head_steps,
        grpo_steps=grpo_steps,
        seed=seed,
    )
    folder = run(plan, resume=resume, num_workers=num_workers, follow=follow, say=_say)
    out.print(str(folder), highlight=False, soft_wrap=True)


def _adapt_from_store(
    folder: Path, url: str | None, course: Course, *, resume: bool, num_workers: int
) -> None:
    from anomalyr1.cli.model import print_comparison
    from anomalyr1.cli.serve import open_store
    from anomalyr1.server.learning import adapt_from_store

    checkpoint, comparison = adapt_from_store(
        open_store(folder, url),
        course,
        resume=resume,
        num_workers=num_workers,
        follow=follow,
        say=_say,
    )
    print_comparison(comparison)
    err.print(
        f"a person decides: anomalyr1 model promote {checkpoint} --data {folder} --by NAME",
        highlight=False,
        soft_wrap=True,
    )
    out.print(str(checkpoint), highlight=False, soft_wrap=True)


def _say(text: str) -> None:
    err.print(make_printable(text), highlight=False, soft_wrap=True)
