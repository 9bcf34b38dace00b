"""Reads inspections: one, a filtered page, all of a filter; as JSON values with their review."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from anomalyr1.reporting.page import clean
from anomalyr1.server.store import Store
from anomalyr1.server.tables import inspection_pictures, inspections, pictures, reviews

_SORTS = {
    "newest": (inspections.c.id.desc(),),
    "oldest": (inspections.c.id,),
    "uncertain": (inspections.c.uncertainty.desc().nulls_last(), inspections.c.id),
    "score": (inspections.c.anomaly_score.desc().nulls_last(), inspections.c.id),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which inspections; None or "" leaves a condition out. Times are ISO texts, UTC."""

    product_id: int | None = None
    decision: str | None = None
    state: str | None = None
    reviewer: str = ""
    reviewed: bool | None = None
    disagreement: bool | None = None
    since: str = ""
    until: str = ""
    words: str = ""
    job_id: str = ""
    sort: str = "newest"


_standing = (
    sa.select(sa.func.max(reviews.c.id).label("id"))
    .where(reviews.c.retracted_at.is_(None))
    .group_by(reviews.c.inspection_id)
    .scalar_subquery()
)
_review = sa.select(reviews).where(reviews.c.id.in_(_standing)).subquery("review")
_COLUMNS = [
    *inspections.c,
    pictures.c.width,
    pictures.c.height,
    pictures.c.suffix,
    _review.c.id.label("review_id"),
    _review.c.reviewer,
    _review.c.created_at.label("reviewed_at"),
    _review.c.verdict.label("review_verdict"),
    _review.c.regions.label("review_regions"),
    _review.c.comment,
]
_FROM = inspections.join(pictures, inspections.c.picture == pictures.c.sha256).outerjoin(
    _review, _review.c.inspection_id == inspections.c.id
)


def find_inspections(
    store: Store, wanted: Filter, *, page: int = 1, page_size: int = 50
) -> tuple[int, list[Any]]:
    """How many inspections there are of a filter, and the rows of one page."""
    conditions = _build_conditions(wanted)
    query = (
        sa.select(*_COLUMNS)
        .select_from(_FROM)
        .where(*conditions)
        .order_by(*_SORTS[wanted.sort])
        .limit(page_size)
        .offset((page - 1) * page_size)
    )
    count = sa.select(sa.func.count()).select_from(_FROM).where(*conditions)
    with store.database.read() as connection:
        return connection.scalar(count) or 0, list(connection.execute(query))


def load_inspection(store: Store, inspection_id: int) -> dict[str, Any]:
    """One inspection as `describe` gives it, with its masks and all its reviews.

    Raises LookupError where there is none."""
    query = sa.select(*_COLUMNS).select_from(_FROM).where(inspections.c.id == inspection_id)
    kept = sa.select(inspection_pictures).where(
        inspection_pictures.c.inspection_id == inspection_id
    )
    history = (
        sa.select(reviews).where(reviews.c.inspection_id == inspection_id).order_by(reviews.c.id)
    )
    with store.database.read() as connection:
        row = connection.execute(query).first()
        if row is None:
            raise LookupError(f"no inspection {inspection_id}")
        files = list(connection.execute(kept))
        given = list(connection.execute(history))
    values = describe(row)
    values["has_map"] = any(item.kind == "map" for item in files)
    values["num_masks"] = sum(item.kind == "mask" for item in files)
    values["reviews"] = [
        {**dict(item._mapping), "regions": json.loads(item.regions)} for item in given
    ]
    return values


def list_files(store: Store, inspection_id: int, kind: str) -> list[str]:
    """Content hashes of an inspection's masks (in the order of its defects) or map."""
    query = (
        sa.select(inspection_pictures.c.picture)
        .where(
            inspection_pictures.c.inspection_id == inspection_id,
            inspection_pictures.c.kind == kind,
        )
        .order_by(inspection_pictures.c.place)
    )
    with store.database.read() as connection:
        return list(connection.scalars(query))


def load_job(store: Store, job_id: str) -> dict[str, Any]:
    """A job's progress with the ids of its inspections. Raises LookupError."""
    query = (
        sa.select(inspections.c.id, inspections.c.state)
        .where(inspections.c.job_id == job_id)
        .order_by(inspections.c.place)
    )
    with store.database.read() as connection:
        rows = list(connection.execute(query))
    if not rows:
        raise LookupError(f"no job {job_id[:40]!r}")
    done = sum(row.state != "queued" for row in rows)
    return {
        "id": job_id,
        "total": len(rows),
        "done": done,
        "state": "done" if done == len(rows) else "running",
        "inspections": [row.id for row in rows],
    }


def describe(row: Any) -> dict[str, Any]:
    """A row as JSON values; what the model wrote is made printable, not changed otherwise."""
    finding = json.loads(row.finding) if row.finding else {}
    review = None
    if row.review_id is not None:
        review = {
            "id": row.review_id,
            "reviewer": row.reviewer,
            "created_at": row.reviewed_at,
            "verdict": row.review_verdict,
            "regions": json.loads(row.review_regions),
            "comment": row.comment,
        }
    return {
        "id": row.id,
        "job_id": row.job_id,
        "state": row.state,
        "name": row.name,
        "product_id": row.product_id,
        "product": row.product_name,
        "picture": row.picture,
        "reference": row.reference,
        "size_wh": [row.width, row.height],
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "verdict": row.verdict,
        "decision": row.decision,
        "threshold": row.threshold,
        "anomaly_score": row.anomaly_score,
        "detector_score": row.detector_score,
        "uncertainty": row.uncertainty,
        "seconds": row.seconds,
        "model": row.model,
        "weights_sha256": row.weights_sha256,
        "template_id": row.template_id,
        "error": None if row.error is None else clean(row.error),
        "status": finding.get("status", ""),
        "reasoning": clean(finding.get("reasoning", "")),
        "raw_text": clean(finding.get("raw_text", "")),
        "defects": [
            {
                "label": clean(defect["label"]),
                "description": clean(defect["description"]),
                "box_xyxy": defect["box_xyxy"],
                "confidence": defect["confidence"],
                "severity": grade_severity(defect, row.width * row.height),
            }
            for defect in finding.get("defects", [])
        ],
        "review": review,
    }


def grade_severity(defect: dict[str, Any], num_pixels: int) -> str:
    """ "major" where the box covers 5 % of the picture or more, "moderate" from 0.5 %, else
    "minor": by size alone, which is all that a box says.

    >>> grade_severity({"box_xyxy": [0, 0, 10, 10]}, 1000)
    'major'
    """
    left, top, right, bottom = defect["box_xyxy"]
    share = (right - left) * (bottom - top) / max(1, num_pixels)
    return "major" if share >= 0.05 else "moderate" if share >= 0.005 else "minor"


def _build_conditions(wanted: Filter) -> list[sa.ColumnElement[bool]]:
    table = inspections.c
    conditions: list[sa.ColumnElement[bool]] = []
    equal = [
        (table.product_id, wanted.product_id),
        (table.decision, wanted.decision),
        (table.state, wanted.state),
        (table.job_id, wanted.job_id or None),
        (_review.c.reviewer, wanted.reviewer or None),
    ]
    conditions += [column == value for column, value in equal if value is not None]
    if wanted.since:
        conditions.append(table.created_at >= wanted.since.removesuffix("Z"))
    if wanted.until:
        # "2026-01-31" means the whole day: as much of a time is compared as is given.
        until = wanted.until.removesuffix("Z")
        conditions.append(sa.func.substr(table.created_at, 1, len(until)) <= until)
    if wanted.reviewed is not None:
        there = _review.c.id.is_not(None)
        conditions.append(there if wanted.reviewed else sa.not_(there))
    if wanted.disagreement is not None:
        conditions.append(_review.c.id.is_not(None))
        differs = _review.c.verdict != table.decision
        conditions.append(differs if wanted.disagreement else sa.not_(differs))
    if wanted.words:
        columns = (table.name, table.product_name, table.words, _review.c.comment)
        conditions.append(
            sa.or_(*(column.icontains(wanted.words, autoescape=True) for column in columns))
        )
    return conditions
