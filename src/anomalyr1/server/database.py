"""Opens the database, SQLite in WAL mode or PostgreSQL, and brings its tables up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from anomalyr1.types import InputError

MIGRATIONS = Path(__file__).parent / "migrations"
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_LOCK_SECONDS = 30


class Database:
    """An engine whose writing transactions take the write lock when they begin: one at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # PostgreSQL would show each query of a reader what was written meanwhile.
        self._reading = (
            engine
            if self.is_sqlite
            else engine.execution_options(isolation_level="REPEATABLE READ")
        )

    @classmethod
    def open(cls, url: str) -> Database:
        """Open `sqlite:///FILE` or `postgresql://...` and run the migrations that are missing.

        Raises InputError for another URL, a server that does not answer, and a database that a
        later version of the program has written.
        """
        engine = _make_engine(url)
        try:
            with engine.execution_options(writes=True).begin() as connection:
                _migrate(connection)
        except OperationalError as error:
            reason = str(error.orig).strip().partition("\n")[0]
            raise InputError(f"database {hide_password(url)} cannot be opened: {reason}") from error
        except CommandError as error:
            raise InputError(
                f"database {hide_password(url)} is of another version ({error}): "
                "use the version of anomalyr1 that wrote it, or a later one"
            ) from error
        return cls(engine)

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one state of the database."""
        with self._reading.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: committed at the end of the block, rolled back on any exception."""
        with self.engine.execution_options(writes=True).begin() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def hide_password(url: str) -> str:
    """The URL as it may be shown.

    >>> hide_password("postgresql://me:secret@host/db")
    'postgresql://me:***@host/db'
    """
    try:
        return sa.make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(not a URL)"


def _make_engine(url: str) -> Engine:
    try:
        parsed = sa.make_url(url)
        parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
        if parsed.get_backend_name() == "sqlite":
            return _make_sqlite(parsed)
        if parsed.drivername == "postgresql+psycopg":
            return _make_postgresql(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise InputError(f"--db {hide_password(url)} cannot be used: {error}") from error
    raise InputError(f"--db {hide_password(url)}: use sqlite:///FILE or postgresql://...")


def _make_sqlite(url: sa.URL) -> Engine:
    if not url.database or url.database == ":memory:":
        raise InputError("--db sqlite:// needs a file, such as sqlite:///station/station.db")
    try:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder of {url.database} cannot be made: {error}") from error
    engine = sa.create_engine(
        url, connect_args={"timeout": _LOCK_SECONDS}, pool_size=8, max_overflow=40
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: Any) -> None:
        # Python's own transaction control would begin late and without the write lock.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        # FULL: what was accepted is on the disk, so that it outlives a power failure too.
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A reader that turns into a writer cannot wait for another writer, so writers say it first.
        is_writing = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing else "BEGIN")

    return engine


def _make_postgresql(url: sa.URL) -> Engine:
    engine = sa.create_engine(url, pool_size=8, max_overflow=40, pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # As on SQLite: what a writer has read still holds where it writes.
        if connection.get_execution_options().get("writes", False):
            connection.exec_driver_sql(
                "SELECT pg_advisory_xact_lock(hashtext('anomalyr1 ' || current_schema()))"
            )

    return engine


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
