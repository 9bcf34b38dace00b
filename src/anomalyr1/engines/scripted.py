"""An engine that says what it is told: for tests, and to try the rest without a model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

from PIL import Image

from anomalyr1.checkpoint import CheckpointSettings
from anomalyr1.types import BoxFrame, Completion, Prompt


class ScriptedEngine:
    """Answers each prompt with `script(prompt, pictures)`: a text, or a whole Completion.

    Of a text, words are the tokens: `max_new_tokens` cuts behind as many. A Completion stays as
    it is.
    """

    def __init__(
        self,
        script: Callable[[Prompt, Sequence[Image.Image]], str | Completion],
        *,
        frame: BoxFrame = "absolute",
    ) -> None:
        self._script = script
        self.engine_id = "scripted"
        self.frame: BoxFrame = frame
        self.settings = CheckpointSettings()

    def shown_size(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """The picture's own size."""
        return size_wh

    def generate(
        self,
        prompts: Sequence[Prompt],
        pictures: Sequence[Sequence[Image.Image]],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """The script's completions; a bare text is given the pictures' own sizes."""
        completions = []
        for prompt, shown in zip(prompts, pictures, strict=True):
            said = self._script(prompt, shown)
            if isinstance(said, str):
                words = said.split(" ")
                kept = words[: max_new_tokens or len(words)]
                said = Completion(
                    record_id=prompt.record_id,
                    text=" ".join(kept),
                    num_tokens=len(kept),
                    finish_reason="length" if len(kept) < len(words) else "stop",
                    image_sizes_wh=tuple(picture.size for picture in shown),
                    seed=seed,
                )
            completions.append(said)
        return completions

    def stream(
        self,
        prompt: Prompt,
        pictures: Sequence[Image.Image],
        *,
        max_new_tokens: int | None = None,
    ) -> Generator[str, None, str]:
        """The script's text, word by word."""
        whole = self.generate([prompt], [pictures], max_new_tokens=max_new_tokens)[0]
        first, *others = whole.text.split(" ")
        yield first
        for word in others:
            yield f" {word}"
        return whole.finish_reason
