"""A batch job: plans the source once, lets Ray Data's workers write shards, closes the manifest.

The driver holds one number a block: pictures, findings and the plan stay with the workers and in
the destination. A shard is there whole or not at all and its name is its block's number, so that a
block which is done again replaces itself, and a job that is started again goes on.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from anomalyr1.distributed.plan import PLAN_FILE, Item, PlanSize, cut_blocks, write_plan
from anomalyr1.distributed.shards import Counts
from anomalyr1.distributed.storage import (
    clear_partial,
    exists,
    join,
    list_names,
    read_bytes,
    write_whole,
)
from anomalyr1.distributed.worker import BlockWorker, Job, name_shard
from anomalyr1.run_folder import CONFIG_FILE, build_config, check_config
from anomalyr1.types import InputError

MANIFEST_FILE = "manifest.json"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A block that is done."""

    number: int
    counts: Counts


@dataclass(frozen=True, slots=True)
class Pool:
    """Workers and where they run: `address` None starts Ray on this machine."""

    num_workers: int
    address: str | None = None
    gpus_per_worker: float = 0.0


def claim_destination(destination: str, settings: Mapping[str, object]) -> None:
    """Write config.json. Raises InputError where a job with other settings has written before."""
    place = join(destination, CONFIG_FILE)
    config = build_config(settings)
    if exists(place):
        check_config(destination, read_bytes(place), config)
    elif list_names(destination):
        raise InputError(f"{destination} is not empty and holds no job: choose another --out")
    write_whole(place, config)


def plan_job(destination: str, items: Iterator[Item], block_size: int) -> PlanSize:
    """The plan of an earlier start, or a new one. Items are read in the second case only, so that
    pictures which came since belong to another job."""
    place = join(destination, PLAN_FILE)
    if exists(place):
        return PlanSize(**json.loads(read_bytes(place)))
    return write_plan(destination, cut_blocks(items, block_size))


def run_job(job: Job, num_blocks: int, pool: Pool) -> Iterator[Outcome]:
    """Do all blocks on Ray Data; outcomes come as they are done, each block's once.

    A worker that dies is replaced and its block done again (see `attempts`). Raises InputError
    where Ray cannot be reached and where workers cannot start; what is written stays.
    """
    import ray
    from ray.data import ActorPoolStrategy
    from ray.data.exceptions import SystemException

    with _connect(pool):
        # Ray Data restarts actors and repeats their tasks without end unless it is told otherwise.
        # Numbers only: each worker reads its block's pictures from the plan.
        numbers = ray.data.range(num_blocks, override_num_blocks=-(-num_blocks // 1024))
        done = numbers.repartition(target_num_rows_per_block=1).map_batches(
            BlockWorker,
            fn_constructor_args=(job,),
            batch_size=1,
            batch_format="numpy",
            compute=ActorPoolStrategy(size=pool.num_workers, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            num_gpus=pool.gpus_per_worker,
        )
        seen = np.zeros(num_blocks, np.bool_)
        try:
            for row in done.iter_rows():
                number = int(row.pop("number"))
                if not seen[number]:
                    seen[number] = True
                    yield Outcome(number, Counts(**{name: int(row[name]) for name in row}))
        except (ray.exceptions.RayError, SystemException) as error:
            raise InputError(
                f"the job stopped: {_find_cause(error)}; finished shards stay, run the same "
                "command again to continue"
            ) from error
        if not seen.all():
            missing = np.flatnonzero(~seen)
            raise InputError(
                f"{len(missing)} blocks were not done, the first is {missing[0]}: run the same "
                "command again"
            )


def close_job(
    destination: str, size: PlanSize, outcomes: Mapping[str, int], settings: Mapping[str, object]
) -> dict[str, object]:
    """Write and return the manifest: what a reader needs to know that nothing is missing.

    Raises InputError where the rows are not as many as the plan's pictures.
    """
    for folder in ("attempts", "findings", "plan"):
        clear_partial(join(destination, folder))
    manifest: dict[str, object] = {
        "anomalyr1": importlib.metadata.version("anomalyr1"),
        "settings": dict(settings),
        "blocks": size.num_blocks,
        "first_shard": name_shard(0),
        "last_shard": name_shard(size.num_blocks - 1),
        "masks": "COCO RLE, compressed counts; size is [height, width]",
        **outcomes,
    }
    if outcomes["rows"] != size.num_pictures:
        raise InputError(
            f"{destination} holds {outcomes['rows']} rows for {size.num_pictures} pictures: a "
            "shard was changed; remove it and run the same command again"
        )
    content = json.dumps(manifest, indent=2) + "\n"
    write_whole(join(destination, MANIFEST_FILE), content.encode())
    return manifest


def add_counts(totals: dict[str, int], counts: Counts) -> None:
    """Add a block's counts to the totals, in place."""
    for name, value in asdict(counts).items():
        totals[name] = totals.get(name, 0) + value


@contextmanager
def _connect(pool: Pool) -> Iterator[None]:
    """Ray, quiet and without telling anyone; one that runs already is used and left running."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    if ray.is_initialized():
        yield
        return
    local: dict[str, Any] = {}
    if pool.address is None:
        # One more than the workers: for the tasks that hand out numbers.
        # On loopback, so that nobody else's machine can reach it.
        local = {
            "num_cpus": pool.num_workers + 1,
            "include_dashboard": False,
            "_node_ip_address": "127.0.0.1",
        }
    try:
        ray.init(pool.address, log_to_driver=False, logging_level=logging.ERROR, **local)
    # Ray raises bare Exceptions here, such as of a machine too busy to start it in time.
    except Exception as error:
        where = pool.address or "this machine"
        raise InputError(f"Ray at {where} cannot be reached: {_find_cause(error)}") from error
    try:
        # What goes wrong in a worker is told once, by the InputError of `run_job`.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        yield
    finally:
        ray.shutdown()


def _find_cause(error: BaseException) -> str:
    """The last line of what went wrong in a worker."""
    cause: Any = getattr(error, "cause", None)
    text = str(cause if cause is not None else error).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else type(error).__name__
