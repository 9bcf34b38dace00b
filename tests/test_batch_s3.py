"""Batch jobs on a store that speaks S3: a real server on loopback, the real client."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from builders import NORMAL, anomalous, make_inspector
from moto.server import ThreadedMotoServer
from test_batch_ray import fill, finish, start

from anomalyr1.distributed.job import add_counts, claim_destination, close_job, plan_job
from anomalyr1.distributed.plan import list_items
from anomalyr1.distributed.reading import iterate_rows, read_manifest, write_batch_report
from anomalyr1.distributed.storage import read_bytes, write_whole
from anomalyr1.distributed.worker import BlockWorker, Job
from anomalyr1.types import InputError


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    # The client keeps its endpoint: an instance of another test would ask a server that is gone.
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    bucket = f"parts-{secrets.token_hex(4)}"  # the server keeps its buckets from test to test
    fsspec.filesystem("s3").mkdir(bucket)
    yield f"s3://{bucket}"
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()


def upload(store: str, folder: Path, count: int) -> None:
    fill(folder, count)
    for path in sorted(folder.iterdir()):
        write_whole(f"{store}/photos/nut/{path.name}", path.read_bytes())
    write_whole(f"{store}/photos/nut/bad.png", b"no picture")


def test_a_job_reads_from_a_bucket_and_writes_to_it(tmp_path: Path, store: str) -> None:
    upload(store, tmp_path / "in", 6)

    def script(prompt: Any, pictures: Any) -> str:
        return anomalous((4, 4, 20, 16)) if "0003" in prompt.record_id else NORMAL

    destination = f"{store}/found"
    for _ in range(2):  # the second time, all is there
        claim_destination(destination, {"model": "scripted"})
        size = plan_job(destination, list_items(f"{store}/photos"), 4)
        worker = BlockWorker(Job(destination), lambda job: make_inspector(script))
        totals: dict[str, int] = {}
        for number in range(size.num_blocks):
            add_counts(totals, worker.work(number))
        manifest = close_job(destination, size, totals, {"model": "scripted"})
    assert (manifest["rows"], manifest["errors"], manifest["anomalous"]) == (7, 1, 1)
    rows = list(iterate_rows(destination))
    assert rows[0]["image"] == f"{store}/photos/nut/0000.png"
    assert {row["category"] for row in rows} == {"nut"}
    report = write_batch_report(destination, tmp_path / "report", 2)
    # The anomalous one; behind it comes the one that cannot be read, without a picture.
    assert report.read_text().count("data:image/jpeg") == 1


def test_a_bucket_that_is_not_there_is_named(store: str) -> None:
    with pytest.raises(InputError, match="s3://nowhere/a"):
        list(list_items("s3://nowhere/a"))
    with pytest.raises(InputError, match=r"gone\.png"):
        read_bytes(f"{store}/gone.png")


@pytest.mark.slow
def test_workers_of_ray_read_from_a_bucket_and_write_to_it(tmp_path: Path, store: str) -> None:
    upload(store, tmp_path / "in", 12)
    job = start(f"{store}/photos", "--out", f"{store}/found", "--model", "random",
                "--num-workers", "1", "--block-size", "5", "--json")  # fmt: skip
    manifest = finish(job)
    assert (manifest["rows"], manifest["errors"]) == (13, 1)
    assert read_manifest(f"{store}/found") == manifest
