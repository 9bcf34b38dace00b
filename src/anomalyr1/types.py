"""Every value that travels between the parts of the system, and the exceptions users see.

Pure values: frozen, slotted, equal by content. Nothing here reads a file or loads a model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Label = Literal["normal", "anomalous"]
Status = Literal["ok", "no_answer", "malformed", "truncated", "refused"]
BoxFrame = Literal["absolute", "relative_1000"]
"""How a model family writes boxes: pixels of the resized picture it was shown (Qwen2.5-VL), or
thousandths of each side (Qwen3-VL)."""

Box = tuple[float, float, float, float]
"""x1, y1, x2, y2: floats, half-open, x to the right and y down."""


class InputError(ValueError):
    """Something the user handed in cannot be used; the message names it and says what to do."""


class RefusedError(InputError):
    """A model that would refuse every further request as well: the run is to stop."""


@dataclass(frozen=True, slots=True)
class Question:
    """A multiple-choice question: `options` maps letters to texts, `answer` is a letter or None.

    `is_verified`: whether its data set says that a person has checked it, None if it says nothing.
    """

    text: str
    options: dict[str, str]
    answer: str | None = None
    question_type: str = ""
    is_verified: bool | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """One defect. `box_xyxy` is in original-image pixels; `confidence` in [0, 1] or None."""

    box_xyxy: Box
    defect_type: str = ""
    description: str = ""
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class MaskPart:
    """One defect of a picture with a mask of its own, as MVTec LOCO gives them.

    `saturation_area`: with so many of its pixels found, the defect counts as found whole.
    """

    mask_path: Path
    saturation_area: int
    defect_type: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """One picture with what is known of it. `label` is None for a user's own photograph.

    `regions` are ground-truth boxes (original-image pixels) where the data set gives them;
    `reasoning` is a reference text for supervised training, empty elsewhere. Of a mask, pixels
    above `mask_threshold` of 255 are defect; `mask_path` may be a folder, whose pictures are then
    united. `similar_paths` and `random_paths` are normal pictures that a benchmark offers as
    references; `reference_paths` are those that are used.
    """

    record_id: str
    image_path: Path
    dataset: str = ""
    category: str = ""
    split: str = ""
    label: Label | None = None
    defect_type: str = ""
    mask_path: Path | None = None
    reference_paths: tuple[Path, ...] = ()
    knowledge: str = ""
    regions: tuple[Region, ...] = ()
    question: Question | None = None
    reasoning: str = ""
    mask_threshold: int = 127
    mask_parts: tuple[MaskPart, ...] = ()
    similar_paths: tuple[Path, ...] = ()
    random_paths: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One chat turn: `parts` are texts (str) and indices of pictures (int), in order."""

    role: Literal["system", "user", "assistant"]
    parts: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class HintRegion:
    """A region of a map as a prompt words it: box xyxy in the model's own frame, peak in per cent,
    where it lies in `geometry.grid_words`, and the kind of defect that it looks like, or ""."""

    box: tuple[int, int, int, int]
    peak: int
    place: str
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Listed:
    """What a prompt lists: the regions of a map, a question's options as (letter, text), and the
    word for the map's `strength`, none where there is no map."""

    regions: tuple[HintRegion, ...] = ()
    options: tuple[tuple[str, str], ...] = ()
    strength: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is put to a model. Integers in `messages[..].parts` index the pictures handed beside it.

    `template_id` names the wording and carries a hash of it. `listed` is what an answer may choose
    from.
    """

    record_id: str
    template_id: str
    messages: tuple[Message, ...]
    listed: Listed = Listed()


@dataclass(frozen=True, slots=True)
class Completion:
    """What a model wrote. `p_anomalous` is P(anomalous) / (P(anomalous) + P(normal)) where its
    reasoning decides or, where it has no such sentence, of the verdict asked for at once
    (`engines.verdicts`); None where no verdict was asked for. `image_sizes_wh` are
    the sizes, in pixels, of the pictures as the model saw them, in prompt order. A model of others
    may refuse, its text then being the refusal, or fail: `problem` says how."""

    record_id: str
    text: str
    num_tokens: int = 0
    finish_reason: Literal["stop", "length", "refusal", "error"] = "stop"
    token_logprobs: tuple[float, ...] = ()
    p_anomalous: float | None = None
    image_sizes_wh: tuple[tuple[int, int], ...] = ()
    sample_index: int = 0
    seed: int | None = None
    num_prompt_tokens: int = 0
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Response:
    """What could be read of a completion. Anything but status "ok" is unread: never "normal"."""

    status: Status
    reasoning: str = ""
    label: Label | None = None
    choice: str | None = None
    regions: tuple[Region, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one picture, as written to findings.jsonl.

    `verdict` is "normal", "anomalous" or "unread". `anomaly_score` (the model's) and
    `detector_score` are in [0, 1] or None. `weights_sha256` says which weights `model` stood for
    (see `weights.hash_weights`), empty where that is not known. Paths are relative to the run
    folder.
    """

    record_id: str
    image: str
    verdict: Literal["normal", "anomalous", "unread"]
    anomaly_score: float | None = None
    detector_score: float | None = None
    reasoning: str = ""
    defects: tuple[Defect, ...] = ()
    raw_text: str = ""
    status: str = ""
    model: str = ""
    template_id: str = ""
    category: str = ""
    seconds: float = 0.0
    error: str | None = None
    overlay: str | None = None
    anomaly_map: str | None = None
    reference: str | None = None
    image_size_wh: tuple[int, int] | None = None
    weights_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Defect:
    """One defect of a finding: box in original-image pixels, mask as a path in the run folder."""

    label: str
    description: str
    box_xyxy: Box
    mask: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """A number with what stands behind it: n cases, unread among them, a 95 % interval."""

    name: str
    subset: str
    value: float | None
    n: int
    n_unreadable: int = 0
    ci_low: float | None = None
    ci_high: float | None = None


@dataclass(frozen=True, slots=True)
class Hint:
    """What a detector says of a picture, as a prompt words it; `regions` are in reading order.

    `score` is 0 to 100: 50 is the decision line, and 5 more are one more logit.
    """

    score: int
    regions: tuple[HintRegion, ...] = ()


@dataclass(frozen=True, slots=True)
class SeenRegion:
    """A region that stands out in a map: box xyxy in cells of the map, its highest value in [0, 1],
    the kind of defect that it looks like, or "", and the IoU with a defect that its box is expected
    to have."""

    box_xyxy: Box
    peak: float
    kind: str = ""
    truth: float = 1.0


@dataclass(frozen=True, slots=True)
class Anomaly:
    """What a detector says of one picture.

    `anomaly_map`: float32 (H, W) in [0, 1], covering the whole picture at the detector's own
    resolution (resize to the picture's size to overlay); calibrated: 0.5 is the decision line.
    `score`: float in [0, 1], the picture's. `regions`: what the detector makes of the map's
    regions, highest peak first; None where it leaves that to `hints.find_regions`.
    """

    anomaly_map: NDArray[np.float32] = field(compare=False)
    score: float
    regions: tuple[SeenRegion, ...] | None = None
