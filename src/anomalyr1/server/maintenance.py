"""Backup, verify and prune of a store."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import sqlalchemy as sa

from anomalyr1.server.pictures import hash_file
from anomalyr1.server.store import Store
from anomalyr1.server.tables import (
    inspection_pictures,
    inspections,
    jobs,
    pictures,
    product_references,
    write_time,
)
from anomalyr1.types import InputError

_YOUNG_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Health:
    """What `verify` found: problems, and counts of what is there. `num_loose` files have no row:
    a kill between file and row leaves them, and `prune` takes them."""

    problems: tuple[str, ...]
    num_pictures: int
    num_inspections: int
    num_waiting: int
    num_loose: int


def verify_store(store: Store) -> Health:
    """Compare every row with its file, and every file with its hash."""
    problems: list[str] = []
    with store.database.read() as connection:
        rows = list(connection.execute(sa.select(pictures)))
        # A job of fewer or more pictures than were accepted, or a finished row without a result.
        counts = connection.execute(
            sa.select(jobs.c.id, jobs.c.total, sa.func.count(inspections.c.id))
            .outerjoin(inspections, inspections.c.job_id == jobs.c.id)
            .group_by(jobs.c.id, jobs.c.total)
        )
        problems += [
            f"job {job_id} has {found} of {total} pictures"
            for job_id, total, found in counts
            if found != total
        ]
        unfinished = sa.select(inspections.c.id).where(
            inspections.c.state != "queued", inspections.c.finding.is_(None)
        )
        problems += [
            f"inspection {row.id} has no finding" for row in connection.execute(unfinished)
        ]
        num_inspections = connection.scalar(sa.select(sa.func.count(inspections.c.id))) or 0
        num_waiting = (
            connection.scalar(
                sa.select(sa.func.count(inspections.c.id)).where(inspections.c.state == "queued")
            )
            or 0
        )
        if store.database.is_sqlite:
            checked = connection.exec_driver_sql("PRAGMA integrity_check").scalar()
            problems += [] if checked == "ok" else [f"database: {checked}"]
            broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
            problems += [f"row {row[1]} of {row[0]} points nowhere" for row in broken]
    known = set()
    for row in rows:
        path = store.folder.find(row.sha256, row.suffix)
        known.add(path)
        if not path.is_file():
            problems.append(f"picture {row.sha256} has no file")
        elif path.stat().st_size != row.num_bytes or hash_file(path) != row.sha256:
            problems.append(f"picture {row.sha256} is not what was stored")
    num_loose = sum(path not in known for path in store.folder.walk())
    return Health(tuple(problems), len(rows), num_inspections, num_waiting, num_loose)


def back_up_store(store: Store, target: Path) -> int:
    """Copy database and pictures to an empty folder, while a server may run; returns the number of
    pictures. Raises InputError for a folder that holds something, and for PostgreSQL."""
    if not store.database.is_sqlite:
        raise InputError(
            f"store backup copies SQLite stores: run pg_dump, then copy {store.folder.root}"
        )
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target} is not empty: name a new folder")
    (target / "pictures").mkdir(parents=True, exist_ok=True)
    # The database first: every picture that it names is on the disk already.
    with (
        store.database.engine.connect() as connection,
        sqlite3.connect(target / "station.db") as copy,
    ):
        source = connection.connection.driver_connection
        assert isinstance(source, sqlite3.Connection)
        connection.rollback()
        source.backup(copy)
    copy.close()
    count = 0
    for path in store.folder.walk():
        kept = target / "pictures" / path.relative_to(store.folder.root)
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, kept)
        with kept.open("rb") as file:
            os.fsync(file.fileno())
        count += 1
    return count


def prune_store(store: Store, *, days: int | None) -> tuple[int, int]:
    """Remove inspections without review older than `days` (None: none), then pictures that nothing
    names; returns (inspections, files) removed. Pictures of the last hour stay."""
    num_inspections = 0
    if days is not None:
        from anomalyr1.server.tables import reviews

        line = write_time(datetime.now(UTC) - timedelta(days=days))
        with store.database.write() as connection:
            reviewed = sa.select(reviews.c.inspection_id)
            num_inspections = connection.execute(
                sa.delete(inspections).where(
                    inspections.c.created_at < line,
                    inspections.c.state != "queued",
                    inspections.c.id.not_in(reviewed),
                )
            ).rowcount
            left = (
                sa.select(sa.func.count(inspections.c.id))
                .where(inspections.c.job_id == jobs.c.id)
                .scalar_subquery()
            )
            connection.execute(sa.update(jobs).where(jobs.c.total != left).values(total=left))
    line = write_time(datetime.now(UTC) - timedelta(seconds=_YOUNG_SECONDS))
    used = [
        sa.select(column)
        for column in (
            inspections.c.picture,
            inspection_pictures.c.picture,
            product_references.c.picture,
        )
    ]
    used.append(sa.select(inspections.c.reference).where(inspections.c.reference.is_not(None)))
    with store.database.write() as connection:
        connection.execute(
            sa.delete(pictures).where(
                pictures.c.created_at < line, *(pictures.c.sha256.not_in(query) for query in used)
            )
        )
        known = {
            store.folder.find(row.sha256, row.suffix)
            for row in connection.execute(sa.select(pictures.c.sha256, pictures.c.suffix))
        }
    num_files = 0
    for path in store.folder.walk():
        if path not in known and path.stat().st_mtime < time.time() - _YOUNG_SECONDS:
            path.unlink()
            num_files += 1
    return num_inspections, num_files
