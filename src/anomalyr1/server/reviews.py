"""What people said of inspections, in the store: nothing is ever overwritten."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from anomalyr1.server.store import Store, new_id
from anomalyr1.server.tables import inspections, reviews, write_time


def add_review(
    store: Store,
    inspection_id: int,
    reviewer: str,
    verdict: str,
    regions: Sequence[dict[str, Any]],
    comment: str,
) -> int:
    """A person's judgement; the latest that is not retracted counts. Raises LookupError."""
    with store.database.write() as connection:
        state = connection.scalar(
            sa.select(inspections.c.state).where(inspections.c.id == inspection_id)
        )
        if state is None:
            raise LookupError(f"no inspection {inspection_id}")
        made = connection.execute(
            sa.insert(reviews).values(
                inspection_id=inspection_id,
                reviewer=reviewer,
                created_at=write_time(),
                verdict=verdict,
                regions=json.dumps(list(regions)),
                comment=comment,
            )
        )
        return new_id(made)


def retract_review(store: Store, review_id: int, person: str) -> None:
    """Undo a review; who and when stay written. Raises LookupError."""
    with store.database.write() as connection:
        changed = connection.execute(
            sa.update(reviews)
            .where(reviews.c.id == review_id, reviews.c.retracted_at.is_(None))
            .values(retracted_at=write_time(), retracted_by=person)
        )
        if changed.rowcount == 0:
            raise LookupError(f"no review {review_id} that stands")
