"""Who may ask, from where, how much: token and cookie, foreign origins, sizes, headers.

The token is compared in constant time. A browser keeps a signed cookie instead of it, HttpOnly and
SameSite=Strict. A request that changes something is refused where the browser says that another
site made it (Fetch Metadata, W3C), and where the Host is not ours (DNS rebinding).
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "anomalyr1_session"
COOKIE_SECONDS = 12 * 3600
MAX_BODY_BYTES = 210_000_000
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; media-src 'self' blob:; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}
_OPEN_PATHS = ("/healthz", "/readyz", "/login", "/api/session", "/static/")
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own.

    >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0"), is_loopback("example.com")
    (True, False, False)
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def is_token(given: str, token: str) -> bool:
    """Whether two tokens are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(
        hashlib.sha256(given.encode("utf-8", "surrogatepass")).digest(),
        hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest(),
    )


def sign_session(token: str, now: float | None = None) -> str:
    """The value of a session cookie: when it ends, and a signature that only the token makes."""
    ends = str(int((time.time() if now is None else now) + COOKIE_SECONDS))
    signature = hmac.new(token.encode(), b"session " + ends.encode(), hashlib.sha256).hexdigest()
    return f"{ends}.{signature}"


def is_session(cookie: str, token: str, now: float | None = None) -> bool:
    """Whether a cookie was signed with this token and has not ended.

    >>> is_session(sign_session("a", 0.0), "a", 1.0), is_session("1.x", "a")
    (True, False)
    """
    ends, _, _ = cookie.partition(".")
    moment = time.time() if now is None else now
    if not (ends.isascii() and ends.isdigit() and len(ends) < 12 and moment < int(ends)):
        return False
    return is_token(cookie, sign_session(token, int(ends) - COOKIE_SECONDS))


class Guard:
    """ASGI middleware with the rules of this module. `token` None: loopback only, no login."""

    def __init__(self, app: ASGIApp, token: str | None, hosts: frozenset[str]) -> None:
        self._app, self._token, self._hosts = app, token, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]
        }

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {key for key, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (key.encode(), value.encode())
                        for key, value in HEADERS.items()
                        if key.encode() not in present
                    ),
                ]
                if scope["path"].startswith("/api") and b"cache-control" not in present:
                    message["headers"].append((b"cache-control", b"no-store"))
            await send(message)

        refused = self._refuse(scope["method"], scope["path"], headers)
        if refused is None:
            await self._app(scope, _bound_body(receive), send_guarded)
            return
        status, reason = refused
        location = []
        if status == 401 and "text/html" in headers.get("accept", ""):
            status, location = 303, [(b"location", b"/login")]
        body = json.dumps({"detail": reason}).encode()
        await send_guarded(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [(b"content-type", b"application/json"), *location],
            }
        )
        await send({"type": "http.response.body", "body": body})

    def _refuse(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if self._token is None and name.strip("[]") not in self._hosts and not is_loopback(name):
            return 421, "this station does not answer under that name"
        if method not in _SAFE_METHODS:
            site, origin = headers.get("sec-fetch-site"), headers.get("origin")
            if site is not None and site not in ("same-origin", "none"):
                return 403, "a request from another site"
            if origin is not None and origin.partition("://")[2] != host:
                return 403, "a request from another origin"
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return 413, f"a request has at most {MAX_BODY_BYTES:,} bytes"
        if self._token is None or path.startswith(_OPEN_PATHS):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and is_token(given.strip(), self._token):
            return None
        cookies = (part.strip().partition("=") for part in headers.get("cookie", "").split(";"))
        if any(key == COOKIE and is_session(value, self._token) for key, _, value in cookies):
            return None
        return 401, "a token is needed: Authorization: Bearer TOKEN"


def _bound_body(receive: Receive) -> Receive:
    """A body without a length is cut off where it becomes too large."""
    received = 0

    async def receive_bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > MAX_BODY_BYTES:
            return {"type": "http.disconnect"}
        return message

    return receive_bounded
