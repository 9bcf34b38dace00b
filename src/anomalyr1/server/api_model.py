"""Routes about the model: which is at work, what was measured, promotion and return."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, HTTPException

from anomalyr1.server import examples, promotions
from anomalyr1.server.search import Filter, describe, find_inspections
from anomalyr1.server.station import Here, Station
from anomalyr1.server.values import Person, Promotion

router = APIRouter(prefix="/api")
MOST_COUNTED = 20_000
MOST_EVALUATIONS = 5
_MODEL = examples.answers(examples.MODEL)
_CHANGED: dict[int | str, dict[str, Any]] = {
    **_MODEL,
    409: {"description": "Fixed with --model."},
}


@router.get("/model", tags=["model"], responses=_MODEL)
def read_model(station: Here) -> dict[str, Any]:
    """The model at work, evaluated candidates, who promoted what, and corrections since then."""
    return describe_model(station)


@router.post("/model/promote", tags=["model"], responses=_CHANGED)
def promote(station: Here, given: Promotion) -> dict[str, Any]:
    """Make the candidate of an evaluation the station's model; it is loaded within seconds.

    Only what `adapt --from-store` or `model evaluate` measured beside the present model can be
    promoted here: a request names an evaluation, never a file."""
    _refuse_pinned(station)
    promotions.promote_candidate(station.store, given.evaluation, given.person, given.comment)
    return describe_model(station)


@router.post("/model/rollback", tags=["model"], responses=_CHANGED)
def roll_back(station: Here, given: Person) -> dict[str, Any]:
    """Return to the model before."""
    _refuse_pinned(station)
    promotions.roll_back(station.store, given.person)
    return describe_model(station)


def describe_model(station: Station) -> dict[str, Any]:
    """The model, its weights, evaluations, promotions, and how many new corrections wait."""
    made = [dict(row._mapping) for row in promotions.load_promotions(station.store)]
    since = made[-1]["created_at"] if made else ""
    _, rows = find_inspections(
        station.store, Filter(reviewed=True, state="done"), page_size=MOST_COUNTED
    )
    fresh = [row for row in rows if row.reviewed_at > since]
    return {
        "model": station.worker.model,
        "weights_sha256": station.worker.weights_sha256,
        "problem": station.worker.problem,
        "is_pinned": station.worker.pinned,
        "promotions": made,
        "evaluations": [
            {
                "id": row.id,
                "created_at": row.created_at,
                "is_current": row.candidate_sha256 == station.worker.weights_sha256,
                "is_against_current": row.current_sha256 == station.worker.weights_sha256,
                "comparison": json.loads(row.comparison),
            }
            for row in promotions.load_evaluations(station.store, MOST_EVALUATIONS)
        ],
        "num_reviewed": len(rows),
        "num_new_reviews": len(fresh),
        "num_new_corrections": sum(is_correction(describe(row)) for row in fresh),
    }


def is_correction(inspection: dict[str, Any]) -> bool:
    """Whether a review says something else than the station: the verdict, or on an anomalous
    picture which boxes there are and what is in them. Their order says nothing."""
    review = inspection["review"]
    if review is None:
        return False
    if review["verdict"] != inspection["decision"]:
        return True
    if review["verdict"] == "normal":
        # Agreed, though the model may have drawn boxes: the product's threshold decided.
        return False
    return _sort_boxes(review["regions"]) != _sort_boxes(inspection["defects"])


def _sort_boxes(marked: list[dict[str, Any]]) -> list[tuple[list[float], str]]:
    return sorted((list(item["box_xyxy"]), item["label"]) for item in marked)


def _refuse_pinned(station: Station) -> None:
    if station.worker.pinned:
        raise HTTPException(409, "the model was fixed with --model: start the server without it")
