"""Explained visual inspection: verdicts, reasons, boxes and masks for pictures of parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from anomalyr1.inspector import Inspection, Inspector
    from anomalyr1.types import Finding, InputError, Record

__all__ = ["Finding", "InputError", "Inspection", "Inspector", "Record"]

_HOMES = {
    "Inspection": "anomalyr1.inspector",
    "Inspector": "anomalyr1.inspector",
    "Finding": "anomalyr1.types",
    "InputError": "anomalyr1.types",
    "Record": "anomalyr1.types",
}


def __getattr__(name: str) -> object:
    """Public names are imported when they are first used, so that the import itself is light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'anomalyr1' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
