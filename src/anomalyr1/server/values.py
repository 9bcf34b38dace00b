"""What the API takes and gives, with examples. Texts hold no control characters."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from anomalyr1.server.examples import JOB_ID, PICTURE
from anomalyr1.server.tables import MOST_NAME


def refuse_control(text: str) -> str:
    """The text; ValueError where it holds what no database or terminal should be handed."""
    if any(unicodedata.category(sign) == "Cc" and sign not in "\n\t" for sign in text):
        raise ValueError("holds control characters")
    return text


def shorten_name(name: str | None) -> str:
    """A file's name as it is shown: its last part, visible signs only, never used as a path.

    >>> shorten_name("../a/b.png")
    'b.png'
    """
    last = (name or "picture").replace("\\", "/").rsplit("/", 1)[-1]
    seen = "".join(sign for sign in last if unicodedata.category(sign) not in ("Cc", "Cs", "Cf"))
    return seen.strip()[:MOST_NAME] or "picture"


Clean = AfterValidator(refuse_control)
Name = Annotated[
    str, Field(min_length=1, max_length=MOST_NAME, pattern=r"\S"), AfterValidator(str.strip), Clean
]
Long = Annotated[str, Field(max_length=20_000), Clean]
Id = Annotated[
    int, Path(ge=1, le=2**31 - 1, description="The number that the station gave it.", examples=[7])
]
JobId = Annotated[
    str,
    Path(pattern=r"^[0-9a-f]{32}$", description="As /api/inspect tells it.", examples=[JOB_ID]),
]
Digest = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{64}$",
        description="SHA-256 of the picture's file, as inspections and products tell it.",
        examples=[PICTURE],
    ),
]
Verdict = Literal["normal", "anomalous"]
Side = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(extra="forbid", json_schema_extra={"examples": [values]})


class NewProduct(BaseModel):
    model_config = _example(name="gear housing", knowledge="Six bores; a burr is a defect.")
    name: Name
    knowledge: Long = ""


class ProductChange(BaseModel):
    model_config = _example(threshold=0.55)
    name: Name | None = None
    knowledge: Long | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None


class ReviewRegion(BaseModel):
    model_config = _example(box_xyxy=[12, 30, 60, 44], label="scratch", description="")
    box_xyxy: tuple[Side, Side, Side, Side]
    label: Annotated[str, Field(max_length=MOST_NAME), Clean] = ""
    description: Annotated[str, Field(max_length=2000), Clean] = ""


class NewReview(BaseModel):
    model_config = _example(
        reviewer="Ann",
        verdict="anomalous",
        regions=[{"box_xyxy": [12, 30, 60, 44], "label": "scratch"}],
        comment="on the rim",
    )
    reviewer: Name
    verdict: Verdict
    regions: Annotated[
        list[ReviewRegion],
        Field(max_length=200, description="All defects that there are: what is not here is not."),
    ] = []
    comment: Long = ""


class Person(BaseModel):
    model_config = _example(person="Ann")
    person: Name


class Promotion(BaseModel):
    model_config = _example(evaluation=3, person="Ann", comment="")
    evaluation: Annotated[int, Field(ge=1, le=2**31 - 1)]
    person: Name
    comment: Long = ""


class Session(BaseModel):
    model_config = _example(token="what was given to anomalyr1 serve --token")
    token: Annotated[str, Field(max_length=1000)]
