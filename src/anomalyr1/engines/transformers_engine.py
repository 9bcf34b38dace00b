"""Runs a Qwen-VL checkpoint with transformers, on a CPU or a GPU, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from threading import Thread
from typing import Any

from PIL import Image

from anomalyr1.checkpoint import (
    Checkpoint,
    CheckpointSettings,
    load_checkpoint,
    shown_size,
)
from anomalyr1.prompts import INSPECTION_TEMPLATE_ID, VERDICT_PROBE, to_chat
from anomalyr1.types import BoxFrame, Completion, InputError, Prompt

LABELS = ("anomalous", "normal")


class TransformersEngine:
    """A checkpoint loaded once. Not safe for several threads at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._model = checkpoint.model
        self._processor = checkpoint.processor
        self.engine_id = checkpoint.name
        self.frame: BoxFrame = checkpoint.frame
        self.settings: CheckpointSettings = checkpoint.settings

    @classmethod
    def load(cls, source: str, *, device: str = "auto", dtype: str = "auto") -> TransformersEngine:
        """Load "nano", a folder or a hub id; see `load_checkpoint` for errors."""
        return cls(load_checkpoint(source, device=device, dtype=dtype))

    def shown_size(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Width and height in pixels at which the processor shows a picture of `size_wh`."""
        return shown_size(self._processor, size_wh)

    def generate(
        self,
        prompts: Sequence[Prompt],
        pictures: Sequence[Sequence[Image.Image]],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Completion]:
        """One completion a prompt, all in one left-padded batch, with token log-probabilities."""
        import torch
        from transformers import LogitsProcessorList

        if not prompts:
            return []
        inputs = self._inputs(prompts, pictures)
        watch = _Watch()
        torch.manual_seed(seed)
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        limit = max_new_tokens or self.settings.max_new_tokens
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=limit,
                logits_processor=LogitsProcessorList([watch]),
                pad_token_id=self._processor.tokenizer.pad_token_id,
                **sampling,
            )
        written = output[:, inputs["input_ids"].shape[1] :]
        logprobs = watch.finish(written)
        sizes = self._shown_sizes(inputs, pictures)
        verdicts = self._probe_verdicts(prompts, pictures)
        completions = []
        for index, prompt in enumerate(prompts):
            ids = self._until_end(written[index].tolist())
            completions.append(
                Completion(
                    record_id=prompt.record_id,
                    text=self._processor.tokenizer.decode(ids, skip_special_tokens=True),
                    num_tokens=len(ids),
                    finish_reason="length" if len(ids) >= limit else "stop",
                    token_logprobs=tuple(logprobs[index][: len(ids)]),
                    p_anomalous=verdicts[index],
                    image_sizes_wh=sizes[index],
                    seed=seed,
                )
            )
        return completions

    def stream(self, prompt: Prompt, pictures: Sequence[Image.Image]) -> Iterator[str]:
        """The greedy text of one prompt, piece by piece; generation runs in a thread of its own."""
        from transformers import TextIteratorStreamer

        streamer = TextIteratorStreamer(
            self._processor.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        settings = {
            **self._inputs([prompt], [pictures]),
            "max_new_tokens": self.settings.max_new_tokens,
            "do_sample": False,
            "streamer": streamer,
            "pad_token_id": self._processor.tokenizer.pad_token_id,
        }
        failures: list[Exception] = []

        def write() -> None:
            try:
                self._model.generate(**settings)
            except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(error)
                streamer.end()

        worker = Thread(target=write, daemon=True)
        worker.start()
        yield from streamer
        worker.join()
        if failures:
            raise failures[0]

    def _inputs(
        self,
        prompts: Sequence[Prompt],
        pictures: Sequence[Sequence[Image.Image]],
        begun: str = "",
    ) -> dict[str, Any]:
        """Model inputs, left-padded; `begun` is the beginning of each answer."""
        texts = [
            self._processor.apply_chat_template(
                to_chat(prompt), tokenize=False, add_generation_prompt=True
            )
            + begun
            for prompt in prompts
        ]
        nested = [list(shown) for shown in pictures]
        try:
            batch = self._processor(
                text=texts,
                images=nested if any(nested) else None,
                padding=True,
                padding_side="left",
                return_tensors="pt",
            )
        except ValueError as error:
            names = ", ".join(prompt.record_id for prompt in prompts)
            raise InputError(f"the pictures of {names} do not fit the model: {error}") from error
        longest = batch["input_ids"].shape[1]
        text_config = self._model.config.get_text_config()
        if longest > text_config.max_position_embeddings:
            raise InputError(
                f"the prompt of {prompts[0].record_id} has {longest} tokens, the model's context "
                f"is {text_config.max_position_embeddings}: give fewer or smaller references"
            )
        return dict(batch.to(self._model.device))

    def _shown_sizes(
        self, inputs: dict[str, Any], pictures: Sequence[Sequence[Image.Image]]
    ) -> list[tuple[tuple[int, int], ...]]:
        """Sizes in pixels of each prompt's pictures as the model saw them, from its patch grid."""
        if "image_grid_thw" not in inputs:
            return [() for _ in pictures]
        patch = self._processor.image_processor.patch_size
        grid = iter(inputs["image_grid_thw"].tolist())
        sizes = []
        for shown in pictures:
            rows = [next(grid) for _ in shown]
            sizes.append(tuple((width * patch, height * patch) for _, height, width in rows))
        return sizes

    def _until_end(self, ids: list[int]) -> list[int]:
        tokenizer = self._processor.tokenizer
        configured = self._model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        ends |= set(configured) if isinstance(configured, list) else {configured}
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        return ids[:length]

    def _probe_verdicts(
        self, prompts: Sequence[Prompt], pictures: Sequence[Sequence[Image.Image]]
    ) -> list[float | None]:
        """P(anomalous) / (P(anomalous) + P(normal)) of each prompt's verdict: the next word after
        VERDICT_PROBE. None for prompts that ask for a letter, and where neither word is likely."""
        import torch

        verdicts: list[float | None] = [None] * len(prompts)
        asked = [
            index
            for index, prompt in enumerate(prompts)
            if prompt.template_id == INSPECTION_TEMPLATE_ID
        ]
        if not asked:
            return verdicts
        inputs = self._inputs(
            [prompts[index] for index in asked], [pictures[index] for index in asked], VERDICT_PROBE
        )
        with torch.inference_mode():
            logits = self._model(**inputs, logits_to_keep=1).logits[:, -1].float()
        shares = logits.softmax(-1)
        anomalous, normal = (
            shares[:, _beginnings(self._processor.tokenizer, word)].sum(-1) for word in LABELS
        )
        total = anomalous + normal
        for index, part, whole in zip(asked, anomalous, total, strict=True):
            verdicts[index] = float(part / whole) if whole > 1e-6 else None
        return verdicts


class _Watch:
    """A logits processor that changes nothing: it keeps the log-probability of each token."""

    def __init__(self) -> None:
        self._last: Any = None
        self._chosen: list[list[float]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self._last is not None:
            self._keep(input_ids[:, -1:])
        self._last = scores.float().log_softmax(-1)
        return scores

    def _keep(self, tokens: Any) -> None:
        self._chosen.append(self._last.gather(1, tokens)[:, 0].tolist())

    def finish(self, written: Any) -> list[list[float]]:
        """Log-probabilities, a list a row, of the tokens (N, T) that were written."""
        self._keep(written[:, -1:])
        return [list(row) for row in zip(*self._chosen, strict=True)]


@lru_cache(maxsize=8)
def _beginnings(tokenizer: Any, word: str) -> list[int]:
    """Tokens that are the beginning of a word."""
    pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    return [token for token, piece in enumerate(pieces) if piece and word.startswith(piece)]
