"""The store: a database with a picture folder beside it; jobs and inspections in it.

Files come first and rows after, so that no row names a file that is not there. What is accepted
is one transaction, and so is a result: a job that a kill interrupts is done once, after restart.
"""

from __future__ import annotations

import fcntl
import os
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from anomalyr1.reporting.findings import build_finding_line
from anomalyr1.reporting.page import clean
from anomalyr1.server.database import Database
from anomalyr1.server.decisions import decide, measure_uncertainty
from anomalyr1.server.pictures import Picture, PictureFolder
from anomalyr1.server.tables import (
    inspection_pictures,
    inspections,
    jobs,
    pictures,
    products,
    write_time,
)
from anomalyr1.types import Defect, Finding, InputError


@dataclass(frozen=True, slots=True)
class Task:
    """An accepted picture that waits. `attempts` counts earlier tries that did not end."""

    inspection_id: int
    product_id: int | None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture in the folder with the name its user gave it."""

    name: str
    picture: Picture


class Store:
    """A database and its picture folder. Safe for several threads."""

    def __init__(self, database: Database, folder: PictureFolder) -> None:
        self.database = database
        self.folder = folder
        self._lock_file: int | None = None

    @classmethod
    def open(cls, data: Path, url: str | None = None) -> Store:
        """Open or make a store in the folder `data`; the database is `data/station.db` or `url`."""
        try:
            folder = PictureFolder(data / "pictures")
        except OSError as error:
            raise InputError(f"the store {data} cannot be made: {error}") from error
        return cls(Database.open(url or f"sqlite:///{data / 'station.db'}"), folder)

    def claim(self) -> None:
        """Be the only server of this store. Raises InputError where another one runs."""
        path = self.folder.root / "server.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise InputError(
                f"another server uses the store {self.folder.root.parent}: stop it, or give --data"
            ) from error
        self._lock_file = descriptor
        self.folder.clear_incoming()

    def close(self) -> None:
        self.database.close()
        if self._lock_file is not None:
            os.close(self._lock_file)
            self._lock_file = None

    def receive(self, source: BinaryIO, name: str) -> Upload:
        """Keep an uploaded picture: file first, then its row."""
        picture = self.folder.receive(source, name)
        with self.database.write() as connection:
            _record_picture(connection, picture)
        return Upload(name, picture)

    def find_picture(self, sha256: str) -> Path | None:
        """The file of a picture that the database knows, or None."""
        with self.database.read() as connection:
            suffix = connection.scalar(
                sa.select(pictures.c.suffix).where(pictures.c.sha256 == sha256)
            )
        return None if suffix is None else self.folder.find(sha256, suffix)

    def accept(
        self, uploads: Sequence[Upload], product_id: int | None, request_key: str | None
    ) -> tuple[str, list[Task]]:
        """Record a job durably; (its id, its tasks). A repeated `request_key` gives the first
        job's id and no tasks, so that a client may ask again after a broken connection."""
        job_id = uuid.uuid4().hex
        now = write_time()
        try:
            with self.database.write() as connection:
                name = ""
                if product_id is not None:
                    name = read_product(connection, product_id).name
                connection.execute(
                    sa.insert(jobs).values(
                        id=job_id, request_key=request_key, total=len(uploads), created_at=now
                    )
                )
                tasks = [
                    Task(
                        new_id(
                            connection.execute(
                                sa.insert(inspections).values(
                                    job_id=job_id,
                                    place=place,
                                    product_id=product_id,
                                    product_name=name,
                                    picture=upload.picture.sha256,
                                    name=upload.name,
                                    state="queued",
                                    attempts=0,
                                    created_at=now,
                                )
                            )
                        ),
                        product_id,
                    )
                    for place, upload in enumerate(uploads)
                ]
        except IntegrityError:
            earlier = self.find_job(request_key)
            if earlier is None:
                raise
            return earlier, []
        return job_id, tasks

    def find_job(self, request_key: str | None) -> str | None:
        """The job that a request key made, or None."""
        if request_key is None:
            return None
        with self.database.read() as connection:
            return connection.scalar(sa.select(jobs.c.id).where(jobs.c.request_key == request_key))

    def load_waiting(self) -> list[Task]:
        """Accepted pictures that are not done, oldest first."""
        query = (
            sa.select(inspections.c.id, inspections.c.product_id, inspections.c.attempts)
            .where(inspections.c.state == "queued")
            .order_by(inspections.c.id)
        )
        with self.database.read() as connection:
            return [Task(*row) for row in connection.execute(query)]

    def begin(self, ids: Sequence[int], attempts: int) -> list[Any]:
        """Keep the number of this attempt at each and return its row with the picture's suffix."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(inspections)
                .where(inspections.c.id.in_(ids), inspections.c.state == "queued")
                .values(attempts=attempts)
            )
            query = (
                sa.select(inspections, pictures.c.suffix)
                .join(pictures, inspections.c.picture == pictures.c.sha256)
                .where(inspections.c.id.in_(ids), inspections.c.state == "queued")
                .order_by(inspections.c.id)
            )
            return list(connection.execute(query))

    def finish(
        self,
        inspection_id: int,
        finding: Finding,
        *,
        threshold: float | None = None,
        reference: str | None = None,
        masks: Sequence[Picture] = (),
        anomaly_map: Picture | None = None,
    ) -> bool:
        """Record a result whose pictures are in the folder; False where there already is one."""
        kept = [("mask", place, mask) for place, mask in enumerate(masks)]
        kept += [("map", 0, anomaly_map)] if anomaly_map is not None else []
        is_failed = finding.error is not None
        values = {
            "state": "failed" if is_failed else "done",
            "finished_at": write_time(),
            "verdict": finding.verdict,
            "decision": decide(finding, threshold),
            "threshold": threshold,
            "anomaly_score": finding.anomaly_score,
            "detector_score": finding.detector_score,
            "uncertainty": measure_uncertainty(finding),
            "seconds": finding.seconds,
            "model": finding.model[:400],
            "weights_sha256": finding.weights_sha256,
            "template_id": finding.template_id[:80],
            "reference": reference,
            "finding": build_finding_line(finding),
            "words": gather_words(finding.reasoning, finding.defects),
            "error": None if finding.error is None else clean(finding.error),
        }
        with self.database.write() as connection:
            changed = connection.execute(
                sa.update(inspections)
                .where(inspections.c.id == inspection_id, inspections.c.state == "queued")
                .values(**values)
            )
            if changed.rowcount != 1:
                return False
            for kind, place, picture in kept:
                _record_picture(connection, picture)
                connection.execute(
                    sa.insert(inspection_pictures).values(
                        inspection_id=inspection_id, kind=kind, place=place, picture=picture.sha256
                    )
                )
        return True


def gather_words(reasoning: str, defects: Iterable[Defect]) -> str:
    """What a search of inspections looks through: the reasoning, labels and descriptions."""
    told = (f"{defect.label} {defect.description}" for defect in defects)
    return clean("\n".join([reasoning, *told]))


def new_id(made: sa.CursorResult[Any]) -> int:
    """The key of the row that an insert made."""
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])


def read_product(connection: Connection, product_id: int) -> Any:
    """A product's row. Raises LookupError where there is none."""
    row = connection.execute(sa.select(products).where(products.c.id == product_id)).first()
    if row is None:
        raise LookupError(f"no product {product_id}")
    return row


def _record_picture(connection: Connection, picture: Picture) -> None:
    """Keep a picture's row, and when it last came: `prune` leaves to a young one the time until a
    row names it."""
    now = write_time()
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(
        insert(pictures)
        .values(
            sha256=picture.sha256,
            suffix=picture.suffix,
            width=picture.width,
            height=picture.height,
            num_bytes=picture.num_bytes,
            created_at=now,
        )
        .on_conflict_do_update(index_elements=[pictures.c.sha256], set_={"created_at": now})
    )
