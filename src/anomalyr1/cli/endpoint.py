"""The options of models behind an endpoint, the same in each command, and what was used of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from anomalyr1.cli.console import err
from anomalyr1.types import InputError

if TYPE_CHECKING:
    from anomalyr1.engines.openai_engine import OpenAISettings
    from anomalyr1.models import RecordInspector

Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, help="openai: requests under way at once.")
]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, help="openai: seconds for one request.")
]
Retries = Annotated[
    int, typer.Option("--retries", min=0, help="openai: further tries after a 429 or 5xx.")
]
Prices = Annotated[
    str | None,
    typer.Option(
        "--prices", help="openai: IN,OUT for a million tokens read, written; prints the cost."
    ),
]


def read_asking(
    concurrency: int, timeout: float, retries: int, prices: str | None
) -> OpenAISettings:
    """How an endpoint is asked. Raises InputError for prices that are no two numbers."""
    from anomalyr1.engines.openai_engine import OpenAISettings

    return OpenAISettings(concurrency, timeout, retries, prices=read_prices(prices))


def read_prices(text: str | None) -> tuple[float, float] | None:
    """Two prices from a text such as "2.5,10". Raises InputError for anything else."""
    if text is None:
        return None
    try:
        read, written = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--prices is {text!r}; give two numbers, for example 2.5,10") from error
    if not (0 <= read < float("inf") and 0 <= written < float("inf")):
        raise InputError(f"--prices is {text!r}; prices are not negative, and finite")
    return read, written


def choose_batch_size(model: str, batch_size: int, asking: OpenAISettings) -> int:
    """Records under way at once: for an endpoint at least twice as many as requests, so that others
    go on while one is slow.

    >>> from anomalyr1.engines.openai_engine import OpenAISettings
    >>> choose_batch_size("openai:http://127.0.0.1:8000/v1#NAME", 8, OpenAISettings(concurrency=8))
    16
    """
    from anomalyr1.models import OPENAI_PREFIX

    return (
        max(batch_size, 2 * asking.concurrency) if model.startswith(OPENAI_PREFIX) else batch_size
    )


def print_usage(inspector: RecordInspector) -> None:
    """What this run asked of an endpoint, on stderr; nothing for other models."""
    from anomalyr1.models import find_usage

    used = find_usage(inspector)
    if used is None:
        return
    cost = "" if used.cost is None else f"; cost {used.cost:.4f}"
    err.print(
        f"requests: {used.num_requests}, {used.num_retries} of them again; "
        f"tokens: {used.num_prompt_tokens} read, {used.num_tokens} written{cost}",
        highlight=False,
        soft_wrap=True,
    )
