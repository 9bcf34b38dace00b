"""The store: products, jobs, inspections, reviews and promotions in a database, pictures beside.

Files come first and rows after, so that no row names a file that is not there. What is accepted
is one transaction, and so is a result: a job that a kill interrupts is done once, after restart.
"""

from __future__ import annotations

import fcntl
import json
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from anomalyr1.reporting.findings import build_finding_line
from anomalyr1.server.database import Database
from anomalyr1.server.decisions import decide, measure_uncertainty
from anomalyr1.server.pictures import Picture, PictureFolder
from anomalyr1.server.tables import (
    inspection_pictures,
    inspections,
    jobs,
    pictures,
    product_references,
    products,
    promotions,
    reviews,
    write_time,
)
from anomalyr1.types import Finding, InputError

MOST_ATTEMPTS = 5
"""A picture that took the server down this often is given up."""


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
                    name = _read_product(connection, product_id).name
                connection.execute(
                    sa.insert(jobs).values(
                        id=job_id, request_key=request_key, total=len(uploads), created_at=now
                    )
                )
                tasks = [
                    Task(
                        _new_id(
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

    def begin(self, ids: Sequence[int]) -> list[Any]:
        """Count an attempt at each and return its row with the picture's suffix."""
        with self.database.write() as connection:
            connection.execute(
                sa.update(inspections)
                .where(inspections.c.id.in_(ids), inspections.c.state == "queued")
                .values(attempts=inspections.c.attempts + 1)
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
            "template_id": finding.template_id[:80],
            "reference": reference,
            "finding": build_finding_line(finding),
            "error": finding.error,
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

    def create_product(self, name: str, knowledge: str = "") -> int:
        """A new product's id. Raises InputError where the name is taken."""
        try:
            with self.database.write() as connection:
                made = connection.execute(
                    sa.insert(products).values(
                        name=name, knowledge=knowledge, created_at=write_time()
                    )
                )
                return _new_id(made)
        except IntegrityError as error:
            raise InputError(
                f"a product is already called {name!r}: choose another name"
            ) from error

    def change_product(self, product_id: int, values: dict[str, Any]) -> None:
        """Set columns of a product. Raises LookupError, or InputError for a name that is taken."""
        try:
            with self.database.write() as connection:
                _read_product(connection, product_id)
                if values:
                    connection.execute(
                        sa.update(products).where(products.c.id == product_id).values(**values)
                    )
        except IntegrityError as error:
            raise InputError("another product has this name: choose another") from error

    def delete_product(self, product_id: int) -> None:
        """Remove a product; its inspections stay, with its name."""
        with self.database.write() as connection:
            _read_product(connection, product_id)
            connection.execute(sa.delete(products).where(products.c.id == product_id))

    def load_product(self, product_id: int) -> tuple[Any, list[Any]]:
        """A product's row, and its references' rows with their suffix. Raises LookupError."""
        query = (
            sa.select(product_references, pictures.c.suffix)
            .join(pictures, product_references.c.picture == pictures.c.sha256)
            .where(product_references.c.product_id == product_id)
            .order_by(product_references.c.id)
        )
        with self.database.read() as connection:
            product = _read_product(connection, product_id)
            return product, list(connection.execute(query))

    def add_reference(self, product_id: int, upload: Upload) -> None:
        """Add a reference picture; one that is already there stays as it is."""
        with self.database.write() as connection:
            _read_product(connection, product_id)
            present = sa.select(product_references.c.id).where(
                product_references.c.product_id == product_id,
                product_references.c.picture == upload.picture.sha256,
            )
            if connection.scalar(present) is None:
                connection.execute(
                    sa.insert(product_references).values(
                        product_id=product_id,
                        picture=upload.picture.sha256,
                        name=upload.name,
                        created_at=write_time(),
                    )
                )
                _forget_calibration(connection, product_id)

    def remove_reference(self, product_id: int, reference_id: int) -> None:
        """Take a reference from a product. Raises LookupError where it is not there."""
        with self.database.write() as connection:
            gone = connection.execute(
                sa.delete(product_references).where(
                    product_references.c.id == reference_id,
                    product_references.c.product_id == product_id,
                )
            )
            if gone.rowcount == 0:
                raise LookupError(f"no reference {reference_id} of product {product_id}")
            _forget_calibration(connection, product_id)

    def add_review(
        self,
        inspection_id: int,
        reviewer: str,
        verdict: str,
        regions: Sequence[dict[str, Any]],
        comment: str,
    ) -> int:
        """A person's judgement; the latest that is not retracted counts. Raises LookupError."""
        with self.database.write() as connection:
            state = connection.scalar(
                sa.select(inspections.c.state).where(inspections.c.id == inspection_id)
            )
            if state is None:
                raise LookupError(f"no inspection {inspection_id}")
            made = connection.execute(
                sa.insert(reviews).values(
                    inspection_id=inspection_id,
                    reviewer=reviewer,
                    created_at=write_time(),
                    verdict=verdict,
                    regions=json.dumps(list(regions)),
                    comment=comment,
                )
            )
            return _new_id(made)

    def retract_review(self, review_id: int, person: str) -> None:
        """Undo a review; who and when stay written. Raises LookupError."""
        with self.database.write() as connection:
            changed = connection.execute(
                sa.update(reviews)
                .where(reviews.c.id == review_id, reviews.c.retracted_at.is_(None))
                .values(retracted_at=write_time(), retracted_by=person)
            )
            if changed.rowcount == 0:
                raise LookupError(f"no review {review_id} that stands")

    def promote(self, model: str, person: str, action: str = "promote", comment: str = "") -> None:
        """Make a checkpoint the station's; a running server loads it before its next picture."""
        with self.database.write() as connection:
            connection.execute(
                sa.insert(promotions).values(
                    model=model,
                    action=action,
                    person=person,
                    created_at=write_time(),
                    comment=comment,
                )
            )

    def roll_back(self, person: str, comment: str = "") -> str:
        """Return to the model before the current one: its name. Raises InputError without one."""
        names = [row.model for row in self.load_promotions()]
        current = names[-1] if names else "nano"
        earlier = [name for name in names if name != current]
        if not names or (not earlier and current == "nano"):
            raise InputError("no earlier model: nothing was promoted")
        model: str = earlier[-1] if earlier else "nano"
        self.promote(model, person, "rollback", comment)
        return model

    def load_promotions(self) -> list[Any]:
        """All promotions and rollbacks, oldest first."""
        with self.database.read() as connection:
            return list(connection.execute(sa.select(promotions).order_by(promotions.c.id)))

    def current_model(self) -> str | None:
        """The promoted model, or None where nothing was promoted."""
        query = sa.select(promotions.c.model).order_by(promotions.c.id.desc()).limit(1)
        with self.database.read() as connection:
            return connection.scalar(query)


def _new_id(made: sa.CursorResult[Any]) -> int:
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])


def _read_product(connection: Connection, product_id: int) -> Any:
    row = connection.execute(sa.select(products).where(products.c.id == product_id)).first()
    if row is None:
        raise LookupError(f"no product {product_id}")
    return row


def _forget_calibration(connection: Connection, product_id: int) -> None:
    connection.execute(
        sa.update(products).where(products.c.id == product_id).values(calibration=None)
    )


def _record_picture(connection: Connection, picture: Picture) -> None:
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    connection.execute(
        insert(pictures)
        .values(
            sha256=picture.sha256,
            suffix=picture.suffix,
            width=picture.width,
            height=picture.height,
            num_bytes=picture.num_bytes,
            created_at=write_time(),
        )
        .on_conflict_do_nothing()
    )
