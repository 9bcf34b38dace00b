"""Batch jobs without Ray: sources, blocks, shards, what a worker does. Ray is in test_batch_ray."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from builders import NORMAL, anomalous, make_inspector, make_picture
from typer.testing import CliRunner

from anomalyr1 import cli
from anomalyr1.distributed import job
from anomalyr1.distributed.attempts import WHOLE_TRIES
from anomalyr1.distributed.job import Outcome, add_counts, claim_destination, close_job, plan_job
from anomalyr1.distributed.plan import (
    Item,
    PlanSize,
    cut_blocks,
    list_items,
    load_block,
    write_plan,
)
from anomalyr1.distributed.reading import iterate_rows
from anomalyr1.distributed.shards import (
    build_row,
    build_shard,
    count_rows,
    load_rows,
    parse_row,
    read_counts,
)
from anomalyr1.distributed.storage import exists, join, read_bytes, write_whole
from anomalyr1.distributed.worker import BlockWorker, Job, name_shard
from anomalyr1.inspector import Inspection, Inspector
from anomalyr1.prompts import INSPECTION_TEMPLATE_ID
from anomalyr1.types import Defect, Finding, InputError, Record
from anomalyr1.weights import hash_weights


def fill(folder: Path, *names: str) -> list[str]:
    return [str(make_picture(folder / name, level=90 + 9 * n)) for n, name in enumerate(names)]


def upload(bucket: str, folder: Path) -> None:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        write_whole(f"{bucket}/{path.relative_to(folder)}", path.read_bytes())


def judge(prompt: Any, pictures: Any) -> str:
    """Broken or normal by the record's name."""
    name = prompt.record_id.rpartition("/")[2]
    return anomalous((8, 8, 40, 32)) if "bad" in name else NORMAL


def start(
    destination: Path | str, items: Iterable[Item], size: int = 4, inspector: Any = None
) -> tuple[BlockWorker, PlanSize]:
    planned = write_plan(str(destination), cut_blocks(items, size))
    made = inspector or make_inspector(judge)
    return BlockWorker(Job(str(destination)), lambda job: made), planned


def test_a_row_brings_back_finding_and_masks(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), np.bool_)
    mask[5:20, 7:9] = True
    finding = Finding(
        "1", "s3://b/1\udcff.png", "anomalous", 0.75, 0.5, "because \udce9",
        (Defect("crack", "a crack", (7, 5, 9, 20), confidence=0.5), Defect("", "", (0, 0, 1, 1))),
        "raw", "ok", "nano", "inspect-v1", "nut", 0.25, image_size_wh=(64, 48),
    )  # fmt: skip
    write_whole(str(tmp_path / "a.parquet"), build_shard([build_row(finding, [mask])]))
    (row,) = load_rows(str(tmp_path / "a.parquet"))
    again, (mask_again,) = parse_row(row)
    cleaned = replace(finding, image="s3://b/1\ufffd.png", reasoning="because \ufffd")
    assert again == cleaned
    assert np.array_equal(mask_again, mask)
    assert row["defects"][0]["mask"]["size"] == [48, 64]
    assert row["defects"][1]["mask"] is None
    assert read_counts(str(tmp_path / "a.parquet")) == count_rows([row])


def test_a_worker_writes_the_rows_that_the_inspector_finds(tmp_path: Path) -> None:
    images = fill(tmp_path / "in", "1.png", "2_bad.png", "3.png", "4_bad.png", "5.png")
    items = list(list_items(str(tmp_path / "in")))
    worker, size = start(tmp_path / "out", items)
    outcome = worker({"id": np.arange(size.num_blocks)})
    assert outcome["number"] == [0, 1]
    assert outcome["rows"] == [4, 1] and outcome["anomalous"] == [2, 0]
    rows = [
        row for number in range(2) for row in load_rows(str(tmp_path / "out" / name_shard(number)))
    ]
    expected = make_inspector(judge).inspect_records([Record(name, Path(name)) for name in images])
    for row, inspection in zip(rows, expected, strict=True):
        finding, masks = parse_row(row)
        assert replace(finding, seconds=0) == replace(inspection.finding, seconds=0)
        assert len(masks) == len(inspection.masks)
        for one, other in zip(masks, inspection.masks, strict=True):
            assert np.array_equal(one, other)


def test_a_bad_picture_is_a_row_and_the_others_are_as_without_it(
    tmp_path: Path, bucket: str
) -> None:
    fill(tmp_path / "in", "1.png", "3_bad.png")
    (tmp_path / "in" / "2.png").write_bytes(b"cut off")
    (tmp_path / "in" / "4.png").write_bytes((tmp_path / "in" / "1.png").read_bytes()[:400])
    upload(bucket, tmp_path / "in")
    for source in (str(tmp_path / "in"), bucket):
        items = [*list_items(source), Item("gone", join(source, "gone.png"))]
        out = tmp_path / source.replace("/", "_")
        worker, _ = start(out, items, 8)
        counts = worker.work(0)
        assert (counts.rows, counts.normal, counts.anomalous, counts.errors) == (5, 1, 1, 3)
        rows = load_rows(str(out / name_shard(0)))
        for row in rows:
            if row["error"]:
                assert row["verdict"] == "unread"
                assert row["image"] in row["error"]


def test_references_of_a_store_are_fetched_once_for_a_category(tmp_path: Path, bucket: str) -> None:
    fill(tmp_path / "in", *(f"{n}.png" for n in range(6)))
    make_picture(tmp_path / "good" / "r.png", level=200)
    upload(bucket, tmp_path)
    reference = f"{bucket}/good/r.png"
    items = list(list_items(f"{bucket}/in", references=(reference,)))
    seen: list[int] = []

    def script(prompt: Any, pictures: Sequence[Any]) -> str:
        seen.append(len(pictures))
        return NORMAL

    worker, size = start(tmp_path / "out", items, 3, make_inspector(script, hint=False))
    worker.work(0)
    fsspec.filesystem("memory").rm("/bucket/good/r.png")
    worker.work(1)
    assert seen == [2] * 6
    rows = load_rows(str(tmp_path / "out" / name_shard(1)))
    assert {row["reference"] for row in rows} == {reference}
    fresh = BlockWorker(Job(str(tmp_path / "out")), lambda job: make_inspector(script))
    failed = fresh.inspect(load_block(str(tmp_path / "out"), 0))
    assert size.num_blocks == 2
    assert all(reference in row["error"] and row["verdict"] == "unread" for row in failed)


class Breaking:
    """An inspector that fails, as no inspector should, at pictures whose name says so."""

    model = "breaking"

    def __init__(self) -> None:
        self._inner: Inspector = make_inspector(judge)

    def inspect_records(
        self, records: Iterable[Record], *, batch_size: int = 8, seed: int = 0
    ) -> Iterator[Inspection]:
        for record in records:
            if "boom" in record.record_id:
                raise RuntimeError("out of memory")
            yield from self._inner.inspect_records([record])


def test_a_picture_that_breaks_the_model_costs_its_own_row_only(tmp_path: Path) -> None:
    names = [f"{n:02d}{'_boom' if n in (3, 11) else ''}.png" for n in range(14)]
    fill(tmp_path / "in", *names)
    worker, _ = start(tmp_path / "out", list_items(str(tmp_path / "in")), 20, Breaking())
    counts = worker.work(0)
    assert (counts.rows, counts.normal, counts.errors) == (14, 12, 2)
    rows = load_rows(str(tmp_path / "out" / name_shard(0)))
    assert [Path(row["image"]).name for row in rows] == names
    assert {row["error"] for row in rows} == {None, "RuntimeError: out of memory"}


def test_a_block_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    fill(tmp_path / "in", "1.png", "2_bad.png")
    worker, _ = start(tmp_path / "out", list_items(str(tmp_path / "in")))
    first = worker.work(0)

    def never(prompt: object, pictures: object) -> str:
        raise AssertionError("asked again")

    again = BlockWorker(Job(str(tmp_path / "out")), lambda job: make_inspector(never))
    assert again.work(0) == first


def test_a_picture_that_kills_its_worker_is_a_row_in_the_end(tmp_path: Path) -> None:
    fill(tmp_path / "in", *(f"{n}.png" for n in range(5)))

    class Killed(BaseException):
        """As SIGKILL: nothing in the worker gets to clean up."""

    def script(prompt: Any, pictures: Any) -> str:
        if prompt.record_id.endswith("/3.png"):
            raise Killed
        return NORMAL

    worker, _ = start(tmp_path / "out", list_items(str(tmp_path / "in")), 8, make_inspector(script))
    for _ in range(WHOLE_TRIES + 1):
        with pytest.raises(Killed):
            worker.work(0)
    counts = worker.work(0)
    assert (counts.rows, counts.normal, counts.errors) == (5, 4, 1)
    rows = load_rows(str(tmp_path / "out" / name_shard(0)))
    assert [Path(row["image"]).name for row in rows] == [f"{n}.png" for n in range(5)]
    assert "the worker died at this picture" in rows[3]["error"]
    assert not list((tmp_path / "out" / "attempts").iterdir())


def test_a_job_keeps_its_plan_and_its_settings(tmp_path: Path) -> None:
    fill(tmp_path / "in", "1.png", "2.png")
    out = str(tmp_path / "out")
    claim_destination(out, {"model": "nano"})
    size = plan_job(out, list_items(str(tmp_path / "in")), 1)
    fill(tmp_path / "in", "3.png")
    claim_destination(out, {"model": "nano"})
    assert plan_job(out, list_items(str(tmp_path / "in")), 1) == size == PlanSize(2, 2)
    with pytest.raises(InputError, match=r"other settings \(model was 'nano', is 'other'\)"):
        claim_destination(out, {"model": "other"})
    with pytest.raises(InputError, match="holds no job"):
        claim_destination(str(tmp_path / "in"), {})


def run_in_this_process(job: Job, num_blocks: int, pool: Any, *, most: int = 9) -> Iterator[Any]:
    """In Ray's place: at most so many blocks, and then the job is killed."""
    worker = BlockWorker(job, lambda job: make_inspector(judge))
    for number in range(num_blocks):
        if number == most:
            raise KeyboardInterrupt
        yield Outcome(number, worker.work(number))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (
            "anomalyr1.run_folder.describe_environment",
            lambda: {"anomalyr1": "99.0"},
            rf"anomalyr1 was '{re.escape(version('anomalyr1'))}', is '99\.0'",
        ),
        (
            "anomalyr1.prompts.INSPECTION_TEMPLATE_ID",
            "inspect-0",
            "prompt was 'inspect-.+', is 'inspect-0'",
        ),
        (
            "anomalyr1.models.hash_weights",
            lambda source: "0" * 64,
            "weights_sha256 was '[0-9a-f]+, is '0{40}",
        ),
    ],
)
def test_a_killed_job_goes_on_with_what_it_began_with_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, value: object, said: str
) -> None:
    fill(tmp_path / "in", "1.png", "2_bad.png", "3.png")
    out = tmp_path / "out"
    command = ["batch", str(tmp_path / "in"), "--out", str(out), "--block-size", "1", "--json"]
    monkeypatch.setattr(job, "run_job", partial(run_in_this_process, most=1))
    CliRunner().invoke(cli.app, command)
    written = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    monkeypatch.setattr(job, "run_job", run_in_this_process)
    with monkeypatch.context() as changed:
        changed.setattr(place, value)
        done = CliRunner().invoke(cli.app, command)
        assert isinstance(done.exception, InputError)
        assert re.search(rf"{said}.*choose another --out", str(done.exception))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == written
    done = CliRunner().invoke(cli.app, command)
    manifest = json.loads(done.stdout)
    assert (manifest["rows"], manifest["anomalous"]) == (3, 1)
    assert manifest["settings"]["prompt"] == INSPECTION_TEMPLATE_ID
    assert manifest["settings"]["weights_sha256"] == hash_weights("nano")


def test_weights_that_the_job_itself_fetched_are_named_when_it_goes_on(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    claim_destination(out, {"weights_sha256": None})
    claim_destination(out, {"weights_sha256": "a" * 64})
    with pytest.raises(InputError, match=r"weights_sha256 was 'aaa.*, is 'bbb"):
        claim_destination(out, {"weights_sha256": "b" * 64})


def test_a_manifest_is_written_only_where_no_row_is_missing(tmp_path: Path) -> None:
    fill(tmp_path / "in", *(f"{n}.png" for n in range(5)))
    out = str(tmp_path / "out")
    worker, size = start(out, list_items(str(tmp_path / "in")), 2)
    totals: dict[str, int] = {}
    add_counts(totals, worker.work(0))
    with pytest.raises(InputError, match="2 rows for 5 pictures"):
        close_job(out, size, totals, {})
    with pytest.raises(InputError, match="no manifest"):
        list(iterate_rows(out))
    for number in (1, 2):
        add_counts(totals, worker.work(number))
    manifest = close_job(out, size, totals, {"model": "scripted"})
    assert (manifest["rows"], manifest["normal"], manifest["blocks"]) == (5, 5, 3)
    assert len(list(iterate_rows(out))) == 5


def test_a_report_shows_the_most_anomalous_and_counts_all(tmp_path: Path, bucket: str) -> None:
    fill(tmp_path / "in", "1.png", "2_bad.png", "3.png", "4_bad.png", "5.png")
    upload(bucket, tmp_path / "in")
    destination = f"{bucket}/findings"
    worker, size = start(destination, list_items(bucket), 3)
    totals: dict[str, int] = {}
    for number in range(size.num_blocks):
        add_counts(totals, worker.work(number))
    close_job(destination, size, totals, {"model": "scripted"})
    run = CliRunner().invoke
    done = run(cli.app, ["report", destination, "--out", str(tmp_path / "r"), "--limit", "3"])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.count("data:image/jpeg") >= 3
    assert len(list((tmp_path / "r" / "pictures").iterdir())) == 3
    assert len(list((tmp_path / "r" / "masks").iterdir())) == 2
    missing = run(cli.app, ["report", str(tmp_path)])
    assert "no batch job" in str(missing.exception)


def test_storage_writes_whole_files_and_names_what_it_cannot_do(
    tmp_path: Path, bucket: str
) -> None:
    for root in (str(tmp_path / "a"), f"file://{tmp_path}/b", bucket):
        place = join(root, "deep/file.bin")
        assert not exists(place)
        write_whole(place, b"one")
        write_whole(place, b"two")
        assert read_bytes(place) == b"two" and exists(place)
        with pytest.raises(InputError, match="at most 2 are read"):
            read_bytes(place, max_bytes=2)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["file.bin", "file.bin"]


@pytest.mark.parametrize(
    "extra",
    [
        ["--model", "no/such/folder"],
        ["--masks", "magic"],
        ["--model", "openai:nowhere"],
        ["--engine", "magic"],
    ],
)
def test_what_cannot_work_is_said_before_anything_is_written(
    tmp_path: Path, extra: list[str]
) -> None:
    fill(tmp_path / "in", "1.png")
    done = CliRunner().invoke(
        cli.app, ["batch", str(tmp_path / "in"), "--out", str(tmp_path / "out"), *extra]
    )
    assert isinstance(done.exception, InputError)
    assert not (tmp_path / "out").exists()
