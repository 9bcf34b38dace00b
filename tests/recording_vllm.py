"""A stand-in for vllm that records what it is asked, in the shape of its offline API.

LLM, SamplingParams, StructuredOutputsParams, LoRARequest, RequestOutput, CompletionOutput and
Logprob as vLLM's documentation gives them (docs.vllm.ai: api/vllm/entrypoints/llm,
sampling_params, outputs; features/structured_outputs and lora). A word is a token.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

END = -1
"""The token that ends a turn: among the ids, not in the text."""


@dataclass
class StructuredOutputsParams:
    json: Any = None


@dataclass
class SamplingParams:
    temperature: float = 1.0
    seed: int | None = None
    max_tokens: int = 16
    stop: list[str] = field(default_factory=list)
    logprobs: int | None = None
    structured_outputs: StructuredOutputsParams | None = None


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


@dataclass
class Logprob:
    logprob: float
    rank: int
    decoded_token: str


@dataclass
class CompletionOutput:
    text: str
    token_ids: list[int]
    logprobs: list[dict[int, Logprob]]
    finish_reason: str
    stop_reason: str | None


@dataclass
class RequestOutput:
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]


@dataclass
class Request:
    prompt: str
    pictures: list[Any]
    sampling: SamplingParams
    lora: LoRARequest | None


@dataclass
class Recorder:
    """`say(prompt)` is the whole text behind a prompt; `shares` are P(first token) by its text."""

    say: Callable[[str], str]
    shares: dict[str, float] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)


def install(monkeypatch: Any, recorder: Recorder) -> None:
    """Let `import vllm` find the stand-in."""

    class LLM:
        def __init__(self, **options: Any) -> None:
            recorder.options.update(options)

        def generate(
            self,
            prompts: list[dict[str, Any]],
            *,
            sampling_params: list[SamplingParams],
            lora_request: LoRARequest | None = None,
            use_tqdm: bool = True,
        ) -> list[RequestOutput]:
            outputs = []
            for prompt, sampling in zip(prompts, sampling_params, strict=True):
                if len(prompt["prompt"]) > 50_000:
                    raise ValueError("The decoder prompt is longer than the maximum model length")
                pictures = prompt.get("multi_modal_data", {}).get("image", [])
                recorder.requests.append(
                    Request(prompt["prompt"], pictures, sampling, lora_request)
                )
                outputs.append(write(recorder, prompt["prompt"], sampling))
            return outputs

    vllm, parameters = ModuleType("vllm"), ModuleType("vllm.sampling_params")
    lora, request = ModuleType("vllm.lora"), ModuleType("vllm.lora.request")
    for module, names in (
        (vllm, {"LLM": LLM, "SamplingParams": SamplingParams}),
        (parameters, {"StructuredOutputsParams": StructuredOutputsParams}),
        (request, {"LoRARequest": LoRARequest}),
    ):
        for name, value in names.items():
            setattr(module, name, value)
    for module in (vllm, parameters, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def write(recorder: Recorder, prompt: str, sampling: SamplingParams) -> RequestOutput:
    text, stopped = recorder.say(prompt), None
    for stop in sampling.stop:
        if stop in text:
            text, stopped = text[: text.index(stop)], stop
    words = text.split(" ")
    kept = words[: sampling.max_tokens]
    is_cut = len(kept) < len(words)
    if is_cut:
        stopped = None
    ids = list(range(len(kept)))
    logprobs = [{place: Logprob(-0.5 - place, 1, word)} for place, word in enumerate(kept)]
    if sampling.logprobs and recorder.shares:
        logprobs[0] = {
            100 + rank: Logprob(math.log(share), rank + 1, piece)
            for rank, (piece, share) in enumerate(recorder.shares.items())
        }
    if not is_cut and stopped is None:
        ids.append(END)
        logprobs.append({END: Logprob(0.0, 1, "")})
    reason = "length" if is_cut else "stop"
    output = CompletionOutput(" ".join(kept), ids, logprobs, reason, stopped)
    return RequestOutput(list(range(len(prompt.split()))), [output])
