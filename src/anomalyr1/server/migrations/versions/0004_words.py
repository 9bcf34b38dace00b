"""Inspections keep the words that a search looks through apart from the finding's JSON."""

from __future__ import annotations

import json

import sqlalchemy as sa
from alembic import op

from anomalyr1.reporting.page import clean

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("inspections", sa.Column("words", sa.Text(), nullable=True))
    table = sa.table("inspections", sa.column("id"), sa.column("finding"), sa.column("words"))
    connection = op.get_bind()
    last = 0
    while rows := connection.execute(
        sa.select(table.c.id, table.c.finding)
        .where(table.c.id > last, table.c.finding.is_not(None))
        .order_by(table.c.id)
        .limit(500)
    ).all():
        for row in rows:
            finding = json.loads(row.finding)
            told = [f"{defect['label']} {defect['description']}" for defect in finding["defects"]]
            words = clean("\n".join([finding["reasoning"], *told]))
            connection.execute(sa.update(table).where(table.c.id == row.id).values(words=words))
        last = rows[-1].id
