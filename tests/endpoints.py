"""Endpoints for tests: the official client against a real server on loopback, with faults. The
fixture, `serve`, is in conftest."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from builders import make_record
from PIL import Image

from anomalyr1.engines.openai_engine import OpenAIEngine, OpenAISettings
from anomalyr1.prompts import build_inspection_prompt
from anomalyr1.types import Completion

Reply = tuple[int, dict[str, Any] | bytes, dict[str, str]]
"""Status, body and further headers."""

Script = Callable[[int, dict[str, Any]], Reply]
"""From the number of the request, and the request, to its reply."""


def say(text: str | None, **fields: Any) -> Reply:
    message = {"role": "assistant", "content": text, **fields.pop("message", {})}
    choice = {"index": 0, "message": message, "finish_reason": fields.pop("finish", "stop")}
    body = {
        "id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}, **fields,
    }  # fmt: skip
    return 200, body, {}


def fail(status: int, message: str = "broken", **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return status, {"error": {"message": message, "type": "error"}}, named


@dataclass
class Endpoint:
    """A server that answers by its script and counts."""

    script: Script
    requests: list[dict[str, Any]] = field(default_factory=list)
    under_way: int = 0
    most_under_way: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""


Serve = Callable[[Script], Endpoint]


def open_endpoints() -> Iterator[Serve]:
    """Starts an endpoint on a free port for a script, as often as it is called; stops them all."""
    servers = []

    def start(script: Script) -> Endpoint:
        endpoint = Endpoint(script)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                content = self.rfile.read(int(self.headers["content-length"]))
                request = json.loads(content) | {"key": self.headers["authorization"]}
                request["path"] = self.path
                with endpoint.lock:
                    number = len(endpoint.requests)
                    endpoint.requests.append(request)
                    endpoint.under_way += 1
                    endpoint.most_under_way = max(endpoint.most_under_way, endpoint.under_way)
                status, body, headers = endpoint.script(number, request)
                with endpoint.lock:
                    endpoint.under_way -= 1
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
        return endpoint

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def make_engine(
    endpoint: Endpoint, pauses: list[float] | None = None, **settings: Any
) -> OpenAIEngine:
    noted = [] if pauses is None else pauses
    return OpenAIEngine(endpoint.url, "m", settings=OpenAISettings(**settings), sleep=noted.append)


def ask(
    engine: OpenAIEngine, count: int = 1, size_wh: tuple[int, int] = (64, 48)
) -> list[Completion]:
    record = make_record(Path("part.png"))
    prompt = build_inspection_prompt(record, num_references=1, hint=None)
    picture = Image.new("RGB", size_wh, "grey")
    return list(engine.generate([prompt] * count, [[picture, picture]] * count))
