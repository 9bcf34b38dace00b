"""Engines: what turns a prompt with pictures into text. One protocol, several back ends."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Protocol

from PIL import Image

from anomalyr1.checkpoint import CheckpointSettings
from anomalyr1.types import BoxFrame, Completion, Prompt


class Engine(Protocol):
    """A loaded model. `frame` is how it writes boxes, `engine_id` names it in findings."""

    @property
    def engine_id(self) -> str: ...

    @property
    def frame(self) -> BoxFrame: ...

    @property
    def settings(self) -> CheckpointSettings: ...

    def shown_size(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Width and height in pixels at which the model sees a picture of `size_wh`."""
        ...

    def generate(
        self,
        prompts: Sequence[Prompt],
        pictures: Sequence[Sequence[Image.Image]],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterable[Completion]:
        """One completion a prompt, in order; `pictures[i]` are those `prompts[i]` indexes.

        A list, or an iterator over prompts that are under way from the call on, which gives each
        as soon as it and those before it are there; others may be put before it has ended.
        Temperature 0 is greedy. The text of one prompt does not depend on the others in the call.
        A prompt that cannot be put is a completion whose `finish_reason` is "error" or, where a
        list is given, an InputError. `tests/test_engine_conformance.py` is this protocol as tests.
        """
        ...

    def stream(
        self,
        prompt: Prompt,
        pictures: Sequence[Image.Image],
        *,
        max_new_tokens: int | None = None,
    ) -> Generator[str, None, str]:
        """The greedy text of one prompt, piece by piece as it is written, and its finish reason.

        Closing the iterator stops the model, which is then free for the next prompt.
        """
        ...
