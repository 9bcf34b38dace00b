"""Kills `anomalyr1 evaluate mmad` with SIGKILL at random moments and goes on, again and again.

    python benchmarks/kill_evaluation.py --data MMAD --times 20 --out kills.json -- --model nano

After each kill the same command is given again until it ends; answers.jsonl and the scores must
have the bytes of a run that was not killed. What stands behind `--` goes to `evaluate mmad`.
Prints one line a kill and exits with 1 where the bytes differ.

Every run is a process of its own, forked from this one, which has imported the package and torch
and computed nothing: that saves the seconds in which a process starts.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from random import Random

COMPARED = ("answers.jsonl", "config.json", "scores.csv", "scores.json", "scores_strict.csv",
            "scores_strict.json")  # fmt: skip


def evaluate(arguments: list[str]) -> None:
    """The command itself, in a process of its own; what it prints is not shown."""
    from anomalyr1.cli import main as run_cli

    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    sys.argv = ["anomalyr1", "evaluate", "mmad", *arguments]
    run_cli()


def run(arguments: list[str], *, answers: Path | None = None, kill_at: int = 0) -> None:
    """Run to the end, or kill once `answers` holds `kill_at` bytes (0: as soon as it is there)."""
    process = multiprocessing.get_context("fork").Process(target=evaluate, args=(arguments,))
    process.start()
    while answers is not None and process.is_alive():
        if answers.is_file() and answers.stat().st_size >= kill_at:
            process.kill()
            process.join()
            return
        time.sleep(0.001)
    process.join()
    if process.exitcode != 0:
        told = " ".join(["anomalyr1 evaluate mmad", *arguments])
        raise SystemExit(f"exit code {process.exitcode}: give it alone to see why: {told}")


def read_bytes(folder: Path) -> dict[str, bytes]:
    """What is compared; a file that is not there is empty."""
    paths = ((name, folder / name) for name in COMPARED)
    return {name: path.read_bytes() if path.is_file() else b"" for name, path in paths}


def count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="Write what was found as JSON.")
    parser.add_argument("options", nargs="*", help="For evaluate mmad, behind --.")
    given = parser.parse_args()
    import anomalyr1.engines.transformers_engine
    import anomalyr1.questioning  # noqa: F401 - the imports are what forked processes share

    random = Random(given.seed)
    kills = []
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        base = ["--data", str(given.data)]
        run([*base, *given.options, "--out", str(whole)])
        expected = read_bytes(whole)
        for number in range(given.times):
            shutil.rmtree(killed, ignore_errors=True)
            path = killed / "answers.jsonl"
            moment = random.randrange(len(expected["answers.jsonl"]) + 1)
            run([*base, *given.options, "--out", str(killed)], answers=path, kill_at=moment)
            written = count_lines(path)
            run([*base, *given.options, "--out", str(killed)])
            found = read_bytes(killed)
            other = [name for name in COMPARED if found[name] != expected[name]]
            kills.append({"killed_at_byte": moment, "answers_then": written, "differ": other})
            told = "the same bytes" if not other else "DIFFER: " + ", ".join(other)
            line = f"{number + 1:3}  at byte {moment:7}  {written:5} answers  {told}"
            print(line, flush=True)  # noqa: T201
    if given.out is not None:
        given.out.write_text(json.dumps({"kills": kills}, indent=2) + "\n")
    return int(any(kill["differ"] for kill in kills))


if __name__ == "__main__":
    sys.exit(main())
