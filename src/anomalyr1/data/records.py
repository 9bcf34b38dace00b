"""Records as JSON Lines: write them, read them, and refuse a faulty file before any model loads.

One JSON object a line, its keys the fields of `Record`, defaults left out; paths are relative to
the file's folder. A file of any size is read line by line: no more than an index of it is kept.
"""

from __future__ import annotations

import json
from array import array
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from anomalyr1.data.record_checks import find_problems
from anomalyr1.data.record_json import build_record, record_to_json
from anomalyr1.images import write_bytes_atomic
from anomalyr1.types import InputError, Record

MAX_PROBLEMS = 20

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLOCK_BYTES = 2**24


class StoredRecords(Sequence[Record]):
    """Records that stay in their files: each is read when it is asked for, its paths made absolute.

    `places` (n, 3) int64 are a record's file in `paths`, where its line begins in bytes, and the
    line's number. A slice is such a sequence again. Reading a line that is no record raises
    InputError, naming file and line.
    """

    __slots__ = ("_paths", "_places", "_roots")

    def __init__(self, paths: Sequence[Path], places: NDArray[np.int64]) -> None:
        self._paths, self._places = tuple(paths), places
        self._roots = tuple(path.parent.resolve() for path in paths)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> StoredRecords: ...
    def __getitem__(self, index: int | slice) -> Record | StoredRecords:
        if isinstance(index, slice):
            return StoredRecords(self._paths, self._places[index])
        file, start, _number = self._places[index].tolist()
        with self._paths[file].open("rb") as stream:
            stream.seek(start)
            line = stream.readline()
        return self._build(index, line)

    def __iter__(self) -> Iterator[Record]:
        return (self._build(index, line) for index, line in enumerate(self._read_lines()))

    def read_whole(self, problems: Problems) -> Iterator[tuple[int, Record]]:
        """The records that can be read, each with its index; `problems` gets the others."""
        for index, line in enumerate(self._read_lines()):
            try:
                record = self._parse(index, line)
            except InputError as error:
                problems.add(index, str(error))
            else:
                yield index, record

    def name_line(self, index: int) -> str:
        """The file and line of a record, as messages name them."""
        return f"{self._paths[self._places[index, 0]]}:{self.line_number(index)}"

    def line_number(self, index: int) -> int:
        """A record's line, counted from 1, blank lines included."""
        return int(self._places[index, 2])

    def _read_lines(self) -> Iterator[bytes]:
        for file, places in groupby(self._places, key=lambda place: int(place[0])):
            with self._paths[file].open("rb") as stream:
                here = 0
                for start in (int(place[1]) for place in places):
                    if start != here:
                        stream.seek(start)
                    line = stream.readline()
                    here = start + len(line)
                    yield line

    def _build(self, index: int, line: bytes) -> Record:
        try:
            return self._parse(index, line)
        except InputError as error:
            raise InputError(f"{self.name_line(index)}: {error}") from error

    def _parse(self, index: int, line: bytes) -> Record:
        return build_record(_parse_line(line), self._roots[self._places[index, 0]])


class Problems:
    """How many problems were found, and those that come first in the file."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[tuple[int, int, str]] = []

    def add(self, index: int, text: str) -> None:
        """Note what is wrong with the record at `index`."""
        insort(self.first, (index, self.count, text))
        del self.first[MAX_PROBLEMS:]
        self.count += 1


def write_records(path: str | Path, records: Iterable[Record]) -> None:
    """Write records as JSON Lines, whole or not at all; paths relative to the file's folder."""
    path = Path(path)
    lines = [
        json.dumps(record_to_json(record, path.parent), ensure_ascii=False) for record in records
    ]
    write_bytes_atomic(path, "".join(line + "\n" for line in lines).encode())


def load_records(
    path: str | Path, *, validate: bool = True, limit: int | None = None
) -> StoredRecords:
    """Open the records of a JSON Lines file, the first `limit` of them; blank lines are skipped.

    `validate` reads all of them once, opens every picture and mask (see `validate_record`), in
    threads, with a progress bar on stderr for more than 200 records, and raises one InputError
    that lists up to `MAX_PROBLEMS` problems, repeated ids and malformed lines among them, each
    with file, line number and record id, and the number of further ones. Without it a malformed
    line is found when it is read.
    """
    path = Path(path)
    try:
        places = _index_lines(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    if not len(places):
        raise InputError(f"{path}: holds no records; write one JSON object a line")
    records = StoredRecords([path], places)[:limit]
    if validate:
        _validate(records)
    return records


def join_records(files: Sequence[StoredRecords]) -> StoredRecords:
    """The records of several files, in order."""
    paths: list[Path] = []
    places = [np.empty((0, 3), np.int64)]
    for records in files:
        places.append(records._places + np.array([len(paths), 0, 0]))
        paths += records._paths
    return StoredRecords(paths, np.concatenate(places))


def validate_record(record: Record) -> None:
    """Raise one InputError with all that is wrong with a record and its files.

    Found: a missing, damaged or cut-off picture or reference; an unreadable mask or one of another
    size; a box outside the picture or without area; a mask or regions without a label; a normal
    record with regions or a mask that is not blank; a picture that is its own reference; a
    question's answer not among its options. Pictures are checked by `images.check_image`, which
    finds cut-off files without a full decode; masks are read in full.
    """
    (found,) = find_problems([record], 1)
    if found:
        texts = [f"record {record.record_id}: {text}" for text in found]
        raise InputError(_summary(texts[:MAX_PROBLEMS], len(texts)))


def _validate(records: StoredRecords) -> None:
    """Read all records and their files once, in memory that does not grow but for 16 bytes each."""
    problems = Problems()
    hashes, indices = array("q"), array("q")
    asked: deque[tuple[int, str]] = deque()

    def read() -> Iterator[Record]:
        for index, record in records.read_whole(problems):
            hashes.append(hash(record.record_id))
            indices.append(index)
            asked.append((index, record.record_id))
            yield record

    for found in find_problems(read(), len(records)):
        index, record_id = asked.popleft()
        for text in found:
            problems.add(index, f"record {record_id}: {text}")
    _find_repeated(records, np.array(hashes), np.array(indices), problems)
    if problems.count:
        shown = [f"{records.name_line(index)}: {text}" for index, _order, text in problems.first]
        raise InputError(_summary(shown, problems.count))


def _find_repeated(
    records: StoredRecords,
    hashes: NDArray[np.int64],
    indices: NDArray[np.int64],
    problems: Problems,
) -> None:
    """Add a problem for each record whose id an earlier one has; hashes alone do not decide."""
    order = np.argsort(hashes, kind="stable")
    alike = hashes[order]
    repeated = np.unique(alike[1:][alike[1:] == alike[:-1]])
    starts = np.searchsorted(alike, repeated, side="left")
    ends = np.searchsorted(alike, repeated, side="right")
    for start, end in zip(starts, ends, strict=True):
        first: dict[str, int] = {}
        for index in indices[order[start:end]].tolist():
            name = records[index].record_id
            earlier = first.setdefault(name, index)
            if earlier != index:
                line = records.line_number(earlier)
                problems.add(index, f"record {name}: id already used on line {line}; rename it")


def _index_lines(path: Path) -> NDArray[np.int64]:
    """Places (n, 3) of the lines that are not blank, as StoredRecords takes them."""
    starts, first_bytes = [], []
    with path.open("rb") as stream:
        begin = len(_BYTE_ORDER_MARK) if stream.read(3) == _BYTE_ORDER_MARK else 0
        stream.seek(begin)
        after_line_end = True
        while block := stream.read(_BLOCK_BYTES):
            letters = np.frombuffer(block, np.uint8)
            # Cut at "\n" alone: JSON text may hold U+2028, at which str.splitlines would cut too.
            local = np.flatnonzero(letters == ord("\n")) + 1
            local = np.concatenate([np.zeros(int(after_line_end), np.int64), local])
            after_line_end = block.endswith(b"\n")
            local = local[local < len(block)]
            starts.append(local + begin)
            first_bytes.append(letters[local])
            begin += len(block)
        if not starts:
            return np.empty((0, 3), np.int64)
        every = np.concatenate(starts)
        first = np.concatenate(first_bytes)
        kept = first != ord("\n")
        for line in np.flatnonzero(kept & np.isin(first, list(b" \t\r\v\f"))).tolist():
            stream.seek(int(every[line]))
            kept[line] = bool(stream.readline().strip())
    numbers = np.flatnonzero(kept)
    return np.stack([np.zeros_like(numbers), every[numbers], numbers + 1], axis=1)


def _parse_line(line: bytes) -> dict[str, Any]:
    try:
        data = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"is not UTF-8 text ({error}); give a JSON Lines file") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"is not JSON ({error}); write one JSON object a line") from error
    if not isinstance(data, dict):
        raise InputError(f"is a JSON {type(data).__name__}; write one JSON object a line")
    return data


def _summary(shown: Sequence[str], count: int) -> str:
    if count == 1:
        return shown[0]
    more = [f"... and {count - len(shown)} more"] if count > len(shown) else []
    return "\n".join([f"{count} problems:", *shown, *more])
