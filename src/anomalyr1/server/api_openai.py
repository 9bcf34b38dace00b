"""The model behind OpenAI's protocol: /v1/models and /v1/chat/completions, texts and pictures."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
import threading
import time
import uuid
from collections.abc import AsyncIterator, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response, StreamingResponse
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from anomalyr1.inspector import Inspector
from anomalyr1.prompts import read_listed
from anomalyr1.reporting.page import clean
from anomalyr1.server import examples
from anomalyr1.server.pictures import decode_upload
from anomalyr1.server.station import RETRY_SECONDS, Here
from anomalyr1.types import Completion, InputError, Message, Prompt

router = APIRouter(prefix="/v1", tags=["openai"])
MOST_CHAT_PICTURES = 16
MOST_CHAT_PIXELS = 100_000_000
"""Of all pictures of a request: they are in memory together, three bytes a pixel."""

_CONTROL_TOKEN = re.compile(r"<\|[^|<>]*\|>")
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,20};base64,", re.IGNORECASE)


class ImageUrl(BaseModel):
    url: Annotated[str, Field(max_length=70_000_000)]


class Part(BaseModel):
    type: Literal["text", "image_url"]
    text: Annotated[str, Field(max_length=100_000)] = ""
    image_url: ImageUrl | None = None


class ChatMessage(BaseModel):
    role: Literal["system", "user", "assistant"]
    content: Annotated[str, Field(max_length=100_000)] | Annotated[list[Part], Field(max_length=64)]


class Chat(BaseModel):
    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"model": "nano", "messages": [{"role": "user", "content": "What do you inspect?"}]}
            ]
        }
    )
    model: str = ""
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=64)]
    max_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=4096)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    n: Annotated[int, Field(ge=1, le=1)] = 1
    stream: bool = False
    logprobs: bool = False


@router.get("/models", responses=examples.answers(examples.MODELS))
def list_models(station: Here) -> dict[str, Any]:
    """The one model that is loaded."""
    model = {"id": station.worker.model, "object": "model", "created": 0, "owned_by": "anomalyr1"}
    return {"object": "list", "data": [model]}


@router.post(
    "/chat/completions",
    response_model=None,
    responses=examples.answers(examples.COMPLETION),
)
async def complete(station: Here, chat: Chat) -> Response:
    """One completion, whole or streamed. Pictures come as data: URLs; no other is fetched."""
    if chat.model and chat.model != station.worker.model:
        reason = f"the model {chat.model[:80]!r} is not here: {station.worker.model!r} is"
        return _refuse(404, reason, "model_not_found")
    try:
        prompt, pictures = await asyncio.to_thread(_read_chat, chat)
    except InputError as error:
        return _refuse(400, str(error), "invalid_request")
    limit = chat.max_completion_tokens or chat.max_tokens
    head = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "created": int(time.time()),
        "model": station.worker.model,
    }
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[str | None] = asyncio.Queue()
    hung_up = threading.Event()

    def write(inspector: Inspector) -> Completion:
        if chat.stream and chat.temperature == 0:
            stream = inspector.engine.stream(prompt, pictures, max_new_tokens=limit)
            with closing(stream) as written:
                return _pass_on(written, pieces, loop, hung_up)
        (done,) = inspector.engine.generate(
            [prompt],
            [pictures],
            max_new_tokens=limit,
            temperature=chat.temperature,
            seed=chat.seed,
        )
        if chat.stream:
            loop.call_soon_threadsafe(pieces.put_nowait, done.text)
        return done

    future = station.worker.call(write)
    if future is None:
        station.metrics.refused.inc()
        return _refuse(429, "the queue is full", "rate_limit_exceeded")
    if chat.stream:
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(pieces.put_nowait, None))
        written = _stream(head, pieces, future, hung_up)
        return StreamingResponse(written, media_type="text/event-stream")
    try:
        done = await asyncio.wrap_future(future)
    except InputError as error:
        return _refuse(400, str(error), "invalid_request")
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": clean(done.text)},
        "finish_reason": done.finish_reason,
        "logprobs": _tell_logprobs(done) if chat.logprobs else None,
    }
    # Tokens of the prompt are not counted by the engine, so only those written are told.
    return JSONResponse(
        {
            **head,
            "object": "chat.completion",
            "choices": [choice],
            "usage": {
                "completion_tokens": done.num_tokens,
                "prompt_tokens": 0,
                "total_tokens": done.num_tokens,
            },
            # Boxes are in pixels of the pictures as the model saw them, not as they were sent.
            "anomalyr1": {"image_sizes_wh": [list(size) for size in done.image_sizes_wh]},
        }
    )


def _pass_on(
    written: Generator[str, None, str],
    pieces: asyncio.Queue[str | None],
    loop: asyncio.AbstractEventLoop,
    hung_up: threading.Event,
) -> Completion:
    """Hand pieces over until the text ends or the client has hung up; returns how it ended."""
    while not hung_up.is_set():
        try:
            loop.call_soon_threadsafe(pieces.put_nowait, next(written))
        except StopIteration as end:
            return Completion("chat", "", finish_reason=end.value)
    return Completion("chat", "")


def _tell_logprobs(done: Completion) -> dict[str, Any]:
    """Log-probabilities in the protocol's shape; the tokens' texts are not known here."""
    tokens: list[dict[str, Any]] = [
        {"token": "", "logprob": value, "bytes": None, "top_logprobs": []}
        for value in done.token_logprobs
    ]
    return {"content": tokens, "refusal": None}


async def _stream(
    head: dict[str, Any],
    pieces: asyncio.Queue[str | None],
    future: Future[Completion],
    hung_up: threading.Event,
) -> AsyncIterator[str]:
    def chunk(delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        body = {**head, "object": "chat.completion.chunk", "choices": [choice]}
        return f"data: {json.dumps(body)}\n\n"

    try:
        yield chunk({"role": "assistant", "content": ""})
        while (piece := await pieces.get()) is not None:
            yield chunk({"content": piece})
        error = future.exception()
        if error is not None:
            reason = str(error) if isinstance(error, InputError) else "internal error"
            yield f"data: {json.dumps({'error': {'message': reason, 'type': 'server_error'}})}\n\n"
            return
        yield chunk({}, future.result().finish_reason)
        yield "data: [DONE]\n\n"
    finally:
        hung_up.set()


def _read_chat(chat: Chat) -> tuple[Prompt, list[Image.Image]]:
    pictures: list[Image.Image] = []
    messages = []
    for message in chat.messages:
        parts = tuple(_read_parts(message.content, pictures))
        messages.append(Message(message.role, parts))
    texts = [part for message in messages for part in message.parts if isinstance(part, str)]
    listed = read_listed(texts[-1] if texts else "")
    return Prompt("chat", "chat", tuple(messages), listed), pictures


def _read_parts(content: str | list[Part], pictures: list[Image.Image]) -> Iterator[str | int]:
    for part in [Part(type="text", text=content)] if isinstance(content, str) else content:
        if part.type == "text":
            if found := _CONTROL_TOKEN.search(part.text):
                raise InputError(f"a text holds {found.group()!r}, a control token: remove it")
            yield part.text
            continue
        if len(pictures) == MOST_CHAT_PICTURES:
            raise InputError(f"at most {MOST_CHAT_PICTURES} pictures a request")
        url = "" if part.image_url is None else part.image_url.url
        prefix = _DATA_URL.match(url)
        if prefix is None:
            raise InputError("pictures are taken as data:image/...;base64, URLs only")
        try:
            payload = base64.b64decode(url[prefix.end() :], validate=True)
        except (binascii.Error, ValueError) as error:
            raise InputError(f"a picture's base64 cannot be read: {error}") from error
        pictures.append(decode_upload(payload, f"picture {len(pictures) + 1}"))
        if sum(picture.width * picture.height for picture in pictures) > MOST_CHAT_PIXELS:
            raise InputError(
                f"the pictures of a request have at most {MOST_CHAT_PIXELS:,} pixels together: "
                "scale them down, or send fewer"
            )
        yield len(pictures) - 1


def _refuse(status: int, message: str, code: str) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 429 else None
    error = {"message": clean(message), "type": "invalid_request_error", "code": code}
    return JSONResponse({"error": error}, status, headers)
