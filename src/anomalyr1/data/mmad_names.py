"""MMAD's subtasks, and how records of its questions are named."""

from __future__ import annotations

from anomalyr1.types import Record

SUBTASKS = (
    "Anomaly Detection",
    "Defect Classification",
    "Defect Localization",
    "Defect Description",
    "Defect Analysis",
    "Object Classification",
    "Object Analysis",
)
"""MMAD's seven subtasks, in the order of the published tables."""

RAW_TYPES = {"Object Structure": "Object Analysis", "Object Details": "Object Analysis"}
"""Question types that the published tables count as another one."""


def name_subtask(question_type: str) -> str:
    """The subtask that a raw question type counts as; itself where it is none of MMAD's.

    >>> name_subtask("Object Details")
    'Object Analysis'
    """
    return RAW_TYPES.get(question_type, question_type)


def name_picture(record: Record) -> str:
    """The key of a record's picture in the question file: its id without the question's number.

    >>> from pathlib import Path
    >>> name_picture(Record("VisA/candle/test/bad/000.JPG#2", Path("000.JPG")))
    'VisA/candle/test/bad/000.JPG'
    """
    return record.record_id.rpartition("#")[0] or record.record_id
