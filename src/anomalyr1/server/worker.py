"""The one thread that owns the model: a bounded queue, batches of one product, calls between.

The database holds what was accepted; this queue is its shadow in memory. A task that a kill
interrupts is still "queued" there and is taken up at the next start, alone: a picture that kills
the server takes no other with it twice, and one that merely was in work is soon done.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import OperationalError

from anomalyr1.images import load_image
from anomalyr1.inspector import Inspection, Inspector
from anomalyr1.reporting.maps import build_map_picture
from anomalyr1.server.metrics import Metrics
from anomalyr1.server.products import keep_calibration, load_product
from anomalyr1.server.promotions import FIRST_MODEL, find_latest_promotion
from anomalyr1.server.store import Store, Task
from anomalyr1.types import Finding, InputError, Record
from anomalyr1.weights import hash_weights

MOST_REFERENCES = 16
MOST_ATTEMPTS = 8
"""Tries of a picture, the first among others and the rest alone; if none ends it is given up."""
_LOOK_FOR_MODEL_SECONDS = 2.0
_RETRY_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Worker:
    """Runs inspections one batch at a time. Methods are safe to call from any thread.

    `load_model` makes an Inspector of a model's name and may raise InputError; `ring` is called
    after every result. With `pinned`, promotions in the store are ignored.
    """

    def __init__(
        self,
        store: Store,
        load_model: Callable[[str], Inspector],
        model: str | None,
        *,
        metrics: Metrics,
        ring: Callable[[], None],
        batch_size: int = 8,
        max_waiting: int = 256,
    ) -> None:
        self.max_waiting = max_waiting
        self.model = ""
        self.problem = ""
        self.pinned = model is not None
        self._asked_model = model
        self._store, self._load_model, self._metrics, self._ring = store, load_model, metrics, ring
        self._batch_size = batch_size
        self._inspector: Inspector | None = None
        self._tasks: deque[Task] = deque()
        self._calls: deque[tuple[Callable[[Inspector], Any], Future[Any]]] = deque()
        self._was_fresh = False  # the last batch had never been tried before
        self._reserved = 0
        self._running = 0
        self._stop_at: float | None = None
        self._looked_at = float("-inf")
        self._tried = -1  # the promotion that was last acted on; 0 is the first model
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    @property
    def is_ready(self) -> bool:
        return self._inspector is not None and self._stop_at is None

    @property
    def weights_sha256(self) -> str:
        """The content hash of the loaded weights; empty while nothing is loaded."""
        return "" if self._inspector is None else self._inspector.weights_sha256

    @property
    def num_waiting(self) -> int:
        return len(self._tasks) + self._reserved + self._running

    def start(self) -> None:
        """Take up what an earlier server accepted, load the model, begin."""
        self._tasks.extend(self._store.load_waiting())
        self._thread.start()

    def stop(self, drain_seconds: float) -> None:
        """Finish accepted work for at most so long; the rest stays in the store."""
        with self._changed:
            self._stop_at = time.monotonic() + drain_seconds
            self._changed.notify_all()
        self._thread.join(drain_seconds + 30.0)

    def reserve(self, count: int) -> bool:
        """Hold places in the queue; False where it is full. A request of more pictures than the
        queue holds is taken where nothing waits: it would else never be."""
        with self._changed:
            if self.num_waiting and self.num_waiting + count > self.max_waiting:
                return False
            self._reserved += count
            return True

    def fill(self, reserved: int, tasks: Iterable[Task]) -> None:
        """Give reserved places to accepted tasks; those that are left become free."""
        with self._changed:
            self._reserved -= reserved
            self._tasks.extend(tasks)
            self._changed.notify_all()

    def call(self, function: Callable[[Inspector], Any]) -> Future[Any] | None:
        """Run `function(inspector)` in the model's thread between batches; None where full."""
        with self._changed:
            if len(self._calls) >= max(1, self.max_waiting // 4) or self._stop_at is not None:
                return None
            future: Future[Any] = Future()
            self._calls.append((function, future))
            self._changed.notify_all()
            return future

    def _run(self) -> None:
        while True:
            self._choose_model()
            call, batch = None, []
            with self._changed:
                if self._inspector is None or not (self._tasks or self._calls):
                    if self._stop_at is not None:
                        return
                    self._changed.wait(_LOOK_FOR_MODEL_SECONDS)
                    continue  # a model may have been promoted meanwhile
                if self._stop_at is not None and time.monotonic() > self._stop_at:
                    return
                call = self._calls.popleft() if self._calls else None
                batch = self._take_batch()
                self._running = len(batch)
            if call is not None and call[1].set_running_or_notify_cancel():
                self._answer(*call)
            if batch:
                try:
                    self._inspect(batch)
                except (OSError, OperationalError):  # disk or database: no fault of the pictures
                    _log.exception("the store fails; a batch is tried until it does not")
                    time.sleep(_RETRY_SECONDS)
                    self.fill(0, batch)
                except Exception:  # noqa: BLE001 - the tasks stay queued in the store
                    _log.exception("a batch could not be recorded; it is tried again")
                    time.sleep(_RETRY_SECONDS)
                    self.fill(0, [replace(task, attempts=task.attempts + 1) for task in batch])
            self._running = 0

    def _answer(self, function: Callable[[Inspector], Any], future: Future[Any]) -> None:
        assert self._inspector is not None
        try:
            future.set_result(function(self._inspector))
        except Exception as error:  # noqa: BLE001 - raised again by who asked
            future.set_exception(error)

    def _choose_model(self) -> None:
        """Load the model that was asked for or promoted; keep the present one where that fails."""
        if time.monotonic() - self._looked_at < _LOOK_FOR_MODEL_SECONDS:
            return
        self._looked_at = time.monotonic()
        wanted, number = "", self._tried
        try:
            made = None if self.pinned else find_latest_promotion(self._store)
            number = 0 if made is None else made.id
            if number == self._tried:
                return
            wanted = self._asked_model or (FIRST_MODEL if made is None else made.model)
            expected = None if made is None else made.weights_sha256
            if expected and hash_weights(wanted) != expected:
                raise InputError("the weights are not those that were promoted: promote it again")
            self._inspector = self._load_model(wanted)
            self.model, self.problem, self._tried = wanted, "", number
        except InputError as error:
            self._tried = number  # it stays unusable: the next promotion is tried
            self.problem = f"{wanted}: {error}"
            _log.error("model %s", self.problem)
        except Exception:  # noqa: BLE001 - the present model goes on
            _log.exception("the model could not be chosen")

    def _take_batch(self) -> list[Task]:
        """Pictures of one product that were never tried, or one alone that was.

        A picture whose first try was interrupted comes first. One that also died alone may kill the
        server: it comes after those that died alone less often, in turns with fresh batches, so
        that neither waits for the other for ever."""
        if not self._tasks:
            return []
        fresh = [task for task in self._tasks if not task.attempts]
        tried = [task for task in self._tasks if task.attempts]
        first = min(tried, key=lambda task: (task.attempts, task.inspection_id), default=None)
        if first and (first.attempts == 1 or self._was_fresh or not fresh):
            batch = [first]
        else:
            batch = [task for task in fresh if task.product_id == fresh[0].product_id]
            batch = batch[: self._batch_size]
        self._was_fresh = first not in batch
        for task in batch:
            self._tasks.remove(task)
        return batch

    def _inspect(self, batch: list[Task]) -> None:
        assert self._inspector is not None
        attempts = batch[0].attempts  # of all: none, or the batch is of one
        begun = self._store.begin([task.inspection_id for task in batch], attempts + 1)
        if attempts >= MOST_ATTEMPTS:
            for row in begun:
                self._fail(row, f"given up after {MOST_ATTEMPTS} attempts that did not end")
            return
        rows = {row.id: row for row in begun}
        if not rows:
            return
        threshold, sources, records = self._build_records(batch[0], list(rows.values()))
        self._metrics.batch_size.observe(len(records))
        try:
            results = list(self._inspector.inspect_records(records, batch_size=len(records)))
        except Exception:  # noqa: BLE001 - whatever a model raises, one picture must not take others
            _log.exception("a batch of %d failed", len(records))
            results = [self._inspect_alone(record) for record in records]
        for result in results:
            row = rows[int(result.finding.record_id)]
            reference = sources.get(result.finding.reference or "")
            self._finish(row, result, threshold, reference)

    def _inspect_alone(self, record: Record) -> Inspection:
        assert self._inspector is not None
        try:
            return next(iter(self._inspector.inspect_records([record])))
        except Exception:  # noqa: BLE001 - told in the log and in the finding
            _log.exception("picture %s failed", record.record_id)
            finding = Finding(
                record.record_id,
                "",
                "unread",
                model=self._inspector.model,
                weights_sha256=self._inspector.weights_sha256,
                error="internal error; see the log",
            )
            return Inspection(finding)

    def _build_records(
        self, task: Task, rows: list[Any]
    ) -> tuple[float | None, dict[str, str], list[Record]]:
        """The product's threshold, the pictures behind its references' paths, and the records."""
        name, knowledge, threshold = "", "", None
        references: list[Any] = []
        if task.product_id is not None:
            try:
                product, references = load_product(self._store, task.product_id)
                name, knowledge, threshold = product.name, product.knowledge, product.threshold
            except LookupError:  # deleted meanwhile: the picture alone is judged
                _log.warning("product %d is gone", task.product_id)
        folder = self._store.folder
        references = references[:MOST_REFERENCES]
        paths = tuple(folder.find(item.picture, item.suffix) for item in references)
        records = [
            Record(
                str(row.id),
                folder.find(row.picture, row.suffix),
                category=name,
                knowledge=knowledge,
                reference_paths=paths,
            )
            for row in rows
        ]
        sources = {str(path): item.picture for path, item in zip(paths, references, strict=True)}
        return threshold, sources, records

    def _finish(
        self, row: Any, result: Inspection, threshold: float | None, reference: str | None
    ) -> None:
        path = str(self._store.folder.find(row.picture, row.suffix))
        error = result.finding.error
        finding = replace(
            result.finding,
            image=row.name,
            reference=None,
            error=None if error is None else error.replace(path, row.name),
        )
        keep = self._store.folder.keep
        masks = [keep(mask.astype("uint8") * 255) for mask in result.masks]
        anomaly_map = None
        if result.anomaly_map is not None:
            anomaly_map = keep(build_map_picture(result.anomaly_map))
        if self._store.finish(
            row.id,
            finding,
            threshold=threshold,
            reference=reference,
            masks=masks,
            anomaly_map=anomaly_map,
        ):
            self._metrics.inspections.labels(finding.verdict).inc()
            self._metrics.seconds.observe(finding.seconds)
        self._ring()

    def _fail(self, row: Any, reason: str) -> None:
        finding = Finding(str(row.id), row.name, "unread", error=reason)
        self._store.finish(row.id, finding)
        self._metrics.inspections.labels("unread").inc()
        self._ring()


def calibrate(store: Store, product_id: int, inspector: Inspector) -> None:
    """Keep each reference's detector score against the others; none without a detector or with
    one reference."""
    _, references = load_product(store, product_id)
    pictures = [
        load_image(store.folder.find(item.picture, item.suffix))
        for item in references[:MOST_REFERENCES]
    ]
    found = [
        inspector.detect(picture, pictures[:place] + pictures[place + 1 :])
        for place, picture in enumerate(pictures)
        if len(pictures) > 1
    ]
    scores = [anomaly.score for anomaly in found if anomaly is not None]
    ids = [item.id for item in references]
    keep_calibration(store, product_id, ids, scores, inspector.weights_sha256)
