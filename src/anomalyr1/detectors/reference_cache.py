"""What a detector has computed of normal references, kept on disk for the next run.

One file a set of references: a hash of what follows, then numpy arrays without pickle, written
whole or not at all. A file that is damaged counts as not there; those not used for longest go when
the folder grows too large.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomalyr1.detectors.distances import NUM_LEVELS, Features, Memory, collect_banks
from anomalyr1.images import write_bytes_atomic

FOLDER_VARIABLE = "ANOMALYR1_CACHE"
"""Environment variable: the folder, or "off"."""

MAX_BYTES = 512 * 1024**2
"""What the folder may hold: about 60 sets of 4 references."""

_SUFFIX = ".references"
_SEAL_BYTES = 32


@dataclass(frozen=True, slots=True)
class Computed:
    """References' memory, and the score in logits of each of them against the others."""

    memory: Memory
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class ReferenceCache:
    """A folder of what was computed. `version` (bytes) stands for networks and code: what another
    version computed is not found.

    Nothing here fails: what cannot be read is computed again, what cannot be written is not kept.
    """

    folder: Path
    version: bytes

    def recall(self, content: bytes) -> Computed | None:
        """What was kept for references of this content, None where there is nothing whole."""
        path = self._path(content)
        try:
            written = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        seal, payload = written[:_SEAL_BYTES], written[_SEAL_BYTES:]
        if seal != _seal(payload):
            return None
        with np.load(io.BytesIO(payload), allow_pickle=False) as arrays:
            return _unpack({name: arrays[name] for name in arrays.files})

    def keep(self, content: bytes, computed: Computed) -> None:
        """Write what was computed, and remove what has not been used for longest."""
        buffer = io.BytesIO()
        np.savez(buffer, **_pack(computed))  # type: ignore[arg-type]
        payload = buffer.getvalue()
        with suppress(OSError):
            # Features tell something of the pictures: others on this machine cannot read them.
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_bytes_atomic(self._path(content), _seal(payload) + payload)
            _remove_oldest(self.folder)

    def _path(self, content: bytes) -> Path:
        name = blake2b(self.version + content, digest_size=16).hexdigest()
        return self.folder / f"{name}{_SUFFIX}"


def open_cache(networks: Sequence[Path], code: Sequence[Path]) -> ReferenceCache | None:
    """The cache of detectors with these networks and this code; None where it is switched off or
    there is no home folder for it."""
    import onnxruntime

    folder = find_cache_folder()
    if folder is None:
        return None
    digest = blake2b(f"{np.__version__} {onnxruntime.__version__}".encode(), digest_size=16)
    try:
        for path in (*networks, *code):
            digest.update(blake2b(path.read_bytes()).digest())
    except OSError:
        return None
    return ReferenceCache(folder, digest.digest())


def find_cache_folder() -> Path | None:
    """`$ANOMALYR1_CACHE`, or else `anomalyr1/references` in the user's cache folder; None where
    the variable is "off" or empty, or where there is no home folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen is not None:
        return None if chosen.strip().lower() in ("", "off") else Path(chosen)
    try:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(base) / "anomalyr1" / "references"


def _pack(computed: Computed) -> dict[str, NDArray[Any]]:
    memory = computed.memory
    arrays: dict[str, NDArray[Any]] = {
        f"features_{number}_{level}": features[level]
        for number, features in enumerate(memory.references)
        for level in range(NUM_LEVELS)
    }
    arrays["scores"] = np.array(computed.scores, np.float64)
    arrays["scale"] = np.array([memory.mean, memory.std], np.float64)
    arrays["aligned"] = np.array(memory.aligned, np.bool_)
    return arrays


def _unpack(arrays: dict[str, NDArray[Any]]) -> Computed:
    scores = tuple(arrays["scores"].tolist())
    references: list[Features] = [
        tuple(arrays[f"features_{number}_{level}"] for level in range(NUM_LEVELS))
        for number in range(len(scores))
    ]
    mean, std = (tuple(row) for row in arrays["scale"].tolist())
    banks = collect_banks(references)
    return Computed(Memory(banks, tuple(references), bool(arrays["aligned"]), mean, std), scores)


def _seal(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_SEAL_BYTES).digest()


def _remove_oldest(folder: Path) -> None:
    found = []
    for path in folder.glob(f"*{_SUFFIX}"):
        with suppress(OSError):  # another process may have removed it
            state = path.stat()
            found.append((state.st_mtime, state.st_size, path))
    total = sum(size for _used, size, _path in found)
    for _used, size, path in sorted(found):
        if total <= MAX_BYTES:
            break
        path.unlink(missing_ok=True)
        total -= size
