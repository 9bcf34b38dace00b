"""The one door for `--model`: from its text to an engine or an inspector.

nano, a checkpoint folder or a hub id; `vllm:` and one of these, run by vLLM; `openai:URL#NAME`, a
model behind an endpoint;
`detector:patch-memory` or `detector:dinov2:SOURCE`, a detector without a language model; `random`
and `majority`, for sanity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from anomalyr1.answered import Answered
from anomalyr1.checkpoint import resolve_source
from anomalyr1.engines import Engine
from anomalyr1.inspector import Inspection, Inspector
from anomalyr1.masks import build_masker
from anomalyr1.preparation import load_detector
from anomalyr1.types import InputError, Record
from anomalyr1.weights import hash_weights

if TYPE_CHECKING:
    from anomalyr1.engines.openai_engine import OpenAISettings, Usage

DETECTOR_PREFIX = "detector:"
DINOV2_PREFIX = "dinov2:"
OPENAI_PREFIX = "openai:"
VLLM_PREFIX = "vllm:"
BASELINES = ("random", "majority")


class RecordInspector(Protocol):
    """What a run needs: a name, and inspections of records in their order."""

    @property
    def model(self) -> str: ...

    def inspect_records(
        self, records: Iterable[Record], *, batch_size: int = 8, seed: int = 0
    ) -> Iterator[Inspection]: ...

    def answer_records(
        self, records: Iterable[Record], *, batch_size: int = 8, seed: int = 0
    ) -> Iterator[Answered]: ...


def name_detector(model: str) -> str | None:
    """The hint that stands for a `--model` of a detector alone, None for any other model.

    >>> name_detector("detector:patch-memory"), name_detector("nano")
    ('auto', None)
    """
    if not model.startswith(DETECTOR_PREFIX):
        return None
    name = model.removeprefix(DETECTOR_PREFIX)
    if name == "patch-memory":
        return "auto"
    if name.startswith(DINOV2_PREFIX):
        return name
    raise InputError(
        f"--model is {model!r}; detectors are detector:patch-memory and "
        "detector:dinov2:FOLDER_OR_HUB_ID"
    )


def describe_weights(
    model: str, hint: str = "auto", inspector: RecordInspector | None = None
) -> dict[str, object]:
    """Settings that name the weights behind a `--model` and its hint by their content, so that a
    run is not continued with others of the same name; None for what is not on this machine.

    Weights that the `inspector` of that model has named are not read again.
    """
    detector = name_detector(model)
    hint = hint if detector is None else detector
    source = model if detector is None else "nano"  # the bundled folder holds the bundled detector
    weights = dinov2 = None
    if source not in BASELINES and not source.startswith(OPENAI_PREFIX):
        known = inspector.weights_sha256 if isinstance(inspector, Inspector) else ""
        weights = known or hash_weights(source.removeprefix(VLLM_PREFIX)) or None
    elif hint == "auto" and source not in BASELINES:
        weights = hash_weights("nano")
    if hint.startswith(DINOV2_PREFIX):
        dinov2 = hash_weights(hint.removeprefix(DINOV2_PREFIX)) or None
    return {"weights_sha256": weights, "hint_weights_sha256": dinov2}


def name_model(model: str, engine: str | None) -> str:
    """The `--model` that `--model` and `--engine` (None: not given) together stand for.

    >>> name_model("nano", "openai:http://127.0.0.1:8000/v1")
    'openai:http://127.0.0.1:8000/v1#nano'
    """
    if engine is None:
        return model
    if model in BASELINES or model.startswith((DETECTOR_PREFIX, OPENAI_PREFIX, VLLM_PREFIX)):
        raise InputError(f"--model {model} says itself what runs it: leave --engine out")
    if engine == "transformers":
        return model
    if engine.startswith(OPENAI_PREFIX):
        return f"{engine}#{model}"
    if engine == "vllm":
        return VLLM_PREFIX + model
    raise InputError(f"--engine is {engine!r}; choose transformers, vllm or openai:URL")


def check_model(model: str) -> None:
    """Raise InputError for a model that cannot be used, as far as that shows without loading it."""
    if name_detector(model) is not None or model in BASELINES:
        return
    if model.startswith(OPENAI_PREFIX):
        from anomalyr1.engines.openai_engine import split_name

        split_name(model)
        return
    resolve_source(model.removeprefix(VLLM_PREFIX))


def build_engine(
    model: str,
    *,
    device: str = "auto",
    records: Sequence[Record] = (),
    asking: OpenAISettings | None = None,
) -> Engine:
    """The engine of a `--model`. `records` are what "majority" counts, `asking` is how an endpoint
    is asked; others ignore them.

    Raises InputError for a model that cannot be used, and for a detector, which is no engine: see
    `name_detector`.
    """
    if name_detector(model) is not None:
        raise InputError(f"{model} answers no questions in words: choose a language model")
    if model in BASELINES:
        from anomalyr1.engines.baselines import BaselineEngine

        return BaselineEngine("random" if model == "random" else "majority", records)
    if model.startswith(OPENAI_PREFIX):
        from anomalyr1.engines.openai_engine import OpenAIEngine, split_name

        return OpenAIEngine(*split_name(model), settings=asking)
    resolve_source(model.removeprefix(VLLM_PREFIX))  # before imports that take seconds
    if model.startswith(VLLM_PREFIX):
        from anomalyr1.engines.vllm_engine import VllmEngine

        return VllmEngine.load(model.removeprefix(VLLM_PREFIX))
    from anomalyr1.engines.transformers_engine import TransformersEngine

    return TransformersEngine.load(model, device=device)


def build_inspector(
    model: str,
    *,
    hint: str = "auto",
    masks: str = "auto",
    sam2_model: str | None = None,
    device: str = "auto",
    records: Sequence[Record] = (),
    asking: OpenAISettings | None = None,
) -> RecordInspector:
    """The inspector of a `--model`; a detector alone and the baselines take no hint."""
    detector_hint = name_detector(model)
    if detector_hint is not None:
        from anomalyr1.detector_alone import DetectorAlone

        detector = load_detector(detector_hint)
        assert detector is not None
        return DetectorAlone(detector, model)
    if model in BASELINES:
        return Inspector(build_engine(model, records=records))
    if model.startswith((OPENAI_PREFIX, VLLM_PREFIX)):
        engine = build_engine(model, asking=asking)
        masker = build_masker(masks, sam2_model=sam2_model) if masks != "none" else None
        own = model.removeprefix(VLLM_PREFIX) if model.startswith(VLLM_PREFIX) else "nano"
        return Inspector(engine, detector=load_detector(hint, own), masker=masker)
    return Inspector.load(model, hint=hint, masks=masks, sam2_model=sam2_model, device=device)


def find_usage(inspector: RecordInspector) -> Usage | None:
    """What an inspector asked of an endpoint so far; None for a model that is loaded here."""
    engine = inspector.engine if isinstance(inspector, Inspector) else None
    usage: Usage | None = getattr(engine, "usage", None)
    return usage
