"""Runs a Qwen-VL checkpoint with transformers, on a CPU or a GPU, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from threading import Thread
from typing import Any

from PIL import Image

from anomalyr1.checkpoint import Checkpoint, CheckpointSettings, load_checkpoint
from anomalyr1.parsing import verdict_span
from anomalyr1.prompts import to_chat
from anomalyr1.types import BoxFrame, Completion, InputError, Prompt

_WORDS = ("anomalous", "normal")


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
        watch = _Watch(self._processor.tokenizer)
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
        watch.finish(written)
        sizes = self._shown_sizes(inputs, pictures)
        return [
            self._completion(prompt, index, written[index], watch, sizes[index], limit, seed)
            for index, prompt in enumerate(prompts)
        ]

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
        worker = Thread(target=self._model.generate, kwargs=settings, daemon=True)
        worker.start()
        yield from streamer
        worker.join()

    def _inputs(
        self, prompts: Sequence[Prompt], pictures: Sequence[Sequence[Image.Image]]
    ) -> dict[str, Any]:
        texts = [
            self._processor.apply_chat_template(
                to_chat(prompt), tokenize=False, add_generation_prompt=True
            )
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

    def _completion(
        self,
        prompt: Prompt,
        index: int,
        written: Any,
        watch: _Watch,
        sizes: tuple[tuple[int, int], ...],
        limit: int,
        seed: int,
    ) -> Completion:
        tokenizer = self._processor.tokenizer
        ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        configured = self._model.generation_config.eos_token_id
        ends |= set(configured) if isinstance(configured, list) else {configured}
        ids = written.tolist()
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        ids = ids[:length]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        return Completion(
            record_id=prompt.record_id,
            text=text,
            num_tokens=length,
            finish_reason="length" if length >= limit else "stop",
            token_logprobs=tuple(watch.logprobs[index][:length]),
            p_anomalous=self._p_anomalous(ids, text, watch, index),
            image_sizes_wh=sizes,
            seed=seed,
        )

    def _p_anomalous(self, ids: list[int], text: str, watch: _Watch, index: int) -> float | None:
        """P(anomalous) / (P(anomalous) + P(normal)) at the token that begins the verdict."""
        span = verdict_span(text)
        if span is None:
            return None
        tokenizer = self._processor.tokenizer
        step, before = 0, ""
        while step < len(ids):
            after = tokenizer.decode(ids[: step + 1], skip_special_tokens=True)
            if len(after) > span[0]:
                break
            step, before = step + 1, after
        lead = text[len(before) : span[0]]
        shares = [watch.probability(step, index, lead, word) for word in _WORDS]
        total = sum(shares)
        return shares[0] / total if total > 0 else None


class _Watch:
    """A logits processor that changes nothing. It keeps the log-probability of each token chosen
    and, for the verdict, the probabilities of the few tokens that can begin one."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._candidates = _verdict_tokens(tokenizer)
        self._last: Any = None
        self._chosen: list[list[float]] = []
        self._verdicts: list[Any] = []
        self.logprobs: list[list[float]] = []

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        if self._last is not None:
            self._keep(input_ids[:, -1:])
        self._last = scores.float().log_softmax(-1)
        self._verdicts.append(self._last[:, list(self._candidates)].exp().cpu())
        return scores

    def _keep(self, tokens: Any) -> None:
        self._chosen.append(self._last.gather(1, tokens)[:, 0].tolist())

    def finish(self, written: Any) -> None:
        """Hand over the tokens (N, T) that were written, for the last step's choice."""
        self._keep(written[:, -1:])
        self.logprobs = [list(row) for row in zip(*self._chosen, strict=True)]

    def probability(self, step: int, index: int, lead: str, word: str) -> float:
        """Probability at a step of the tokens that are `lead` and the beginning of `word`."""
        if step >= len(self._verdicts):
            return 0.0
        pieces = _pieces(self._tokenizer)
        columns = [
            column
            for column, token in enumerate(self._candidates)
            if _begins(pieces[token], lead, word)
        ]
        return float(self._verdicts[step][index, columns].sum())


def _begins(piece: str, lead: str, word: str) -> bool:
    rest = piece[len(lead) :]
    return piece.startswith(lead) and bool(rest) and word.startswith(rest)


@lru_cache(maxsize=4)
def _pieces(tokenizer: Any) -> tuple[str, ...]:
    return tuple(tokenizer.batch_decode([[token] for token in range(len(tokenizer))]))


@lru_cache(maxsize=4)
def _verdict_tokens(tokenizer: Any) -> tuple[int, ...]:
    """Tokens that, after punctuation and blanks, are the beginning of a verdict."""
    tokens = []
    for token, piece in enumerate(_pieces(tokenizer)):
        bare = piece.lstrip(' "\n\':{')
        if bare and any(word.startswith(bare) for word in _WORDS):
            tokens.append(token)
    return tuple(tokens)
