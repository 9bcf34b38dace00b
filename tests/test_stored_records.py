"""A records file of any length is opened without reading its records, which come when asked for."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from record_files import GOOD, write_lines, write_picture

from anomalyr1.data import record_checks, records
from anomalyr1.data.records import join_records, load_records
from anomalyr1.types import InputError


def test_a_record_is_read_only_when_it_is_asked_for(tmp_path: Path) -> None:
    path = write_lines(tmp_path, GOOD, "", "{", GOOD | {"record_id": "last"})
    opened = load_records(path, validate=False)
    assert len(opened) == 3
    assert (opened[0].record_id, opened[-1].record_id) == ("a", "last")
    with pytest.raises(InputError, match=r"records\.jsonl:3: is not JSON"):
        opened[1]
    with pytest.raises(IndexError):
        opened[3]


def test_slices_and_joined_files_read_their_own_lines(tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        lines = [GOOD | {"record_id": f"{name}{number}"} for number in range(4)]
        files.append(load_records(write_lines(folder, *lines), validate=False))
    joined = join_records([files[0][1:], files[1][:2]])
    expected = ["one1", "one2", "one3", "two0", "two1"]
    assert [record.record_id for record in joined] == expected
    assert [joined[index].record_id for index in range(5)] == expected
    assert [record.record_id for record in joined[::-2]] == ["two1", "one3", "one1"]
    assert {record.image_path.parent.name for record in joined[3:]} == {"two"}
    for_a_worker = pickle.loads(pickle.dumps(joined))
    assert list(for_a_worker) == list(joined)
    assert not join_records([])


@pytest.mark.parametrize("seed", range(8))
def test_lines_are_found_wherever_a_block_of_the_file_ends(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(records, "_BLOCK_BYTES", int(rng.integers(1, 40)))
    parts, expected = ["\ufeff" if seed % 2 else ""], []
    for number in range(1, 30):
        kind = rng.integers(0, 4)
        if kind < 2:
            name = f"r{number}" + "ü\u2028" * int(rng.integers(0, 9))
            line = json.dumps(GOOD | {"record_id": name}, ensure_ascii=False)
            parts.append(" \t"[: int(rng.integers(0, 3))] + line + "\r"[: int(rng.integers(0, 2))])
            expected.append((number, name))
        else:
            parts.append(("", " \t \r")[kind - 2])
    text = parts[0] + "\n".join(parts[1:]) + "\n"[: int(rng.integers(0, 2))]
    path = tmp_path / "records.jsonl"
    path.write_bytes(text.encode())
    found = load_records(path, validate=False)
    named = [(found.line_number(index), record.record_id) for index, record in enumerate(found)]
    assert named == expected


def test_only_as_many_records_as_are_wanted_are_checked(tmp_path: Path) -> None:
    write_picture(tmp_path / "nut.png")
    path = write_lines(tmp_path, GOOD, GOOD | {"record_id": "b", "image_path": "gone.png"}, "{")
    assert [record.record_id for record in load_records(path, limit=1)] == ["a"]
    with pytest.raises(InputError, match=r":2: record b: picture .*gone\.png"):
        load_records(path, limit=2)


def test_every_repetition_of_an_id_is_told(tmp_path: Path) -> None:
    write_picture(tmp_path / "nut.png")
    names = ["a", "b", "a", "c", "b", "a"]
    path = write_lines(tmp_path, *(GOOD | {"record_id": name} for name in names))
    with pytest.raises(InputError) as caught:
        load_records(path)
    told = [line.removeprefix(f"{path}:") for line in str(caught.value).splitlines()]
    assert told == [
        "3 problems:",
        "3: record a: id already used on line 1; rename it",
        "5: record b: id already used on line 2; rename it",
        "6: record a: id already used on line 1; rename it",
    ]


def test_a_long_file_is_checked_though_few_pictures_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_checks, "_AT_ONCE", 2)
    monkeypatch.setattr(record_checks, "_PICTURES_KNOWN", 1)
    for name in ("nut.png", "other.png", "third.png"):
        write_picture(tmp_path / name)
    pictures = ["nut.png", "other.png", "gone.png", "nut.png", "third.png", "other.png", "nut.png"]
    path = write_lines(
        tmp_path,
        *(
            GOOD | {"record_id": str(number), "image_path": name, "reference_paths": ["third.png"]}
            for number, name in enumerate(pictures)
        ),
    )
    with pytest.raises(InputError) as caught:
        load_records(path)
    told = str(caught.value).splitlines()
    assert told[0] == "2 problems:"
    assert told[1].startswith(f"{path}:3: record 2: picture ")
    assert "third.png is its own reference" in told[2] and told[2].startswith(f"{path}:5: ")
