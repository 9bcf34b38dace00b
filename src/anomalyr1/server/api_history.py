"""Routes that look back: inspections, pictures, reviews, exports, trends."""

from __future__ import annotations

from io import BytesIO
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from PIL import Image

from anomalyr1.reporting.maps import read_map
from anomalyr1.reporting.overlays import DEFECT_COLOURS, colour_map
from anomalyr1.server import examples, reviews
from anomalyr1.server.exports import write_coco, write_csv, write_records_zip
from anomalyr1.server.pictures import MEDIA_TYPES, decode_small
from anomalyr1.server.search import Filter, describe, find_inspections, list_files, load_inspection
from anomalyr1.server.station import Here
from anomalyr1.server.trends import compute_trends
from anomalyr1.server.values import Digest, Id, NewReview, Person, refuse_control

router = APIRouter(prefix="/api")
MOST_EXPORTED = 20_000
VIEW_SIDES = {"thumb": 320, "view": 1600}
_CACHE = {"cache-control": "private, max-age=31536000, immutable"}


def _ask(description: str, example: object, **limits: Any) -> Any:
    return Query(description=description, examples=[example], **limits)


_TEXT = {"max_length": 200}
_TIME = {"pattern": r"^(\d{4}-\d\d-\d\d(T[\d:.]{0,15}Z?)?)?$"}


def build_filter(
    product_id: Annotated[int | None, _ask("Of this product alone.", 3, ge=1, le=2**31 - 1)] = None,
    decision: Annotated[
        Literal["normal", "anomalous", "unread"] | None,
        _ask("What the station decided.", "anomalous"),
    ] = None,
    state: Annotated[
        Literal["queued", "done", "failed"] | None, _ask("How far it is.", "done")
    ] = None,
    reviewer: Annotated[str, _ask("Whose review counts.", "Ann", **_TEXT)] = "",
    reviewed: Annotated[bool | None, _ask("With a review, or without one.", True)] = None,
    disagreement: Annotated[
        bool | None, _ask("Reviewed with another verdict, or with the same.", True)
    ] = None,
    since: Annotated[str, _ask("From this day or moment on, UTC.", "2026-01-31", **_TIME)] = "",
    until: Annotated[
        str, _ask("Up to the end of this day, minute or moment, UTC.", "2026-01-31T17:30", **_TIME)
    ] = "",
    q: Annotated[
        str,
        _ask("In names, reasonings, labels, descriptions and comments.", "scratch", **_TEXT),
    ] = "",
    job_id: Annotated[str, _ask("Of this job alone.", examples.JOB_ID, **_TEXT)] = "",
    sort: Annotated[
        Literal["newest", "oldest", "uncertain", "score"], _ask("What comes first.", "uncertain")
    ] = "newest",
) -> Filter:
    """The query's filter; 422 for control characters, which no database takes."""
    try:
        for text in (reviewer, q, job_id):
            refuse_control(text)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error
    return Filter(
        product_id, decision, state, reviewer, reviewed, disagreement, since, until, q, job_id, sort
    )


Wanted = Annotated[Filter, Depends(build_filter)]


def read_zone(
    zone: Annotated[
        str,
        _ask(
            "The time zone whose days are counted, by its IANA name.",
            "Europe/Berlin",
            **_TEXT,
        ),
    ] = "UTC",
) -> ZoneInfo:
    """The time zone of a query; 422 for a name that is none."""
    try:
        return ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise HTTPException(422, f"{zone!r} is no time zone: give one as Europe/Berlin") from error


@router.get(
    "/inspections",
    tags=["history"],
    responses=examples.answers({"total": 1, "page": 1, "inspections": [examples.FOUND]}),
)
def list_inspections(
    station: Here,
    wanted: Wanted,
    page: Annotated[int, _ask("Which page, from 1.", 1, ge=1, le=1_000_000)] = 1,
    page_size: Annotated[int, _ask("Inspections of a page.", 50, ge=1, le=200)] = 50,
) -> dict[str, Any]:
    """A page of inspections, filtered."""
    total, rows = find_inspections(station.store, wanted, page=page, page_size=page_size)
    return {"total": total, "page": page, "inspections": [describe(row) for row in rows]}


@router.get(
    "/inspections/{inspection_id}",
    tags=["history"],
    responses=examples.answers(examples.INSPECTION),
)
def read_inspection(station: Here, inspection_id: Id) -> dict[str, Any]:
    """One inspection with all its reviews."""
    return load_inspection(station.store, inspection_id)


@router.get("/pictures/{sha256}", tags=["history"], response_class=Response)
def read_picture(
    station: Here,
    sha256: Digest,
    size: Annotated[
        Literal["thumb", "view", "original"],
        _ask("A side of 320 or of 1600 pixels at most, or its own.", "view"),
    ] = "view",
) -> Response:
    """A picture, small, for the screen, or as it was sent."""
    path = station.store.find_picture(sha256)
    if path is None:
        raise HTTPException(404, "no such picture")
    if size == "original":
        # What a browser does not show as a picture is a download, so that it cannot run.
        media = MEDIA_TYPES.get(path.suffix, "application/octet-stream")
        return FileResponse(path, media_type=media, headers=_CACHE)
    buffer = BytesIO()
    decode_small(path, VIEW_SIDES[size]).save(buffer, "JPEG", quality=85)
    return Response(buffer.getvalue(), media_type="image/jpeg", headers=_CACHE)


@router.get("/inspections/{inspection_id}/map.png", tags=["history"], response_class=Response)
def read_map_layer(station: Here, inspection_id: Id) -> Response:
    """The anomaly map in colours, at its own resolution, covering the picture."""
    digests = list_files(station.store, inspection_id, "map")
    path = station.store.find_picture(digests[0]) if digests else None
    if path is None:
        raise HTTPException(404, "no map")
    levels = (read_map(path) * 255).round().astype("uint8")
    layer = colour_map(levels).convert("RGBA")
    layer.putalpha(Image.fromarray((levels * 0.85).astype("uint8")))
    return _png(layer)


@router.get("/inspections/{inspection_id}/masks.png", tags=["history"], response_class=Response)
def read_mask_layer(station: Here, inspection_id: Id) -> Response:
    """All masks as one transparent picture, each in the colour of its box."""
    digests = list_files(station.store, inspection_id, "mask")
    layer: Image.Image | None = None
    for place, digest in enumerate(digests):
        path = station.store.find_picture(digest)
        if path is None:
            continue
        mask = decode_small(path, VIEW_SIDES["view"]).convert("L")
        layer = layer or Image.new("RGBA", mask.size)
        colour = DEFECT_COLOURS[place % len(DEFECT_COLOURS)]
        layer.paste((*colour, 130), mask=mask.point(lambda level: 255 if level > 127 else 0))
    if layer is None:
        raise HTTPException(404, "no masks")
    return _png(layer)


@router.post(
    "/inspections/{inspection_id}/reviews",
    tags=["reviews"],
    status_code=201,
    responses=examples.answers(examples.INSPECTION, 201),
)
def add_review(station: Here, inspection_id: Id, given: NewReview) -> dict[str, Any]:
    """Confirm or correct an inspection. The latest review counts; all are kept."""
    inspection = load_inspection(station.store, inspection_id)
    width, height = inspection["size_wh"]
    if given.verdict == "normal" and given.regions:
        raise HTTPException(422, "a normal picture has no regions")
    for region in given.regions:
        left, top, right, bottom = region.box_xyxy
        if not (left < right <= width and top < bottom <= height):
            raise HTTPException(422, f"a box lies outside the {width}x{height} picture or is empty")
    regions = [region.model_dump() for region in given.regions]
    reviews.add_review(
        station.store, inspection_id, given.reviewer, given.verdict, regions, given.comment
    )
    station.metrics.reviews.labels(given.verdict).inc()
    return load_inspection(station.store, inspection_id)


@router.post("/reviews/{review_id}/retract", tags=["reviews"], status_code=204)
def retract_review(station: Here, review_id: Id, given: Person) -> None:
    """Undo a review; who undid it and when is kept."""
    reviews.retract_review(station.store, review_id, given.person)


@router.get("/exports/{kind}", tags=["exports"], response_class=StreamingResponse)
def export(
    station: Here,
    wanted: Wanted,
    kind: Annotated[
        Literal["csv", "coco", "records"],
        Path(description="A table, COCO JSON, or a ZIP for training.", examples=["csv"]),
    ],
) -> StreamingResponse:
    """What a filter gives as CSV, as COCO, or as reviewed records with their pictures (ZIP)."""
    total, rows = find_inspections(station.store, wanted, page_size=MOST_EXPORTED)
    if total > MOST_EXPORTED:
        raise HTTPException(400, f"{total} inspections: narrow the filter to {MOST_EXPORTED}")
    found = [describe(row) for row in rows]
    if kind == "csv":
        media, name, parts = "text/csv; charset=utf-8", "inspections.csv", write_csv(found)
    elif kind == "coco":
        media, name, parts = "application/json", "inspections.coco.json", write_coco(found)
    else:
        media, name = "application/zip", "records.zip"
        parts = write_records_zip(station.store, found)
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(parts, media_type=media, headers=headers)


@router.get("/trends", tags=["trends"], responses=examples.answers(examples.TRENDS))
def read_trends(
    station: Here, wanted: Wanted, zone: Annotated[ZoneInfo, Depends(read_zone)]
) -> dict[str, Any]:
    """Verdicts by day of a time zone, agreement with reviewers, overkill, miss, scores."""
    return compute_trends(station.store, wanted, zone)


def _png(layer: Image.Image) -> Response:
    buffer = BytesIO()
    layer.save(buffer, "PNG")
    return Response(buffer.getvalue(), media_type="image/png")
