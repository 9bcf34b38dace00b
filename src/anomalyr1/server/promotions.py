"""Which model the station uses, who decided that and when."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from anomalyr1.server.store import Store
from anomalyr1.server.tables import promotions, write_time
from anomalyr1.types import InputError


def promote(
    store: Store, model: str, person: str, action: str = "promote", comment: str = ""
) -> None:
    """Make a checkpoint the station's; a running server loads it before its next picture."""
    with store.database.write() as connection:
        connection.execute(
            sa.insert(promotions).values(
                model=model,
                action=action,
                person=person,
                created_at=write_time(),
                comment=comment,
            )
        )


def roll_back(store: Store, person: str, comment: str = "") -> str:
    """Return to the model before the current one: its name. Raises InputError without one.

    Going back again goes further back, as far as the bundled model."""
    models = ["nano"]
    for row in load_promotions(store):
        if row.action == "promote":
            models.append(row.model)
        else:
            models.pop()
    if len(models) == 1:
        raise InputError("no earlier model: nothing was promoted")
    promote(store, models[-2], person, "rollback", comment)
    return models[-2]


def load_promotions(store: Store) -> list[Any]:
    """All promotions and rollbacks, oldest first."""
    with store.database.read() as connection:
        return list(connection.execute(sa.select(promotions).order_by(promotions.c.id)))


def current_model(store: Store) -> str | None:
    """The promoted model, or None where nothing was promoted."""
    query = sa.select(promotions.c.model).order_by(promotions.c.id.desc()).limit(1)
    with store.database.read() as connection:
        return connection.scalar(query)
