"""Candidates are evaluated before they are promoted, and promotions name their evaluation."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "evaluations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("candidate", sa.String(length=400), nullable=False),
        sa.Column("candidate_sha256", sa.String(length=64), nullable=False),
        sa.Column("current", sa.String(length=400), nullable=False),
        sa.Column("current_sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.String(length=32), nullable=False),
        sa.Column("comparison", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_evaluations")),
    )
    op.create_index(op.f("ix_evaluations_candidate_sha256"), "evaluations", ["candidate_sha256"])
    op.add_column("promotions", sa.Column("weights_sha256", sa.String(length=64), nullable=True))
    # Alembic would add the constraint on its own, which SQLite cannot.
    op.execute(
        "ALTER TABLE promotions ADD COLUMN evaluation_id INTEGER "
        "CONSTRAINT fk_promotions_evaluation_id REFERENCES evaluations (id)"
    )
