"""Rows of MMAD's table as others published them: quoted, not measured here.

MMAD, one normal picture shown, averages over its four sources. A figure that its source does not
give is None.
"""

from __future__ import annotations

from dataclasses import dataclass

from anomalyr1.data.mmad import SUBTASKS


@dataclass(frozen=True, slots=True)
class PublishedRow:
    """A method's row: `cells` are subtask to per cent, `average` the mean of the seven.

    `confirmed` says where its figures were looked up; empty: taken over from tables at second hand,
    and not confirmed here.
    """

    method: str
    size: str
    trained_on: str
    average: float
    detection: float
    source: str
    cells: tuple[tuple[str, float], ...] = ()
    confirmed: str = ""


def _cells(*values: float) -> tuple[tuple[str, float], ...]:
    return tuple(zip(SUBTASKS, values, strict=True))


MMAD_PAPER = "MMAD (arXiv 2410.09453) and its repository"
LATER = "tabulated by later papers"
REPOSITORY_TABLE = "all figures, in the repository's all_result/"
OMNIAD = "OmniAD (arXiv 2505.22039, whose first version's abstract has 79.1)"

PUBLISHED = (
    PublishedRow("Human expert", "-", "-", 86.65, 95.24, MMAD_PAPER),
    PublishedRow("Human ordinary", "-", "-", 78.69, 86.90, MMAD_PAPER),
    PublishedRow(
        "GPT-4o", "-", "-", 74.92, 68.63, MMAD_PAPER,
        confirmed="the average, in the abstract; the repository has 74.31 and 67.47",
    ),
    PublishedRow("Gemini-2.5-Pro", "-", "-", 81.19, 83.07, LATER),
    PublishedRow(
        "Qwen2.5-VL-3B", "3B", "-", 68.83, 62.82, LATER,
        _cells(62.82, 47.65, 54.40, 67.00, 80.74, 86.89, 82.34),
    ),
    PublishedRow(
        "Qwen2.5-VL-7B", "7B", "-", 72.19, 71.10, MMAD_PAPER,
        _cells(71.10, 56.02, 60.69, 64.13, 78.26, 91.49, 83.67), REPOSITORY_TABLE,
    ),
    PublishedRow(
        "Qwen2.5-VL-72B-AWQ", "72B", "-", 76.96, 72.66, MMAD_PAPER,
        _cells(72.66, 62.31, 67.16, 73.56, 81.95, 94.30, 86.78), REPOSITORY_TABLE,
    ),
    PublishedRow(
        "Qwen2.5-VL-3B, SFT", "3B", "the same as AnomalyR1", 76.15, 58.19, LATER,
        _cells(58.19, 59.68, 71.05, 81.03, 86.23, 90.68, 86.20),
    ),
    PublishedRow(
        "AnomalyR1", "3B", "about 600 pictures of MMAD's sources", 76.96, 60.62,
        "AnomalyR1 (arXiv 2504.11914), tabulated by later papers",
        _cells(60.62, 63.56, 70.14, 80.47, 85.28, 92.48, 86.15),
    ),
    PublishedRow("HyCo-IAD", "3B", "319 pictures, GRPO", 79.09, 64.45, "HyCo-IAD"),
    PublishedRow("OmniAD", "3B", "SFT and GRPO", 77.5, 66.3, OMNIAD),
    PublishedRow("OmniAD", "7B", "SFT and GRPO", 79.87, 68.8, OMNIAD),
    PublishedRow("JUDO", "7B", "SFT and GRPO, aligned reference", 81.20, 65.04, "JUDO"),
    PublishedRow(
        "EMIT", "8B", "52k questions, difficulty-aware GRPO", 81.95, 73.87,
        "EMIT (arXiv 2507.21619)",
    ),
    PublishedRow(
        "AD-Copilot-Thinking", "7B", "620k, no class of MMAD", 82.29, 73.95, "AD-Copilot"
    ),
    PublishedRow("AgentIAD v2", "3B", "SFT and GRPO, tools", 82.88, 69.49,
                 "AgentIAD (arXiv 2512.13671)"),
    PublishedRow("SiGMA", "8 models up to 9B, expert detector", "-", 85.2, 82.6, "SiGMA"),
    PublishedRow("Anomaly-LR", "3B", "20 % of MMAD, tested on the rest", 86.00, 71.66,
                 "Anomaly-LR"),
    PublishedRow("Anomaly-LR", "7B", "20 % of MMAD, tested on the rest", 87.12, 75.39,
                 "Anomaly-LR"),
)  # fmt: skip
