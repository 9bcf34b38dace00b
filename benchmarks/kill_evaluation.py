"""Kills `anomalyr1 evaluate mmad` with SIGKILL at random moments and goes on, again and again.

    python benchmarks/kill_evaluation.py --data MMAD --times 20 --out kills.json -- --model nano

After each kill the same command is given again until it ends; answers.jsonl and the scores must
have the bytes of a run that was not killed. What stands behind `--` goes to `evaluate mmad`.
Prints one line a kill and exits with 1 where the bytes differ.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

COMPARED = ("answers.jsonl", "config.json", "scores.csv", "scores.json", "scores_strict.csv",
            "scores_strict.json")  # fmt: skip


def run(command: list[str], *, answers: Path | None = None, kill_at: int = 0) -> None:
    """Run to the end, or kill once `answers` holds `kill_at` bytes (0: as soon as it is there)."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    while answers is not None and process.poll() is None:
        if answers.is_file() and answers.stat().st_size >= kill_at:
            process.kill()
            process.communicate()
            return
        time.sleep(0.001)
    _, said = process.communicate()
    if process.returncode != 0:
        raise SystemExit(said.decode(errors="replace"))


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
    random = Random(given.seed)
    kills = []
    with tempfile.TemporaryDirectory() as scratch:
        whole, killed = Path(scratch) / "whole", Path(scratch) / "killed"
        base = [sys.executable, "-m", "anomalyr1", "evaluate", "mmad", "--data", str(given.data)]
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
            print(f"{number + 1:3}  at byte {moment:7}  {written:5} answers  {told}")  # noqa: T201
    if given.out is not None:
        given.out.write_text(json.dumps({"kills": kills}, indent=2) + "\n")
    return int(any(kill["differ"] for kill in kills))


if __name__ == "__main__":
    sys.exit(main())
