"""Databases for tests: the store's own SQLite file, and a schema of a PostgreSQL server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

POSTGRES = os.environ.get("ANOMALYR1_TEST_POSTGRES", "")


def open_database(kind: str) -> Iterator[str | None]:
    """The URL of an empty database, None for SQLite's; a machine without PostgreSQL skips."""
    if kind == "sqlite":
        yield None
        return
    if not POSTGRES:
        pytest.skip("no PostgreSQL: set ANOMALYR1_TEST_POSTGRES to the URL of a database")
    # A schema of its own, because tests run beside each other.
    schema = f"test_{uuid.uuid4().hex}"
    url = sa.make_url(POSTGRES).update_query_dict({"options": f"-csearch_path={schema}"})
    engine = sa.create_engine(url.set(drivername="postgresql+psycopg"))
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
    yield url.render_as_string(hide_password=False)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP SCHEMA {schema} CASCADE")
    engine.dispose()
