"""The bundled detector: frozen features, distances to normal references and a learned dense head.

Two sources of evidence in one small network: what defects look like (learned on synthetic ones)
and how far each patch is from the given normal pictures. Runs on onnxruntime.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from anomalyr1.detectors import distances
from anomalyr1.detectors.distances import (
    Features,
    Memory,
    build_memory,
    compute_distances,
    leave_out,
)
from anomalyr1.detectors.reference_cache import Computed, ReferenceCache, open_cache
from anomalyr1.detectors.regions import (
    RegionView,
    judge_regions,
    propose_regions,
    read_regions,
    view_region,
)
from anomalyr1.types import Anomaly, InputError

WORKING_AREA = 448 * 448
"""Pictures are resized to about this many pixels, aspect kept, sides multiples of 32."""

TOP_SHARE = 0.001
"""A picture's score is the mean of this share of its highest map logits."""

REGIONS_NAME = "regions.onnx"

_MEMORIES_KEPT = 8


@dataclass(frozen=True, slots=True)
class Calibrated:
    """References with what they teach about the scale of the map: `shift` in logits."""

    memory: Memory | None
    shift: float


class PatchMemoryDetector:
    """Loaded once; references' features and calibration are kept by content, sets of two or more
    on disk too where a cache is given."""

    def __init__(
        self, backbone: Any, head: Any, regions: Any = None, cache: ReferenceCache | None = None
    ) -> None:
        """Open sessions of the networks; without `regions`, the map's stay as they are."""
        self._backbone = backbone
        self._head = head
        self._regions = regions
        self._cache = cache
        self._calibrated: OrderedDict[bytes, Calibrated] = OrderedDict()
        self._hashed: tuple[Sequence[Image.Image], bytes] | None = None

    @classmethod
    def load(
        cls, folder: Path, num_threads: int | None = None, *, keep_references: bool = False
    ) -> PatchMemoryDetector:
        """Read `backbone.onnx`, `head.onnx` and, where it is there, `regions.onnx` from a folder;
        `keep_references`: on disk, too, for the next run (see `reference_cache`). Raises InputError
        when one of the first two is missing."""
        networks = (folder / "backbone.onnx", folder / "head.onnx")
        backbone, head = (open_session(path, num_threads) for path in networks)
        path = folder / REGIONS_NAME
        regions = open_session(path, num_threads) if path.is_file() else None
        code = (Path(__file__), Path(distances.__file__))
        return cls(backbone, head, regions, open_cache(networks, code) if keep_references else None)

    def detect(self, picture: Image.Image, references: Sequence[Image.Image]) -> Anomaly:
        """Map (h, w) float32 at stride 4 of the working size and score, both sigmoid of logits; and
        the map's regions, as the network for them judges them."""
        features, channels, logits = self._look(picture, references)
        anomaly = build_anomaly(logits)
        if self._regions is None:
            return anomaly
        proposed = propose_regions(anomaly.anomaly_map)
        seen = read_regions(self._regions, features, channels, logits, proposed)
        return replace(anomaly, regions=judge_regions(seen))

    def view(
        self, picture: Image.Image, references: Sequence[Image.Image]
    ) -> tuple[tuple[int, int], list[RegionView]]:
        """The height and width of the map in cells, and what there is to see of the regions that
        are proposed in it."""
        features, channels, logits = self._look(picture, references)
        proposed = propose_regions(build_anomaly(logits).anomaly_map)
        height, width = logits.shape
        views = [view_region(features, channels, logits, region) for region in proposed]
        return (height, width), views

    def _look(
        self, picture: Image.Image, references: Sequence[Image.Image]
    ) -> tuple[Features, NDArray[np.float32], NDArray[np.float32]]:
        """Features, distance channels, and the calibrated logits of the map."""
        calibrated = self._calibrate(references)
        features = self.features(picture)
        channels = build_channels(features, calibrated.memory)
        return features, channels, run_head(self._head, features, channels) - calibrated.shift

    def features(self, picture: Image.Image) -> Features:
        """Features of an RGB picture at strides 4, 8 and 16 of its working size."""
        return compute_features(self._backbone, picture)

    def _logits(self, features: Features, memory: Memory | None) -> NDArray[np.float32]:
        return run_head(self._head, features, build_channels(features, memory))

    def _calibrate(self, references: Sequence[Image.Image]) -> Calibrated:
        if not references:
            return Calibrated(None, 0.0)
        key = self._find_key(references)
        if key not in self._calibrated:
            computed = self._compute(key, references)
            shift = compute_shift(computed.scores) if computed.scores else 0.0
            self._calibrated[key] = Calibrated(computed.memory, shift)
            while len(self._calibrated) > _MEMORIES_KEPT:
                self._calibrated.popitem(last=False)
        self._calibrated.move_to_end(key)
        return self._calibrated[key]

    def _find_key(self, references: Sequence[Image.Image]) -> bytes:
        """The content of references. A tuple of the call before is taken to hold what it held: to
        hash large references for every picture costs more than to prepare the picture."""
        if self._hashed is not None and self._hashed[0] is references:
            return self._hashed[1]
        key = _content_key(references)
        self._hashed = (references, key) if isinstance(references, tuple) else None
        return key

    def _compute(self, key: bytes, references: Sequence[Image.Image]) -> Computed:
        """The references' memory and left-out scores, from disk where they are kept there."""
        cache = self._cache if len(references) > 1 else None
        computed = cache.recall(key) if cache is not None else None
        if computed is None:
            memory = build_memory([self.features(reference) for reference in references])
            computed = Computed(memory, self._score_left_out(memory))
            if cache is not None:
                cache.keep(key, computed)
        return computed

    def _score_left_out(self, memory: Memory) -> tuple[float, ...]:
        """How much each reference, left out, excites the map; empty for a single one."""
        if len(memory.references) < 2:
            return ()
        return tuple(
            compute_score(self._logits(features, leave_out(memory, index)))
            for index, features in enumerate(memory.references)
        )


def open_session(path: Path, num_threads: int | None = None) -> Any:
    """An onnxruntime CPU session, held to `num_threads` or else to OMP_NUM_THREADS where that is
    set, which onnxruntime itself ignores. Raises InputError naming a file that is not there."""
    import onnxruntime

    if not path.is_file():
        raise InputError(f"{path} is missing: the detector is not complete; reinstall anomalyr1")
    options = onnxruntime.SessionOptions()
    given = os.environ.get("OMP_NUM_THREADS", "")
    if num_threads is None and given.isascii() and given.isdigit():
        num_threads = int(given)
    if num_threads is not None:
        options.intra_op_num_threads = num_threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        str(path), sess_options=options, providers=["CPUExecutionProvider"]
    )


def compute_features(backbone: Any, picture: Image.Image) -> Features:
    """Features (C, H, W) of an RGB picture from an open backbone session."""
    resized = picture.resize(working_size(picture.size), Image.Resampling.BILINEAR)
    pixels = np.asarray(resized, np.float32).transpose(2, 0, 1)[None]
    return tuple(level[0] for level in backbone.run(None, {"picture": pixels}))


def working_size(size_wh: tuple[int, int]) -> tuple[int, int]:
    """Width and height in pixels near WORKING_AREA, multiples of 32, between 96 and 1536."""
    width, height = size_wh
    scale = (WORKING_AREA / (width * height)) ** 0.5
    sides = [min(1536, max(96, 32 * round(side * scale / 32))) for side in (width, height)]
    return sides[0], sides[1]


def build_channels(features: Features, memory: Memory | None) -> NDArray[np.float32]:
    """Distance channels (7, H/4, W/4): six distances and whether there was a reference."""
    height, width = features[0].shape[1:]
    channels = np.zeros((7, height, width), np.float32)
    if memory is not None:
        channels[:6] = compute_distances(features, memory)
        channels[6] = 1.0
    return channels


def run_head(head: Any, features: Features, channels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Map logits (H/4, W/4) from an open head session."""
    inputs = {
        "stride4": features[0][None],
        "stride8": features[1][None],
        "stride16": features[2][None],
        "distances": channels[None],
    }
    logits: NDArray[np.float32] = head.run(None, inputs)[0][0, 0]
    return logits


def compute_score(logits: NDArray[np.float32]) -> float:
    """Mean of the highest TOP_SHARE of a map's logits."""
    count = max(1, round(TOP_SHARE * logits.size))
    return float(np.partition(logits.ravel(), -count)[-count:].mean())


def compute_shift(scores: Sequence[float]) -> float:
    """Logits to subtract so that left-out normal pictures stay below the decision line.

    The mean score of the references, plus their spread, is brought down to 0 where it lies above
    -1; quiet products are not pushed up. Few references are believed less: k / (k + 1).
    """
    values = np.asarray(scores)
    excess = float(values.mean() + values.std()) + 1.0
    return max(0.0, excess) * len(values) / (len(values) + 1.0)


def build_anomaly(logits: NDArray[np.float32]) -> Anomaly:
    """Sigmoid of the map's logits, and of the mean of the highest of them."""
    return Anomaly(
        anomaly_map=(1.0 / (1.0 + np.exp(-logits))).astype(np.float32),
        score=float(1.0 / (1.0 + np.exp(-compute_score(logits)))),
    )


def _content_key(pictures: Sequence[Image.Image]) -> bytes:
    digest = blake2b(digest_size=16)
    for picture in pictures:
        digest.update(repr(picture.size).encode())
        digest.update(picture.tobytes())
    return digest.digest()
