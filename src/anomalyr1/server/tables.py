"""The tables of the store. Times are UTC, ISO 8601 text that sorts; `migrations` builds them.

A picture, mask or map is named by its SHA-256 everywhere, and lies in the picture folder under it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

MOST_NAME = 200
"""Signs of a name at most: of a product, a reviewer, a file."""

MOST_MODEL = 400
"""Signs of a model's name at most: a folder or a hub id."""

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

pictures = Table(
    "pictures",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("suffix", String(8), nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("num_bytes", Integer, nullable=False),
    Column("created_at", String(32), nullable=False),
)

products = Table(
    "products",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(MOST_NAME), nullable=False, unique=True),
    Column("knowledge", Text, nullable=False),
    Column("threshold", Float),
    Column("calibration", Text),
    Column("calibration_weights_sha256", String(64)),
    Column("created_at", String(32), nullable=False),
)

product_references = Table(
    "product_references",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("product_id", ForeignKey("products.id", ondelete="CASCADE"), nullable=False),
    Column("picture", ForeignKey("pictures.sha256"), nullable=False),
    Column("name", String(MOST_NAME), nullable=False),
    Column("created_at", String(32), nullable=False),
    UniqueConstraint("product_id", "picture"),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("request_key", String(MOST_NAME), unique=True),
    Column("total", Integer, nullable=False),
    Column("created_at", String(32), nullable=False),
)

inspections = Table(
    "inspections",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("job_id", ForeignKey("jobs.id"), nullable=False),
    Column("place", Integer, nullable=False),
    Column("product_id", ForeignKey("products.id", ondelete="SET NULL")),
    Column("product_name", String(MOST_NAME), nullable=False),
    Column("picture", ForeignKey("pictures.sha256"), nullable=False),
    Column("name", String(MOST_NAME), nullable=False),
    Column("state", String(8), nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    Column("verdict", String(10)),
    Column("decision", String(10)),
    Column("threshold", Float),
    Column("anomaly_score", Float),
    Column("detector_score", Float),
    Column("uncertainty", Float),
    Column("seconds", Float),
    Column("model", String(MOST_MODEL)),
    Column("weights_sha256", String(64)),
    Column("template_id", String(80)),
    Column("reference", ForeignKey("pictures.sha256")),
    Column("finding", Text),
    Column("words", Text),
    Column("error", Text),
    UniqueConstraint("job_id", "place"),
    CheckConstraint("state IN ('queued', 'done', 'failed')", name="state"),
    CheckConstraint("state = 'queued' OR finished_at IS NOT NULL", name="finished"),
    Index(None, "state"),
    Index(None, "created_at"),
    Index(None, "product_id", "created_at"),
)

inspection_pictures = Table(
    "inspection_pictures",
    metadata,
    Column("inspection_id", ForeignKey("inspections.id", ondelete="CASCADE"), primary_key=True),
    Column("kind", String(8), primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("picture", ForeignKey("pictures.sha256"), nullable=False),
    CheckConstraint("kind IN ('mask', 'map')", name="kind"),
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", Integer, primary_key=True),
    Column(
        "inspection_id",
        ForeignKey("inspections.id", ondelete="CASCADE"),
        nullable=False,
        index=True,
    ),
    Column("reviewer", String(MOST_NAME), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("verdict", String(10), nullable=False),
    Column("regions", Text, nullable=False),
    Column("comment", Text, nullable=False),
    Column("retracted_at", String(32)),
    Column("retracted_by", String(MOST_NAME)),
    CheckConstraint("verdict IN ('normal', 'anomalous')", name="verdict"),
)

evaluations = Table(
    "evaluations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("candidate", String(MOST_MODEL), nullable=False),
    Column("candidate_sha256", String(64), nullable=False, index=True),
    Column("current", String(MOST_MODEL), nullable=False),
    Column("current_sha256", String(64), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("comparison", Text, nullable=False),
)

promotions = Table(
    "promotions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(MOST_MODEL), nullable=False),
    Column("action", String(8), nullable=False),
    Column("person", String(MOST_NAME), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("comment", Text, nullable=False),
    Column("weights_sha256", String(64)),
    Column("evaluation_id", ForeignKey("evaluations.id")),
    CheckConstraint("action IN ('promote', 'rollback')", name="action"),
)


def write_time(moment: datetime | None = None) -> str:
    """A moment (now, where none is given) as the tables keep it.

    >>> write_time(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    '2026-01-02T03:04:05.000000Z'
    """
    moment = (moment or datetime.now(UTC)).astimezone(UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
