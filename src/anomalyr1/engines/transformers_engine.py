"""Runs a Qwen-VL checkpoint with transformers, on a CPU or a GPU, in batches."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache, partial
from threading import Event, Thread
from typing import Any

import torch
from PIL import Image
from transformers import LogitsProcessorList, StoppingCriteriaList

from anomalyr1.checkpoint import (
    Checkpoint,
    CheckpointSettings,
    load_checkpoint,
    shown_size,
)
from anomalyr1.engines.answer_grammar import AnswerGrammar
from anomalyr1.engines.answer_tokens import read_answer_tokens
from anomalyr1.engines.prompt_tokens import PreparedPrompt, prepare_prompts, render
from anomalyr1.engines.shared_fronts import FrontCache, Layers, build_cache, compute_next
from anomalyr1.engines.verdicts import Begun, name_verdict, read_verdicts
from anomalyr1.types import BoxFrame, Completion, InputError, Label, Prompt


class TransformersEngine:
    """A checkpoint loaded once. Not safe for several threads at a time."""

    def __init__(self, checkpoint: Checkpoint, *, max_cache_tokens: int = 32768) -> None:
        """`max_cache_tokens` bounds memory: as many tokens, prompts and answers, at a time."""
        self._model = checkpoint.model
        self._backbone = next(
            inside for inside in checkpoint.model.modules() if hasattr(inside, "get_rope_index")
        )
        self._max_cache_tokens = max_cache_tokens
        self._fronts = FrontCache(max_cache_tokens)
        self._processor = checkpoint.processor
        self.engine_id = checkpoint.name
        self.frame: BoxFrame = checkpoint.frame
        self.settings: CheckpointSettings = checkpoint.settings
        self._answer_tokens = read_answer_tokens(checkpoint.processor.tokenizer)

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
        """One completion a prompt, with token log-probabilities.

        What prompts have in common in front is computed once, and not at all where the longest
        prompt of the call before had it too.
        """
        if not prompts:
            return []
        torch.manual_seed(seed)
        limit = max_new_tokens or self.settings.max_new_tokens
        completions: list[Completion] = []
        with torch.inference_mode():
            prepared = self._prepare(prompts, pictures)
            for part in self._split(prepared, limit):
                completions += self._generate_part(
                    [prompts[index] for index in part],
                    [prepared[index] for index in part],
                    limit,
                    temperature,
                    seed,
                )
        return completions

    def _prepare(
        self, prompts: Sequence[Prompt], pictures: Sequence[Sequence[Image.Image]]
    ) -> list[PreparedPrompt]:
        try:
            prepared = prepare_prompts(self._backbone, self._processor, prompts, pictures)
        except InputError as error:
            names = ", ".join(prompt.record_id for prompt in prompts)
            raise InputError(f"the pictures of {names} do not fit the model: {error}") from error
        for prompt, own in zip(prompts, prepared, strict=True):
            self._check_length(prompt, len(own.tokens.keys))
        return prepared

    def _split(self, prepared: Sequence[PreparedPrompt], limit: int) -> list[list[int]]:
        """Prompts whose caches together hold at most `max_cache_tokens`; at least one at a time."""
        parts: list[list[int]] = []
        longest = 0
        for index, own in enumerate(prepared):
            longest = max(longest, len(own.tokens.keys) + limit)
            if not parts or (len(parts[-1]) + 1) * longest > self._max_cache_tokens:
                parts.append([])
                longest = len(own.tokens.keys) + limit
            parts[-1].append(index)
        return parts

    def _generate_part(
        self,
        prompts: Sequence[Prompt],
        prepared: Sequence[PreparedPrompt],
        limit: int,
        temperature: float,
        seed: int,
    ) -> list[Completion]:
        """One completion a prompt, from caches of all tokens but the last."""
        fronts = self._fronts.prefill(self._model, [own.tokens.but_last() for own in prepared])
        input_ids, attention_mask = self._pad([own.tokens.ids for own in prepared])
        deltas = torch.tensor([[own.rope_delta] for own in prepared])
        self._backbone.rope_deltas = deltas.to(self._model.device)
        watch = _Watch()
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        output = self._model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            past_key_values=build_cache(self._model, fronts),
            max_new_tokens=limit,
            logits_processor=LogitsProcessorList([*self._constrain(prompts), watch]),
            pad_token_id=self._processor.tokenizer.pad_token_id,
            **sampling,
        )
        written = output[:, input_ids.shape[1] :]
        logprobs = watch.finish(written)
        answers = [self._until_end(row.tolist()) for row in written]
        texts = self._processor.tokenizer.batch_decode(answers, skip_special_tokens=True)
        verdicts = read_verdicts(prompts, texts, partial(self._probe_verdicts, prepared, fronts))
        completions = []
        for index, (prompt, own) in enumerate(zip(prompts, prepared, strict=True)):
            ids = answers[index]
            completions.append(
                Completion(
                    record_id=prompt.record_id,
                    text=texts[index],
                    num_tokens=len(ids),
                    num_prompt_tokens=len(own.tokens.ids),
                    finish_reason="length" if len(ids) >= limit else "stop",
                    token_logprobs=tuple(logprobs[index][: len(ids)]),
                    p_anomalous=verdicts[index],
                    image_sizes_wh=own.shown_wh,
                    seed=seed,
                )
            )
        return completions

    def _constrain(self, prompts: Sequence[Prompt]) -> list[AnswerGrammar]:
        """The grammar of answers, where the tokenizer has one."""
        if self._answer_tokens is None:
            return []
        return [AnswerGrammar(self._answer_tokens, [prompt.listed for prompt in prompts])]

    def _pad(self, rows: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask (n, longest), padded on the left, on the model's device."""
        longest = max(len(row) for row in rows)
        padding = self._processor.tokenizer.pad_token_id
        ids = torch.full((len(rows), longest), padding)
        mask = torch.zeros_like(ids)
        for place, row in enumerate(rows):
            ids[place, longest - len(row) :] = row
            mask[place, longest - len(row) :] = 1
        return ids.to(self._model.device), mask.to(self._model.device)

    def stream(
        self,
        prompt: Prompt,
        pictures: Sequence[Image.Image],
        *,
        max_new_tokens: int | None = None,
    ) -> Generator[str, None, str]:
        """The greedy text of one prompt, piece by piece; generation runs in a thread of its own.

        Closing the iterator stops the model within a token.
        """
        from transformers import TextIteratorStreamer

        inputs = self._inputs(prompt, pictures)
        limit = max_new_tokens or self.settings.max_new_tokens
        streamer = TextIteratorStreamer(
            self._processor.tokenizer, skip_prompt=True, skip_special_tokens=True
        )
        closed = Event()
        settings = {
            **inputs,
            "max_new_tokens": limit,
            "do_sample": False,
            "streamer": streamer,
            "logits_processor": LogitsProcessorList(self._constrain([prompt])),
            "stopping_criteria": StoppingCriteriaList([_Stopped(closed)]),
            "pad_token_id": self._processor.tokenizer.pad_token_id,
        }
        failures: list[Exception] = []
        lengths: list[int] = []

        def write() -> None:
            try:
                written = self._model.generate(**settings)[0, inputs["input_ids"].shape[1] :]
                lengths.append(len(self._until_end(written.tolist())))
            except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(error)
                streamer.end()

        worker = Thread(target=write, daemon=True)
        worker.start()
        try:
            yield from streamer
        finally:
            closed.set()
            worker.join()
        if failures:
            raise failures[0]
        return "length" if lengths[0] >= limit else "stop"

    def _inputs(self, prompt: Prompt, pictures: Sequence[Image.Image]) -> dict[str, Any]:
        """Model inputs of one prompt."""
        try:
            batch = self._processor(
                text=[render(self._processor, prompt)],
                images=[list(pictures)] if pictures else None,
                return_tensors="pt",
            )
        except ValueError as error:
            raise InputError(
                f"the pictures of {prompt.record_id} do not fit the model: {error}"
            ) from error
        self._check_length(prompt, batch["input_ids"].shape[1])
        return dict(batch.to(self._model.device))

    def _check_length(self, prompt: Prompt, length: int) -> None:
        most = self._model.config.get_text_config().max_position_embeddings
        if length > most:
            raise InputError(
                f"the prompt of {prompt.record_id} has {length} tokens, the model's context "
                f"is {most}: give fewer or smaller references"
            )

    def _until_end(self, ids: list[int]) -> list[int]:
        tokenizer = self._processor.tokenizer
        configured = self._model.generation_config.eos_token_id
        ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
        ends |= set(configured) if isinstance(configured, list) else {configured}
        length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        return ids[:length]

    def _probe_verdicts(
        self,
        prepared: Sequence[PreparedPrompt],
        fronts: Sequence[Layers],
        begun: Mapping[int, Begun],
    ) -> list[dict[Label, float]]:
        """Each verdict's probability behind each prompt of `begun`, see `read_verdicts`. `fronts`
        are the caches of the prompts but their last token."""
        tokenizer = self._processor.tokenizer
        # No template's last token reaches into the answer: it is the line break behind a role.
        tails = [
            torch.cat(
                [
                    prepared[index].tokens.ids[-1:],
                    torch.tensor(tokenizer(probe, add_special_tokens=False)["input_ids"]),
                ]
            )
            for index, (probe, _words) in begun.items()
        ]
        places = [int(prepared[index].tokens.positions[:, -1].max()) for index in begun]
        logits = compute_next(self._model, tails, places, [fronts[index] for index in begun])
        found = []
        for shares, (_probe, words) in zip(logits.float().softmax(-1), begun.values(), strict=True):
            beginnings = _beginnings(tokenizer, tuple(words.items()))
            found.append({word: float(shares[ids].sum()) for word, ids in beginnings.items()})
        return found


class _Stopped:
    """A stopping criterion: nobody listens any more."""

    def __init__(self, closed: Event) -> None:
        self._closed = closed

    def __call__(self, input_ids: Any, scores: Any, **_settings: Any) -> Any:
        return torch.full((len(input_ids),), self._closed.is_set(), device=input_ids.device)


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
def _beginnings(tokenizer: Any, words: tuple[tuple[Label, str], ...]) -> Mapping[Label, list[int]]:
    """The tokens that begin each verdict's words."""
    known = dict(words)
    found: dict[Label, list[int]] = {label: [] for label in known}
    pieces = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
    for token, piece in enumerate(pieces):
        label = name_verdict(piece, known)
        if label is not None:
            found[label].append(token)
    return found
