"""Which model the station uses, who decided that and when, and what it was measured against."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from anomalyr1.server.store import Store, new_id
from anomalyr1.server.tables import MOST_MODEL, evaluations, promotions, write_time
from anomalyr1.types import InputError
from anomalyr1.weights import hash_weights

FIRST_MODEL = "nano"
"""The station's model where none was promoted."""

_ALL = sa.select(promotions).order_by(promotions.c.id)
_LATEST = sa.select(promotions).order_by(promotions.c.id.desc()).limit(1)


def name_model(model: str) -> str:
    """A model as the station keeps it: a folder by its whole path, so that every server finds it.

    Raises InputError for a name that is too long."""
    name = str(Path(model).resolve()) if Path(model).is_dir() else model
    if len(name) > MOST_MODEL:
        raise InputError(f"the model's path has {len(name)} signs: move it, {MOST_MODEL} are kept")
    return name


def promote(
    store: Store,
    model: str,
    person: str,
    action: str = "promote",
    comment: str = "",
    *,
    weights_sha256: str | None = None,
    evaluation_id: int | None = None,
) -> None:
    """Make a checkpoint the station's; a running server loads it before its next picture.

    Asks for nothing: `promote_candidate` is the way that asks for an evaluation."""
    with store.database.write() as connection:
        _record(
            connection,
            model=model,
            action=action,
            person=person,
            comment=comment,
            weights_sha256=weights_sha256,
            evaluation_id=evaluation_id,
        )


def promote_candidate(
    store: Store, evaluation_id: int, person: str, comment: str = ""
) -> dict[str, Any]:
    """Promote the candidate of an evaluation; returns the comparison that the person decided on.

    Raises LookupError where there is none, InputError where the evaluation no longer says what the
    station would change from and to: another model is current, or the candidate's files changed."""
    row = find_evaluation(store, evaluation_id)
    if row is None:
        raise LookupError(f"no evaluation {evaluation_id}")
    current = current_model(store)
    again = f"measure it again: anomalyr1 model evaluate {row.candidate}"
    if hash_weights(row.candidate) != row.candidate_sha256:
        raise InputError(f"the weights in {row.candidate} changed since its evaluation: {again}")
    is_compared = hash_weights(current) == row.current_sha256
    with store.database.write() as connection:
        now = _name_current(connection.execute(_LATEST).first())
        # The hashes took a while, in which someone else may have promoted.
        if not is_compared or now != current:
            raise InputError(
                f"{row.candidate} was compared with {row.current}, the station's model is {now}: "
                + again
            )
        _record(
            connection,
            model=row.candidate,
            action="promote",
            person=person,
            comment=comment,
            weights_sha256=row.candidate_sha256,
            evaluation_id=evaluation_id,
        )
    comparison: dict[str, Any] = json.loads(row.comparison)
    return comparison


def roll_back(store: Store, person: str, comment: str = "") -> str:
    """Return to the model before the current one: its name. Raises InputError without one.

    Going back again goes further back, as far as the bundled model."""
    with store.database.write() as connection:
        models = [FIRST_MODEL]
        for row in connection.execute(_ALL):
            if row.action == "promote":
                models.append(row.model)
            else:
                models.pop()
        if len(models) == 1:
            raise InputError("no earlier model: nothing was promoted")
        earlier = models[-2]
        _record(connection, model=earlier, action="rollback", person=person, comment=comment)
    return earlier


def load_promotions(store: Store) -> list[Any]:
    """All promotions and rollbacks, oldest first."""
    with store.database.read() as connection:
        return list(connection.execute(_ALL))


def find_latest_promotion(store: Store) -> Any:
    """The row that says which model the station uses, None where nothing was promoted."""
    with store.database.read() as connection:
        return connection.execute(_LATEST).first()


def current_model(store: Store) -> str:
    """The station's model."""
    return _name_current(find_latest_promotion(store))


def _name_current(latest: Any) -> str:
    return FIRST_MODEL if latest is None else str(latest.model)


def _record(connection: Connection, **values: object) -> None:
    connection.execute(sa.insert(promotions).values(created_at=write_time(), **values))


def record_evaluation(store: Store, comparison: Mapping[str, Any]) -> int:
    """Keep what `comparison.compare_models` found; its id."""
    values = {
        "candidate": comparison["candidate"]["model"],
        "candidate_sha256": comparison["candidate"]["weights_sha256"],
        "current": comparison["current"]["model"],
        "current_sha256": comparison["current"]["weights_sha256"],
        "created_at": write_time(),
        "comparison": json.dumps(comparison),
    }
    with store.database.write() as connection:
        return new_id(connection.execute(sa.insert(evaluations).values(**values)))


def find_evaluation(store: Store, evaluation_id: int) -> Any:
    """An evaluation's row, or None."""
    with store.database.read() as connection:
        return connection.execute(
            sa.select(evaluations).where(evaluations.c.id == evaluation_id)
        ).first()


def find_latest_evaluation(store: Store, weights_sha256: str) -> Any:
    """The newest evaluation of a candidate with these weights: its row, or None."""
    query = (
        sa.select(evaluations)
        .where(evaluations.c.candidate_sha256 == weights_sha256)
        .order_by(evaluations.c.id.desc())
        .limit(1)
    )
    with store.database.read() as connection:
        return connection.execute(query).first()


def load_evaluations(store: Store, limit: int) -> list[Any]:
    """The newest evaluations, newest first."""
    query = sa.select(evaluations).order_by(evaluations.c.id.desc()).limit(limit)
    with store.database.read() as connection:
        return list(connection.execute(query))
