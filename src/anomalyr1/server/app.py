"""Builds the station's web application from a store and a way to load models."""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jinja2
import sqlalchemy as sa
from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from anomalyr1 import reporting
from anomalyr1.inspector import Inspector
from anomalyr1.server import api_history, api_inspect, api_model, api_openai, examples
from anomalyr1.server.bell import Bell
from anomalyr1.server.metrics import Metrics
from anomalyr1.server.security import COOKIE, COOKIE_SECONDS, Guard, is_token, sign_session
from anomalyr1.server.station import Here, Station
from anomalyr1.server.store import Store
from anomalyr1.server.values import Session
from anomalyr1.server.worker import Worker
from anomalyr1.types import InputError

PAGES = Path(__file__).parent / "pages"
PAGE_TEMPLATE = Path(__file__).parent / "page.html.j2"
BASE_STYLE = Path(reporting.__file__).parent / "base.css"
"""What the pages share with the reports."""
PAGE_TITLES = {
    "inspect": "Inspect",
    "products": "Products",
    "history": "History",
    "review": "Review",
    "trends": "Trends",
    "login": "Log in",
}
"""Pages by the name of their module in `pages`."""

_LEAST_FREE_BYTES = 100_000_000
_log = logging.getLogger(__name__)


def build_app(
    store: Store,
    load_model: Callable[[str], Inspector],
    *,
    model: str | None = None,
    token: str | None = None,
    hosts: frozenset[str] = frozenset(),
    batch_size: int = 8,
    max_waiting: int = 256,
    drain_seconds: float = 60.0,
) -> FastAPI:
    """The application; its worker starts and stops with it. `store` must be claimed."""
    bell, metrics = Bell(), Metrics()
    worker = Worker(
        store,
        load_model,
        model,
        metrics=metrics,
        ring=bell.ring,
        batch_size=batch_size,
        max_waiting=max_waiting,
    )

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        bell.attach()
        worker.start()
        yield
        bell.close()
        await run_in_threadpool(worker.stop, drain_seconds)

    # Swagger's pages would come from a CDN; the description itself is at /openapi.json.
    app = FastAPI(
        title="AnomalyR1 station",
        description="Explained visual inspection: pictures in, verdicts, reasons and boxes out. "
        "Examples of answers leave out what is null.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=examples.answers(
            {"detail": "body.name: String should have at least 1 character"},
            422,
            description="What was sent makes no sense: `detail` says where and why.",
        ),
    )
    app.state.station = Station(store, worker, bell, metrics, token)
    for part in (api_inspect, api_history, api_model, api_openai):
        app.include_router(part.router)
    _add_pages(app)
    _add_operations(app)
    _add_errors(app)
    app.add_middleware(Guard, token=token, hosts=hosts)
    return app


def _add_pages(app: FastAPI) -> None:
    @app.get(f"/static/{BASE_STYLE.name}", include_in_schema=False)
    def style() -> FileResponse:
        return FileResponse(BASE_STYLE)

    app.mount("/static", StaticFiles(directory=PAGES), name="static")

    template = jinja2.Template(PAGE_TEMPLATE.read_text(encoding="utf-8"), autoescape=True)

    def add(path: str, name: str, title: str) -> None:
        text = template.render(name=name, title=title)

        @app.get(path, include_in_schema=False)
        def page() -> HTMLResponse:
            return HTMLResponse(text)

    for name, title in PAGE_TITLES.items():
        add("/" if name == "inspect" else f"/{name}", name, title)

    @app.post("/api/session", tags=["session"], status_code=204)
    def log_in(station: Here, given: Session, request: Request, response: Response) -> None:
        """Exchange the token for a cookie that a script cannot read."""
        if station.token is None or not is_token(given.token, station.token):
            raise _Refused
        response.set_cookie(
            COOKIE,
            sign_session(station.token),
            max_age=COOKIE_SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )

    @app.delete("/api/session", tags=["session"], status_code=204)
    def log_out(response: Response) -> None:
        """Forget the cookie."""
        response.delete_cookie(COOKIE, httponly=True, samesite="strict")


class _Refused(Exception):
    """A wrong token."""


def _add_operations(app: FastAPI) -> None:
    @app.get("/healthz", tags=["operation"], responses=examples.answers({"status": "ok"}))
    def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get(
        "/readyz",
        tags=["operation"],
        responses=examples.answers({"ready": True, "problems": []}),
    )
    def ready(station: Here, response: Response) -> dict[str, Any]:
        """Whether work is taken: model, database, disk. 503 where not (schema: same)."""
        problems = []
        if not station.worker.is_ready:
            problems.append(station.worker.problem or "the model is being loaded")
        try:
            with station.store.database.read() as connection:
                connection.execute(sa.select(1))
        except sa.exc.SQLAlchemyError:
            problems.append("the database does not answer")
        if shutil.disk_usage(station.store.folder.root).free < _LEAST_FREE_BYTES:
            problems.append("the disk is full")
        if problems:
            response.status_code = 503
        return {"ready": not problems, "problems": problems}

    @app.get("/metrics", tags=["operation"], response_class=Response)
    def metrics(station: Here) -> Response:
        """For Prometheus."""
        station.metrics.waiting.set(station.worker.num_waiting)
        return Response(generate_latest(station.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.middleware("http")
    async def count(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        route = getattr(request.scope.get("route"), "path", "other")
        station: Station = app.state.station
        station.metrics.requests.labels(request.method, route, response.status_code).inc()
        return response


def _add_errors(app: FastAPI) -> None:
    def answer(status: int, detail: str) -> JSONResponse:
        # A lone surrogate in a message cannot be sent.
        text = detail.encode("utf-8", "replace").decode()
        return JSONResponse({"detail": text}, status)

    @app.exception_handler(InputError)
    async def unusable(_request: Request, error: InputError) -> JSONResponse:
        return answer(400, str(error))

    @app.exception_handler(LookupError)
    async def missing(_request: Request, error: LookupError) -> JSONResponse:
        if type(error) is not LookupError:  # a KeyError is a fault of ours
            return failed(error)
        return answer(404, str(error))

    @app.exception_handler(_Refused)
    async def refused(_request: Request, _error: _Refused) -> JSONResponse:
        return answer(401, "this is not the token")

    @app.exception_handler(RequestValidationError)
    async def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        # Without the input itself: it may hold what cannot be sent back.
        problems = [
            f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:20]
        ]
        return answer(422, "; ".join(problems))

    def failed(error: Exception) -> JSONResponse:
        number = secrets.token_hex(4)
        _log.error("error %s", number, exc_info=error)
        return answer(500, f"internal error {number}; the server's log says more")

    @app.exception_handler(Exception)
    async def broken(_request: Request, error: Exception) -> JSONResponse:
        return failed(error)
