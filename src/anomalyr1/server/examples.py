"""Answers as the API's description shows them; a test holds them beside real ones.

What is null is not here: FastAPI leaves it out of the description.
"""

from __future__ import annotations

from typing import Any

JOB_ID = "5f0c1a7e9b3d4c6f8a2b1d0e7c5f4a39"
PICTURE = "3b1f0c9e5d7a8264" * 4
REGION = {"box_xyxy": [12.0, 30.0, 60.0, 44.0], "label": "scratch", "description": "on the rim"}
REVIEW = {
    "id": 2,
    "reviewer": "Ann",
    "created_at": "2026-01-31T17:42:10.250000Z",
    "verdict": "anomalous",
    "regions": [REGION],
    "comment": "",
}
JOB = {"id": JOB_ID, "total": 1, "done": 1, "state": "done", "inspections": [7]}
FOUND = {
    "id": 7,
    "job_id": JOB_ID,
    "state": "done",
    "name": "part-4711.png",
    "product_id": 3,
    "product": "gear housing",
    "picture": PICTURE,
    "reference": PICTURE[::-1],
    "size_wh": [640, 480],
    "created_at": "2026-01-31T17:30:00.125000Z",
    "finished_at": "2026-01-31T17:30:00.525000Z",
    "verdict": "anomalous",
    "decision": "anomalous",
    "anomaly_score": 0.94,
    "detector_score": 0.81,
    "uncertainty": 0.12,
    "seconds": 0.4,
    "model": "nano",
    "weights_sha256": PICTURE,
    "template_id": "inspect-v1-acb8e3d1",
    "status": "ok",
    "reasoning": "A thin bright line crosses the rim.",
    "raw_text": "<think>A thin bright line crosses the rim.</think><answer>...</answer>",
    "defects": [{**REGION, "confidence": 0.81, "severity": "minor"}],
    "review": REVIEW,
}
INSPECTION = {
    **FOUND,
    "has_map": True,
    "num_masks": 1,
    "reviews": [{**REVIEW, "inspection_id": 7}],
}
NEW_INSPECTION = {**INSPECTION, "review": None, "reviews": []}
REFERENCE = {"id": 5, "name": "good-1.png", "picture": PICTURE, "is_odd": False}
PRODUCT = {
    "id": 3,
    "name": "gear housing",
    "knowledge": "Six bores; a burr is a defect.",
    "threshold": 0.55,
    "is_calibrated": True,
    "references": [{**REFERENCE, "score": 0.2}],
}
NEW_PRODUCT = {**PRODUCT, "threshold": None, "is_calibrated": False, "references": []}
REFERENCED_PRODUCT = {**NEW_PRODUCT, "references": [REFERENCE]}
SHARE = {"value": 0.95, "n": 40, "low": 0.83, "high": 0.99}
TRENDS = {
    "total": 412,
    "days": [{"day": "2026-01-31", "normal": 390, "anomalous": 20, "unread": 2}],
    "agreement": SHARE,
    "overkill": SHARE,
    "miss": SHARE,
    "scores": {
        "anomaly_score": [390, *[0] * 18, 22],
        "detector_score": [380, *[0] * 18, 32],
    },
}
MODEL = {
    "model": "/srv/candidate/run/checkpoint",
    "weights_sha256": PICTURE,
    "problem": "",
    "is_pinned": False,
    "promotions": [
        {
            "id": 1,
            "model": "/srv/candidate/run/checkpoint",
            "action": "promote",
            "person": "Ann",
            "created_at": "2026-01-31T17:50:00.000000Z",
            "comment": "",
            "weights_sha256": PICTURE,
            "evaluation_id": 3,
        }
    ],
    "evaluations": [
        {
            "id": 3,
            "created_at": "2026-01-31T17:45:00.000000Z",
            "is_current": True,
            "is_against_current": False,
            "comparison": {
                "current": {"model": "nano", "weights_sha256": PICTURE[::-1]},
                "candidate": {"model": "/srv/candidate/run/checkpoint", "weights_sha256": PICTURE},
                "split_seed": 0,
                "num_pictures": 80,
                "num_normal": 60,
                "num_anomalous": 20,
                "metrics": [
                    {
                        "name": "verdict_balanced_accuracy",
                        "meaning": "mean of the accuracy on normal and on anomalous pictures",
                        "subset": "all",
                        "current": {"value": 0.81, "n": 80, "low": 0.7, "high": 0.9},
                        "candidate": {"value": 0.9, "n": 80, "low": 0.81, "high": 0.96},
                    }
                ],
                "paired": {
                    "both_right": 65,
                    "only_current": 2,
                    "only_candidate": 10,
                    "both_wrong": 3,
                    "p_value": 0.04,
                },
            },
        }
    ],
    "num_reviewed": 412,
    "num_new_reviews": 12,
    "num_new_corrections": 3,
}
COMPLETION = {
    "id": f"chatcmpl-{JOB_ID}",
    "created": 1769880600,
    "model": "nano",
    "object": "chat.completion",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Parts, for visible defects."},
            "finish_reason": "stop",
        }
    ],
    "usage": {"completion_tokens": 8, "prompt_tokens": 0, "total_tokens": 8},
    "anomalyr1": {"image_sizes_wh": [[640, 480]]},
}
MODELS = {
    "object": "list",
    "data": [{"id": "nano", "object": "model", "created": 0, "owned_by": "anomalyr1"}],
}


def answers(example: object, status: int = 200, **fields: str) -> dict[int | str, dict[str, Any]]:
    """An answer's example for a route's `responses`."""
    return {status: {"content": {"application/json": {"example": example}}, **fields}}
