"""Routes that take pictures: products with their references, inspections and jobs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Header, HTTPException, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from anomalyr1.server import examples, products
from anomalyr1.server.decisions import find_odd_references
from anomalyr1.server.search import load_inspection, load_job
from anomalyr1.server.station import Here, Station, refuse_full
from anomalyr1.server.store import Store, Upload
from anomalyr1.server.values import Id, JobId, NewProduct, ProductChange, shorten_name
from anomalyr1.server.worker import calibrate
from anomalyr1.types import InputError

router = APIRouter(prefix="/api")
MOST_PICTURES = 64
WAIT_SECONDS = 120.0
_HEARTBEAT_SECONDS = 15.0
_TAKEN: dict[int | str, dict[str, Any]] = {409: {"description": "The name is taken."}}
_FULL: dict[int | str, dict[str, Any]] = {
    429: {"description": "The queue is full: come back after Retry-After seconds."}
}
_WAITING = {"job": {**examples.JOB, "done": 0, "state": "running"}, "inspections": []}
_INSPECTED: dict[int | str, dict[str, Any]] = {
    **examples.answers({"job": examples.JOB, "inspections": [examples.NEW_INSPECTION]}),
    **examples.answers(_WAITING, 202, description="Accepted: a job that is not done yet."),
    400: {"description": "A file is no picture that can be read."},
    **_FULL,
}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"example": f"data: {json.dumps(examples.JOB)}\n\n"}}}
}
_PRODUCT = examples.answers(examples.PRODUCT)
_NEW_PRODUCT = examples.answers(examples.NEW_PRODUCT, 201)
Pictures = Annotated[list[UploadFile], File(description="PNG, JPEG, WebP, TIFF, BMP ...")]


@router.get(
    "/products",
    tags=["products"],
    responses=examples.answers([{"id": 3, "name": "gear housing", "num_references": 8}]),
)
def list_products(station: Here) -> list[dict[str, Any]]:
    """All products by name, with their number of references."""
    return products.list_products(station.store)


@router.post("/products", tags=["products"], status_code=201, responses={**_NEW_PRODUCT, **_TAKEN})
def create_product(station: Here, given: NewProduct) -> dict[str, Any]:
    """Make a product."""
    with _taken():
        product_id = products.create_product(station.store, given.name, given.knowledge)
    return describe_product(station, product_id)


@router.get("/products/{product_id}", tags=["products"], responses=_PRODUCT)
def read_product(station: Here, product_id: Id) -> dict[str, Any]:
    """A product with knowledge, threshold, references and their calibration."""
    return describe_product(station, product_id)


@router.patch("/products/{product_id}", tags=["products"], responses={**_PRODUCT, **_TAKEN})
def change_product(station: Here, product_id: Id, change: ProductChange) -> dict[str, Any]:
    """Change what is given; `threshold` null takes the line away."""
    values = change.model_dump(exclude_unset=True)
    if values.get("name", "") is None or values.get("knowledge", "") is None:
        raise HTTPException(422, "name and knowledge cannot be null")
    with _taken():
        products.change_product(station.store, product_id, values)
    return describe_product(station, product_id)


@router.delete("/products/{product_id}", tags=["products"], status_code=204)
def delete_product(station: Here, product_id: Id) -> None:
    """Remove a product; its inspections stay."""
    products.delete_product(station.store, product_id)


@router.post(
    "/products/{product_id}/references",
    tags=["products"],
    status_code=201,
    responses=examples.answers(examples.REFERENCED_PRODUCT, 201),
)
def add_references(station: Here, product_id: Id, pictures: Pictures) -> dict[str, Any]:
    """Add normal pictures of the product."""
    products.load_product(station.store, product_id)
    for upload in _receive(station.store, pictures):
        products.add_reference(station.store, product_id, upload)
    return describe_product(station, product_id)


@router.delete(
    "/products/{product_id}/references/{reference_id}",
    tags=["products"],
    responses=examples.answers(examples.REFERENCED_PRODUCT),
)
def remove_reference(station: Here, product_id: Id, reference_id: Id) -> dict[str, Any]:
    """Take a reference away."""
    products.remove_reference(station.store, product_id, reference_id)
    return describe_product(station, product_id)


@router.post(
    "/products/{product_id}/calibration", tags=["products"], responses={**_PRODUCT, **_FULL}
)
async def calibrate_product(station: Here, product_id: Id) -> dict[str, Any]:
    """Score each reference against the others (leave one out), and keep the scores, unless
    references were added or taken away meanwhile."""
    await run_in_threadpool(products.load_product, station.store, product_id)
    future = station.worker.call(partial(calibrate, station.store, product_id))
    if future is None:
        raise refuse_full(station)
    await asyncio.wrap_future(future)
    return await run_in_threadpool(describe_product, station, product_id)


@router.post("/inspect", tags=["inspect"], responses=_INSPECTED)
async def inspect(
    station: Here,
    response: Response,
    pictures: Pictures,
    product_id: Annotated[
        int | None, Form(ge=1, le=2**31 - 1, description="Whose references and knowledge count.")
    ] = None,
    wait: Annotated[bool, Form(description="Wait for the results; else a job is made.")] = True,
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=200,
            pattern=r"^[!-~]+$",
            description="A request that is repeated with its key is answered with its first job.",
            examples=["part-4711"],
        ),
    ] = None,
) -> dict[str, Any]:
    """Inspect pictures. With `wait`, the findings of a job that ended in time; else the job."""
    if station.bell.is_closing:
        raise HTTPException(503, "the station stops", headers={"Retry-After": "10"})
    if not station.worker.reserve(len(pictures)):
        raise refuse_full(station)
    tasks: list[Any] = []
    try:
        job_id, tasks = await run_in_threadpool(
            _accept, station.store, pictures, product_id, idempotency_key
        )
    finally:
        station.worker.fill(len(pictures), tasks)
    job = await _wait_for_job(station, job_id, WAIT_SECONDS if wait else 0.0)
    if job["state"] != "done":
        response.status_code = 202
        return {"job": job, "inspections": []}
    found = [
        await run_in_threadpool(load_inspection, station.store, number)
        for number in job["inspections"]
    ]
    return {"job": job, "inspections": found}


@router.get("/jobs/{job_id}", tags=["inspect"], responses=examples.answers(examples.JOB))
def read_job(station: Here, job_id: JobId) -> dict[str, Any]:
    """How far a job is."""
    return load_job(station.store, job_id)


@router.get(
    "/jobs/{job_id}/events",
    tags=["inspect"],
    response_class=StreamingResponse,
    responses=_EVENTS,
)
async def follow_job(station: Here, job_id: JobId) -> StreamingResponse:
    """A job's progress as server-sent events, until it is done."""
    await run_in_threadpool(load_job, station.store, job_id)

    async def events() -> AsyncIterator[str]:
        last = ""
        while not station.bell.is_closing:
            job = await run_in_threadpool(load_job, station.store, job_id)
            line = json.dumps(job)
            yield f"data: {line}\n\n" if line != last else ": still here\n\n"
            last = line
            if job["state"] == "done":
                return
            await station.bell.wait(_HEARTBEAT_SECONDS)

    return StreamingResponse(events(), media_type="text/event-stream")


def describe_product(station: Station, product_id: int) -> dict[str, Any]:
    """A product as JSON values; the scores of its references where the model at work gave them,
    since those of another detector say nothing about it. Raises LookupError."""
    row, references = products.load_product(station.store, product_id)
    is_calibrated = (
        row.calibration is not None
        and row.calibration_weights_sha256 == station.worker.weights_sha256
    )
    scores = json.loads(row.calibration) if is_calibrated else []
    odd = find_odd_references(scores)
    return {
        "id": row.id,
        "name": row.name,
        "knowledge": row.knowledge,
        "threshold": row.threshold,
        "is_calibrated": is_calibrated,
        "references": [
            {
                "id": item.id,
                "name": item.name,
                "picture": item.picture,
                "score": scores[place] if place < len(scores) else None,
                "is_odd": place in odd,
            }
            for place, item in enumerate(references)
        ],
    }


@contextmanager
def _taken() -> Iterator[None]:
    try:
        yield
    except InputError as error:
        raise HTTPException(409, str(error)) from error


def _receive(store: Store, files: list[UploadFile]) -> list[Upload]:
    if len(files) > MOST_PICTURES:
        raise HTTPException(400, f"at most {MOST_PICTURES} pictures a request")
    return [store.receive(file.file, shorten_name(file.filename)) for file in files]


def _accept(
    store: Store, files: list[UploadFile], product_id: int | None, key: str | None
) -> tuple[str, list[Any]]:
    earlier = store.find_job(key)
    if earlier is not None:
        return earlier, []
    if product_id is not None:
        products.load_product(store, product_id)
    return store.accept(_receive(store, files), product_id, key)


async def _wait_for_job(station: Station, job_id: str, seconds: float) -> dict[str, Any]:
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    while True:
        job = await run_in_threadpool(load_job, station.store, job_id)
        left = ends - loop.time()
        if job["state"] == "done" or left <= 0 or station.bell.is_closing:
            return job
        await station.bell.wait(min(left, 1.0))
