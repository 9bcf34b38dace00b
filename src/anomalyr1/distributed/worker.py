"""What a worker of a batch job does: a block's number in, its shard written, counts out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from anomalyr1.distributed.attempts import Attempt, begin, end, mark
from anomalyr1.distributed.plan import Block, load_block
from anomalyr1.distributed.shards import Counts, build_row, build_shard, count_rows, read_counts
from anomalyr1.distributed.storage import exists, is_url, join, read_bytes, write_whole
from anomalyr1.images import IMAGE_SUFFIXES
from anomalyr1.inspector import Inspection
from anomalyr1.models import RecordInspector, build_inspector
from anomalyr1.types import Finding, InputError, Record, RefusedError

DOWNLOADS = 8
"""Pictures that a worker fetches from a store at a time."""

REFERENCE_SETS_KEPT = 4


@dataclass(frozen=True, slots=True)
class Job:
    """Where findings go and what makes them; the fields as in `build_inspector`."""

    destination: str
    model: str = "nano"
    hint: str = "auto"
    masks: str = "auto"
    sam2_model: str | None = None
    device: str = "auto"
    batch_size: int = 8
    seed: int = 0


def name_shard(number: int) -> str:
    """The file of a block's findings, below the job's destination.

    >>> name_shard(7)
    'findings/part-00000007.parquet'
    """
    return f"findings/part-{number:08d}.parquet"


class BlockWorker:
    """A process's inspector, and the references of the last few categories on its disk.

    Ray Data makes one a worker and calls it with batches of one block's number.
    """

    def __init__(self, job: Job, load: Callable[[Job], RecordInspector] | None = None) -> None:
        self._job = job
        self._inspector = (load or load_inspector)(job)
        self._scratch = tempfile.TemporaryDirectory(prefix="anomalyr1-")
        self._references: dict[tuple[str, ...], tuple[Path, ...]] = {}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        outcomes = [
            {"number": int(number), **asdict(self.work(int(number)))} for number in batch["id"]
        ]
        return {name: [outcome[name] for outcome in outcomes] for name in outcomes[0]}

    def work(self, number: int) -> Counts:
        """Inspect a block and write its shard, unless that is there."""
        place = join(self._job.destination, name_shard(number))
        if exists(place):
            return read_counts(place)
        attempt = begin(self._job.destination, number)
        block = load_block(self._job.destination, number)
        rows = (
            self._inspect_carefully(block, attempt) if attempt.is_careful else self.inspect(block)
        )
        write_whole(place, build_shard(rows))
        end(self._job.destination, number)
        return count_rows(rows)

    def _inspect_carefully(self, block: Block, attempt: Attempt) -> list[dict[str, Any]]:
        """Picture by picture, without those at which a worker died."""
        died = InputError("the worker died at this picture: inspect it alone to see why")
        rows = []
        for place, (image, record_id) in enumerate(
            zip(block.images, block.record_ids, strict=True)
        ):
            if place in attempt.fatal:
                rows.append(build_row(self._fail(block, place, died)))
                continue
            mark(self._job.destination, block.number, attempt, place)
            rows += self.inspect(replace(block, images=(image,), record_ids=(record_id,)))
        return rows

    def inspect(self, block: Block) -> list[dict[str, Any]]:
        """The rows of a block, in its order; a picture that cannot be inspected is one too."""
        with tempfile.TemporaryDirectory(dir=self._scratch.name) as folder:
            try:
                references = self._fetch_references(block.references)
            except InputError as error:
                places = range(len(block.images))
                return [build_row(self._fail(block, place, error)) for place in places]
            with ThreadPoolExecutor(DOWNLOADS) as pool:
                paths = list(
                    pool.map(
                        lambda place: _fetch_or_fail(block.images[place], Path(folder), place),
                        range(len(block.images)),
                    )
                )
            records = {
                place: Record(
                    block.record_ids[place],
                    path,
                    category=block.category,
                    knowledge=block.knowledge,
                    reference_paths=references,
                )
                for place, path in enumerate(paths)
                if isinstance(path, Path)
            }
            inspections = self._inspect(list(records.values()))
            sources = dict(zip(map(str, references), block.references, strict=True))
            # Each one is a row before the next: masks of large pictures do not pile up.
            return [
                build_row(self._fail(block, place, path))
                if isinstance(path, InputError)
                else self._build_row(block, place, next(inspections), sources)
                for place, path in enumerate(paths)
            ]

    def _inspect(self, records: Sequence[Record]) -> Iterator[Inspection]:
        """As `inspect_records`; a batch at which that fails is done one by one."""
        size, done = self._job.batch_size, 0
        try:
            for one in self._inspector.inspect_records(
                records, batch_size=size, seed=self._job.seed
            ):
                done += 1
                yield one
            return
        except RefusedError:
            raise
        except Exception as error:  # noqa: BLE001 - one picture must not cost a job of a million
            reason = f"{type(error).__name__}: {str(error)[:300]}"
        if len(records) == 1:
            yield Inspection(_build_failure(records[0], reason, self._inspector.model))
            return
        for record in records[done : done + size]:
            yield from self._inspect([record])
        yield from self._inspect(records[done + size :])

    def _build_row(
        self, block: Block, place: int, inspection: Inspection, sources: dict[str, str]
    ) -> dict[str, Any]:
        finding = inspection.finding
        reference = sources.get(finding.reference or "")
        named = replace(finding, image=block.images[place], reference=reference)
        if named.error and is_url(named.image):
            named = replace(named, error=named.error.replace(finding.image, named.image))
        return build_row(named, inspection.masks)

    def _fail(self, block: Block, place: int, error: InputError) -> Finding:
        record = Record(block.record_ids[place], Path(block.images[place]), category=block.category)
        failure = _build_failure(record, str(error), self._inspector.model)
        return replace(failure, image=block.images[place])

    def _fetch_references(self, places: tuple[str, ...]) -> tuple[Path, ...]:
        if places not in self._references:
            if len(self._references) >= REFERENCE_SETS_KEPT:
                old = self._references.pop(next(iter(self._references)))
                for folder in {path.parent for path in old if self._is_fetched(path)}:
                    shutil.rmtree(folder, ignore_errors=True)
            folder = Path(tempfile.mkdtemp(dir=self._scratch.name))
            self._references[places] = tuple(
                fetch(place, folder, number) for number, place in enumerate(places)
            )
        return self._references[places]

    def _is_fetched(self, path: Path) -> bool:
        return path.is_relative_to(self._scratch.name)


def load_inspector(job: Job) -> RecordInspector:
    """The inspector of a job, held to the threads that Ray gives its worker."""
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    if threads:
        import cv2

        cv2.setNumThreads(threads)
    return build_inspector(
        job.model, hint=job.hint, masks=job.masks, sam2_model=job.sam2_model, device=job.device
    )


def fetch(place: str, folder: Path, number: int) -> Path:
    """The local path of a picture: its own, or that of a bounded copy in `folder`.

    A copy is named by a number and a known suffix, never by what the store calls it.
    """
    if not is_url(place):
        return Path(place)
    suffix = PurePosixPath(place).suffix.lower()
    path = folder / f"{number}{suffix if suffix in IMAGE_SUFFIXES else '.png'}"
    path.write_bytes(read_bytes(place))
    return path


def _fetch_or_fail(place: str, folder: Path, number: int) -> Path | InputError:
    try:
        return fetch(place, folder, number)
    except InputError as error:
        return error


def _build_failure(record: Record, reason: str, model: str) -> Finding:
    return Finding(
        record.record_id,
        str(record.image_path),
        "unread",
        model=model,
        category=record.category,
        error=reason,
    )
