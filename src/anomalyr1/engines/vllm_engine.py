"""Runs a Qwen-VL checkpoint with vLLM in this process: many prompts at a time, on a GPU.

vllm is imported only when an engine is loaded. The prompt is the text and pictures that the
transformers engine puts; what prompts have in common in front, references above all, stays in
vLLM's prefix cache. The JSON of an inspection's answer is guided: the model reasons freely up to
<answer>, and writes what follows under a grammar. Tested against a stand-in that records calls;
not run on a GPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from PIL import Image

from anomalyr1.checkpoint import CheckpointSettings, Layout, find_layout, load_processor, shown_size
from anomalyr1.engines.prompt_tokens import render
from anomalyr1.engines.verdicts import Begun, name_verdict, read_verdicts
from anomalyr1.prompts import INSPECTION_TEMPLATE_ID
from anomalyr1.types import BoxFrame, Completion, InputError, Label, Prompt

PREFIX = "vllm:"
MOST_PICTURES = 16
"""Pictures a prompt may hold: references, the picture and its map."""

PROBED_TOKENS = 20
"""So many of the likeliest next tokens are looked at for the verdict; vLLM's own limit."""

ANSWER_START, ANSWER_END = "<answer>", "</answer>"
ANSWER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "verdict": {"enum": ["normal", "anomalous"]},
        "defects": {
            "type": "array",
            "maxItems": 12,
            "items": {
                "type": "object",
                "properties": {
                    "bbox_2d": {
                        "type": "array",
                        "items": {"type": "integer", "minimum": 0},
                        "minItems": 4,
                        "maxItems": 4,
                    },
                    "label": {"type": "string", "maxLength": 80},
                    "description": {"type": "string", "maxLength": 400},
                },
                "required": ["bbox_2d", "label", "description"],
                "additionalProperties": False,
            },
        },
    },
    "required": ["verdict", "defects"],
    "additionalProperties": False,
}
"""The answer that `prompts.INSPECTION` asks for, in `prompts.render_inspection_answer`'s order."""


@dataclass(frozen=True, slots=True)
class _Written:
    """What vLLM wrote behind a text: tokens without the end of turn, and why it stopped."""

    text: str
    num_tokens: int
    logprobs: tuple[float, ...]
    is_cut: bool
    is_stopped: bool
    num_prompt_tokens: int


class VllmEngine:
    """A checkpoint in vLLM, an adapter on its base model. Not safe for several threads."""

    def __init__(self, llm: Any, processor: Any, layout: Layout, name: str, lora: Any) -> None:
        self._llm = llm
        self._processor = processor
        self._lora = lora
        self.engine_id = f"{PREFIX}{name}"
        self.frame: BoxFrame = layout.frame
        self.settings: CheckpointSettings = layout.settings

    @classmethod
    def load(cls, source: str) -> VllmEngine:
        """Load "nano", a folder (a LoRA adapter too) or a hub id. Raises InputError where vLLM is
        missing or cannot load it, and as `find_layout` does."""
        layout = find_layout(source)
        try:
            import vllm
            from vllm.lora.request import LoRARequest
        except ImportError as error:
            raise InputError(
                "--engine vllm needs vLLM and a GPU: pip install vllm, or leave --engine out"
            ) from error
        options: dict[str, Any] = {
            "model": layout.model,
            "enable_prefix_caching": True,
            "limit_mm_per_prompt": {"image": MOST_PICTURES, "video": 0},
            "seed": 0,
        }
        lora = None
        if layout.adapter is not None:
            config = json.loads((layout.adapter / "adapter_config.json").read_text())
            options |= {"enable_lora": True, "max_lora_rank": _choose_rank(config.get("r"))}
            lora = LoRARequest("adapter", 1, str(layout.adapter))
        try:
            llm = vllm.LLM(**options)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"vLLM cannot load {source}: {error}") from error
        processor = load_processor(str(layout.adapter or layout.model), layout.model)
        return cls(llm, processor, layout, source, lora)

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
        """One completion a prompt, with token log-probabilities. Raises InputError where vLLM
        refuses a prompt."""
        if not prompts:
            return []
        limit = max_new_tokens or self.settings.max_new_tokens
        texts = [render(self._processor, prompt) for prompt in prompts]
        common = {"temperature": temperature, "seed": seed}
        stops = [
            {"stop": [ANSWER_START]} if prompt.template_id == INSPECTION_TEMPLATE_ID else {}
            for prompt in prompts
        ]
        first = self._write(texts, pictures, [{"max_tokens": limit, **common, **s} for s in stops])
        begun = [index for index, written in enumerate(first) if written.is_stopped]
        written = list(first)
        answers = self._write_answers(texts, pictures, begun, first, limit, common)
        for index, answer in zip(begun, answers, strict=True):
            written[index] = answer
        said = [one.text for one in written]
        verdicts = read_verdicts(prompts, said, partial(self._probe_verdicts, texts, pictures))
        return [
            Completion(
                record_id=prompt.record_id,
                text=written[index].text,
                num_tokens=written[index].num_tokens,
                finish_reason="length" if written[index].is_cut else "stop",
                token_logprobs=written[index].logprobs,
                p_anomalous=verdicts[index],
                image_sizes_wh=tuple(self.shown_size(picture.size) for picture in pictures[index]),
                seed=seed,
                num_prompt_tokens=written[index].num_prompt_tokens,
            )
            for index, prompt in enumerate(prompts)
        ]

    def stream(
        self,
        prompt: Prompt,
        pictures: Sequence[Image.Image],
        *,
        max_new_tokens: int | None = None,
    ) -> Generator[str, None, str]:
        """The whole greedy text as one piece: vLLM's offline class does not stream."""
        whole = self.generate([prompt], [pictures], max_new_tokens=max_new_tokens)[0]
        yield whole.text
        return whole.finish_reason

    def _write_answers(
        self,
        texts: Sequence[str],
        pictures: Sequence[Sequence[Image.Image]],
        begun: Sequence[int],
        first: Sequence[_Written],
        limit: int,
        common: dict[str, Any],
    ) -> list[_Written]:
        """The texts of `begun` with their answers, in JSON by the schema."""
        if not begun:
            return []
        from vllm.sampling_params import StructuredOutputsParams

        answers = self._write(
            [texts[index] + first[index].text + ANSWER_START for index in begun],
            [pictures[index] for index in begun],
            [
                {
                    "max_tokens": max(1, limit - first[index].num_tokens),
                    "structured_outputs": StructuredOutputsParams(json=ANSWER_SCHEMA),
                    **common,
                }
                for index in begun
            ],
        )
        return [
            replace(
                answer,
                text=first[index].text
                + ANSWER_START
                + answer.text
                + ("" if answer.is_cut else ANSWER_END),
                num_tokens=first[index].num_tokens + answer.num_tokens,
                logprobs=first[index].logprobs + answer.logprobs,
                num_prompt_tokens=first[index].num_prompt_tokens,
            )
            for index, answer in zip(begun, answers, strict=True)
        ]

    def _write(
        self,
        texts: Sequence[str],
        pictures: Sequence[Sequence[Image.Image]],
        settings: Sequence[dict[str, Any]],
    ) -> list[_Written]:
        outputs = self._ask(texts, pictures, [{"logprobs": 0, **one} for one in settings])
        return [_read(output) for output in outputs]

    def _ask(
        self,
        texts: Sequence[str],
        pictures: Sequence[Sequence[Image.Image]],
        settings: Sequence[dict[str, Any]],
    ) -> list[Any]:
        from vllm import SamplingParams

        requests = [
            {"prompt": text, "multi_modal_data": {"image": list(shown)}}
            if shown
            else {"prompt": text}
            for text, shown in zip(texts, pictures, strict=True)
        ]
        try:
            outputs: list[Any] = self._llm.generate(
                requests,
                sampling_params=[SamplingParams(**one) for one in settings],
                lora_request=self._lora,
                use_tqdm=False,
            )
        except ValueError as error:
            raise InputError(f"vLLM refuses a prompt: {error}") from error
        return outputs

    def _probe_verdicts(
        self,
        texts: Sequence[str],
        pictures: Sequence[Sequence[Image.Image]],
        begun: Mapping[int, Begun],
    ) -> list[dict[Label, float]]:
        """Each verdict's probability behind each text of `begun`, see `read_verdicts`, from the
        likeliest tokens."""
        outputs = self._ask(
            [texts[index] + probe for index, (probe, _words) in begun.items()],
            [pictures[index] for index in begun],
            [{"max_tokens": 1, "temperature": 0.0, "logprobs": PROBED_TOKENS} for _ in begun],
        )
        return [
            _read_shares(output.outputs[0].logprobs, words)
            for output, (_probe, words) in zip(outputs, begun.values(), strict=True)
        ]


def _read(output: Any) -> _Written:
    """The first sample of a vLLM RequestOutput."""
    sample = output.outputs[0]
    is_stopped = sample.stop_reason == ANSWER_START
    ids = list(sample.token_ids)
    # A turn that ends by itself has its end token among the ids, but not in the text.
    ends = sample.finish_reason == "stop" and not is_stopped
    kept = ids[:-1] if ends and ids else ids
    logprobs = tuple(
        float(choices[token].logprob)
        for token, choices in zip(kept, sample.logprobs or (), strict=False)
    )
    return _Written(
        sample.text,
        len(kept),
        logprobs,
        sample.finish_reason == "length",
        is_stopped,
        len(output.prompt_token_ids or ()),
    )


def _read_shares(logprobs: Any, words: Mapping[Label, str]) -> dict[Label, float]:
    shares: dict[Label, float] = dict.fromkeys(words, 0.0)
    for choice in (logprobs[0] if logprobs else {}).values():
        label = name_verdict(choice.decoded_token or "", words)
        if label is not None:
            shares[label] += math.exp(choice.logprob)
    return shares


def _choose_rank(rank: object) -> int:
    """The smallest of the ranks that vLLM has room for (vllm/config/lora.py) that holds `rank`."""
    if not isinstance(rank, int):
        raise InputError(f"adapter_config.json has r = {rank!r}, a whole number is expected")
    for room in (8, 16, 32, 64, 128, 256, 320, 512):
        if rank <= room:
            return room
    raise InputError(f"the adapter has rank {rank}, vLLM takes at most 512: merge it (export)")
