"""The wordings of questions, some for each of MMAD's seven subtasks. Says nothing of options."""

from __future__ import annotations

SUBTASKS = (
    "Anomaly Detection",
    "Defect Classification",
    "Defect Localization",
    "Defect Description",
    "Defect Analysis",
    "Object Classification",
    "Object Analysis",
)

QUESTION_TEXTS: dict[str, tuple[str, ...]] = {
    "Anomaly Detection": (
        "Is there any defect in the object?",
        "Does the part in the picture have a defect?",
        "Is anything wrong with this product?",
    ),
    "Defect Classification": (
        "The part has a defect. What kind of defect is it?",
        "Which kind of defect does the part show?",
        "Of which type is the defect in the picture?",
    ),
    "several": (
        "Which of these kinds of defect does the part show?",
        "The part has several defects. Which of these kinds is among them?",
    ),
    "Defect Localization": (
        "The part has a defect. Where in the picture is it?",
        "Where is the defect?",
        "In which area of the picture does the defect lie?",
    ),
    "places": (
        "At which of these places is there a defect?",
        "The part has several defects. Where is one of them?",
    ),
    "Defect Description": (
        "The part has a defect. What does it look like?",
        "Which description fits the defect?",
        "How does the defect appear in the picture?",
    ),
    "several looks": (
        "Which description fits a defect of this part?",
        "The part has several defects. Which of these can be seen?",
    ),
    "causes": (
        "The part has a defect. What is its likely cause?",
        "What may have led to this defect?",
    ),
    "effects": (
        "The part has a defect. What is its likely effect?",
        "What may this defect lead to?",
    ),
    "Object Classification": (
        "What kind of product is in the picture?",
        "Which product does the picture show?",
        "What is this?",
    ),
}
"""A subtask, or a case of one, to the ways of asking it."""
