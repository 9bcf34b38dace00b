"""Calibrations keep the content hash of the weights that made them; earlier ones did not say it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column(
        "products", sa.Column("calibration_weights_sha256", sa.String(length=64), nullable=True)
    )
    op.execute("UPDATE products SET calibration = NULL")
