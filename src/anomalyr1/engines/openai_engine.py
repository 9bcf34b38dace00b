"""Models of others behind an OpenAI-compatible endpoint: vLLM, SGLang, hosted ones.

Requests run side by side, a bounded number at a time. Busy and broken servers (429, 5xx) are asked
again with growing pauses; nothing else is. A refusal and an error are completions that say so.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from PIL import Image

from anomalyr1.checkpoint import CheckpointSettings
from anomalyr1.engines.chat_messages import build_messages
from anomalyr1.types import BoxFrame, Completion, InputError, Prompt, RefusedError

PREFIX = "openai:"
KEY_VARIABLE = "OPENAI_API_KEY"
PATCH = 28
"""Sides of pictures are multiples of it: Qwen2.5-VL's servers then show them as they are sent, and
its boxes are in pixels of what was sent."""

FATAL = {
    401: "the key is refused: set OPENAI_API_KEY",
    403: "the key may not use it: set another OPENAI_API_KEY",
    404: "the server knows no such model or path: check the URL (it usually ends in /v1) and NAME",
}


@dataclass(frozen=True, slots=True)
class OpenAISettings:
    """How to ask. `retries` are further tries after a 429 or 5xx, the pause before the first one
    `pause_s`, doubled each time up to `longest_pause_s`; a server's Retry-After counts if longer.
    Prices are per million tokens, read and written, for the cost. `logprobs` asks for those of the
    tokens written; some hosted models refuse that."""

    concurrency: int = 8
    timeout_s: float = 120.0
    retries: int = 5
    pause_s: float = 1.0
    longest_pause_s: float = 60.0
    prices: tuple[float, float] | None = None
    logprobs: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What was asked of a server so far; `cost` in the prices' currency, None without prices."""

    num_requests: int
    num_retries: int
    num_prompt_tokens: int
    num_tokens: int
    cost: float | None


def split_name(model: str) -> tuple[str, str]:
    """URL and name of an `openai:URL#NAME`. Raises InputError for anything else.

    >>> split_name("openai:http://localhost:8000/v1#Qwen/Qwen2.5-VL-7B-Instruct")
    ('http://localhost:8000/v1', 'Qwen/Qwen2.5-VL-7B-Instruct')
    """
    url, mark, name = model.removeprefix(PREFIX).partition("#")
    if not mark or not name or not url.startswith(("http://", "https://")):
        raise InputError(
            f"--model is {model!r}; an endpoint is openai:URL#NAME, for example "
            "openai:http://localhost:8000/v1#Qwen/Qwen2.5-VL-7B-Instruct"
        )
    return url, name


def compute_cost(num_prompt_tokens: int, num_tokens: int, prices: tuple[float, float]) -> float:
    """What tokens read and written cost, `prices` being for a million of each.

    >>> compute_cost(2_000_000, 500_000, (1.0, 4.0))
    4.0
    """
    return (num_prompt_tokens * prices[0] + num_tokens * prices[1]) / 1e6


class OpenAIEngine:
    """An endpoint and a model's name. `sleep` is replaced in tests.

    Boxes are read in pixels of the picture as sent, or in thousandths for a model whose name says
    Qwen3. The key is read from OPENAI_API_KEY, and is in no file that a run leaves.
    """

    def __init__(
        self,
        url: str,
        name: str,
        *,
        settings: OpenAISettings | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            import openai
        except ImportError as error:
            raise InputError(
                "models behind an endpoint need the openai client: pip install 'anomalyr1[openai]'"
            ) from error
        self._asking = settings or OpenAISettings()
        self._client = openai.OpenAI(
            base_url=url,
            api_key=os.environ.get(KEY_VARIABLE) or "none",
            timeout=self._asking.timeout_s,
            max_retries=0,
        )
        self._pool = ThreadPoolExecutor(self._asking.concurrency)
        self._name = name
        self._sleep = sleep
        self._chance = Random(0)
        self._lock = threading.Lock()
        self._counts = [0, 0, 0, 0]
        self.engine_id = f"{PREFIX}{url}#{name}"
        self.frame: BoxFrame = "relative_1000" if "qwen3" in name.lower() else "absolute"
        self.settings = CheckpointSettings(max_new_tokens=1024)

    @property
    def usage(self) -> Usage:
        """Requests, retries and tokens since the engine was made."""
        requests, retries, read, written = self._counts
        prices = self._asking.prices
        cost = None if prices is None else compute_cost(read, written, prices)
        return Usage(requests, retries, read, written, cost)

    def shown_size(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        """Each side at the nearest multiple of 28 pixels, at least 56."""
        width, height = (max(2 * PATCH, round(side / PATCH) * PATCH) for side in size_wh)
        return width, height

    def generate(
        self,
        prompts: Sequence[Prompt],
        pictures: Sequence[Sequence[Image.Image]],
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Completion]:
        """One completion a prompt, in order, each as soon as it and those before it are there: a
        slow one holds up none of the other requests, in this call or a later one.

        The iterator raises RefusedError where every request would fail: a key that is refused, a
        model or path that is not there. What is not sent when it is dropped never is.
        """
        options: dict[str, Any] = {
            "max_tokens": max_new_tokens or self.settings.max_new_tokens,
            "temperature": temperature,
            "seed": seed,
        }
        if self._asking.logprobs:
            options["logprobs"] = True
        return _Completions(
            self._pool.submit(self._complete, prompt, shown, options)
            for prompt, shown in zip(prompts, pictures, strict=True)
        )

    def stream(
        self,
        prompt: Prompt,
        pictures: Sequence[Image.Image],
        *,
        max_new_tokens: int | None = None,
    ) -> Generator[str, None, str]:
        """The greedy text, piece by piece as the server sends it; closing hangs up.

        Raises InputError where the server fails, before or while it writes.
        """
        import openai

        shown = [picture.resize(self.shown_size(picture.size)) for picture in pictures]
        request = {
            "model": self._name,
            "messages": build_messages(prompt, shown),
            "max_tokens": max_new_tokens or self.settings.max_new_tokens,
            "temperature": 0.0,
            "stream": True,
        }
        reason = "stop"
        try:
            with self._ask(request) as answer:
                for chunk in answer:
                    for choice in getattr(chunk, "choices", None) or ():
                        if getattr(choice, "finish_reason", None) == "length":
                            reason = "length"
                        piece = getattr(getattr(choice, "delta", None), "content", None)
                        if isinstance(piece, str) and piece:
                            yield piece
        except (_Failed, openai.OpenAIError, ValueError) as error:
            raise InputError(f"{self.engine_id}: {_shorten(str(error))}") from error
        return reason

    def _complete(
        self, prompt: Prompt, pictures: Sequence[Image.Image], options: dict[str, Any]
    ) -> Completion:
        shown = [picture.resize(self.shown_size(picture.size)) for picture in pictures]
        sizes = tuple(picture.size for picture in shown)
        request = {"model": self._name, "messages": build_messages(prompt, shown), **options}
        try:
            answer = self._ask(request)
        except _Failed as error:
            return Completion(
                prompt.record_id, "", finish_reason="error", problem=str(error),
                image_sizes_wh=sizes, seed=options["seed"],
            )  # fmt: skip
        return self._read(prompt, answer, sizes, options["seed"])

    def _ask(self, request: dict[str, Any]) -> Any:
        import openai

        for attempt in range(self._asking.retries + 1):
            with self._lock:
                self._counts[0] += 1
            try:
                return self._client.chat.completions.create(**request)
            except openai.APIStatusError as error:
                status = error.status_code
                said = _shorten(error.message.removeprefix(f"Error code: {status} - "))
                if status in FATAL:
                    raise RefusedError(f"{self.engine_id}: {FATAL[status]} ({said})") from error
                if (status != 429 and status < 500) or attempt == self._asking.retries:
                    tries = f", tried {attempt + 1} times" if attempt else ""
                    raise _Failed(f"HTTP {status}{tries}: {said}") from error
                with self._lock:
                    self._counts[1] += 1
                self._sleep(self._choose_pause(attempt, error.response.headers))
            except openai.APITimeoutError as error:
                raise _Failed(f"no answer within {self._asking.timeout_s:g} s") from error
            except openai.APIConnectionError as error:
                where = self._client.base_url
                raise _Failed(f"{where} cannot be reached: is the server running?") from error
            except (openai.OpenAIError, ValueError) as error:
                raise _Failed(f"{type(error).__name__}: {_shorten(str(error))}") from error
        raise AssertionError("the last attempt returns or raises")

    def _choose_pause(self, attempt: int, headers: Any) -> float:
        pause: float = min(self._asking.pause_s * 2.0**attempt, self._asking.longest_pause_s)
        with self._lock:
            pause *= 0.5 + self._chance.random() / 2  # so that requests do not come back together
        try:
            wanted: float = float(headers.get("retry-after", ""))
        except ValueError:
            wanted = 0.0
        return max(pause, min(wanted, self._asking.longest_pause_s) if wanted > 0 else 0.0)

    def _read(
        self, prompt: Prompt, answer: Any, sizes: tuple[tuple[int, int], ...], seed: int
    ) -> Completion:
        """Whatever a server may leave out or call otherwise is read as nothing, never raised."""
        usage = getattr(answer, "usage", None)
        read, written = (
            count if isinstance(count := getattr(usage, name, 0), int) else 0
            for name in ("prompt_tokens", "completion_tokens")
        )
        with self._lock:
            self._counts[2] += read
            self._counts[3] += written
        made = Completion(
            prompt.record_id,
            "",
            written,
            image_sizes_wh=_read_sizes(answer, len(sizes)) or sizes,
            seed=seed,
            num_prompt_tokens=read,
        )
        choices: Any = getattr(answer, "choices", None)
        message = getattr(choices[0], "message", None) if choices else None
        if message is None:
            return replace(made, finish_reason="error", problem="the server sent no choice")
        content = getattr(message, "content", None)
        text = content if isinstance(content, str) else ""
        refusal = getattr(message, "refusal", None)
        if isinstance(refusal, str) and refusal:
            return replace(made, text=text or refusal, finish_reason="refusal", problem=refusal)
        reason = getattr(choices[0], "finish_reason", None)
        if reason == "content_filter":
            said = "stopped by the server's content filter"
            return replace(made, text=text, finish_reason="refusal", problem=said)
        thought = getattr(message, "reasoning_content", None)
        if isinstance(thought, str) and thought and "<think>" not in text:
            text = f"<think>{thought}</think>{text}"
        return replace(
            made,
            text=text,
            finish_reason="length" if reason == "length" else "stop",
            token_logprobs=_read_logprobs(choices[0]),
        )


class _Completions(Iterator[Completion]):
    """Those of requests, in their order. Dropped, it takes back the requests not sent yet."""

    def __init__(self, requests: Iterable[Future[Completion]]) -> None:
        self._requests = deque(requests)

    def __next__(self) -> Completion:
        if not self._requests:
            raise StopIteration
        return self._requests.popleft().result()

    def __del__(self) -> None:
        for request in self._requests:
            request.cancel()


class _Failed(Exception):
    """Why one request has no answer; never leaves this module."""


def _read_sizes(answer: Any, count: int) -> tuple[tuple[int, int], ...] | None:
    """The sizes at which the model saw the pictures, where the server tells them: this package's
    does, under "anomalyr1", since nano sees less than it is sent."""
    told = (getattr(answer, "model_extra", None) or {}).get("anomalyr1")
    sizes = told.get("image_sizes_wh") if isinstance(told, dict) else None
    if not isinstance(sizes, list) or len(sizes) != count:
        return None
    whole = [
        tuple(size)
        for size in sizes
        if isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and side > 0 for side in size)
    ]
    return tuple(whole) if len(whole) == count else None


def _read_logprobs(choice: Any) -> tuple[float, ...]:
    tokens: Any = getattr(getattr(choice, "logprobs", None), "content", None)
    if not isinstance(tokens, list):
        return ()
    found = [getattr(token, "logprob", None) for token in tokens]
    known = [value for value in found if isinstance(value, float)]
    return tuple(known) if len(known) == len(found) else ()


def _shorten(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:297]}..."
