"""Models behind an endpoint: what is sent to them, and how what they say is read."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from builders import NORMAL
from endpoints import Reply, Serve, ask, make_engine, say
from PIL import Image

from anomalyr1.engines.chat_messages import encode_picture
from anomalyr1.engines.openai_engine import split_name
from anomalyr1.types import InputError


def test_the_prompt_travels_in_the_format_of_the_official_client(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    endpoint = serve(lambda number, request: say(NORMAL))
    (made,) = ask(make_engine(endpoint, prices=(10.0, 100.0)))
    assert (made.text, made.num_tokens, made.num_prompt_tokens) == (NORMAL, 7, 100)
    (request,) = endpoint.requests
    assert (request["path"], request["model"], request["temperature"]) == (
        "/v1/chat/completions",
        "m",
        0.0,
    )
    assert request["key"] == "Bearer secret"
    system, user = request["messages"]
    assert system == {"role": "system", "content": "You inspect products for defects."}
    assert [part["type"] for part in user["content"]] == [
        "text", "image_url", "text", "image_url", "text",
    ]  # fmt: skip
    url = user["content"][1]["image_url"]["url"]
    head, _, data = url.partition(",")
    assert head == "data:image/png;base64"
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == made.image_sizes_wh[0] == (56, 56)


def test_a_small_picture_travels_without_loss_and_a_large_one_as_jpeg() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 513, 3)).astype(np.uint8)
    for picture, kind in ((noise[:, :512], "PNG"), (noise, "JPEG")):
        uri = encode_picture(Image.fromarray(picture))
        sent = Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
        assert (sent.format, sent.size) == (kind, picture.shape[1::-1])
        assert np.array_equal(np.asarray(sent), picture) == (kind == "PNG")


def test_sizes_and_log_probabilities_that_make_no_sense_are_left_out(
    serve: Serve,
) -> None:
    odd: list[Any] = [None, 3, {}, {"image_sizes_wh": [[56, 56]]}, {"image_sizes_wh": [[0, 1], 2]}]

    def script(number: int, request: object) -> Reply:
        status, body, headers = say(NORMAL, anomalyr1=odd[number])
        assert isinstance(body, dict)
        body["choices"][0]["logprobs"] = [None, 3, {"content": None}, {"content": [{}]}, []][number]
        return status, body, headers

    endpoint = serve(script)
    for made in ask(make_engine(endpoint, concurrency=1, logprobs=True), len(odd)):
        assert (made.text, made.token_logprobs) == (NORMAL, ())
        assert made.image_sizes_wh == ((56, 56), (56, 56))
    assert all(request["logprobs"] for request in endpoint.requests)


def test_cost_and_tokens_are_counted(serve: Serve) -> None:
    engine = make_engine(serve(lambda number, request: say(NORMAL)), prices=(10.0, 100.0))
    ask(engine, 3)
    usage = engine.usage
    assert (usage.num_requests, usage.num_prompt_tokens, usage.num_tokens) == (3, 300, 21)
    assert usage.cost == pytest.approx((300 * 10 + 21 * 100) / 1e6)


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        (say(None, message={"refusal": "I will not."}), "I will not.", "refusal"),
        (say("", finish="content_filter"), "", "refusal"),
        (say("<think>lon", finish="length"), "<think>lon", "length"),
        (say(None), "", "stop"),
        (say("<answer>A</answer>", message={"reasoning_content": "I see."}),
         "<think>I see.</think><answer>A</answer>", "stop"),
    ],
)  # fmt: skip
def test_refusals_and_cut_answers_are_told_apart(
    reply: Reply, text: str, reason: str, serve: Serve
) -> None:
    (made,) = ask(make_engine(serve(lambda number, request: reply)))
    assert (made.text, made.finish_reason) == (text, reason)


def test_a_name_that_is_no_endpoint_is_refused() -> None:
    assert split_name("openai:http://h:1/v1#a/b#c") == ("http://h:1/v1", "a/b#c")
    for wrong in ("openai:", "openai:http://h/v1", "openai:#m", "openai:ftp://h#m"):
        with pytest.raises(InputError, match="openai:URL#NAME"):
            split_name(wrong)
