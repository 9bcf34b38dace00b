"""Inspections keep the content hash of the weights that made them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("inspections", sa.Column("weights_sha256", sa.String(length=64), nullable=True))
