"""Every question of the real files, as it is put to a model. Skips where the files are absent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from builders import make_inspector, make_picture

from anomalyr1.data.mmad import load_mmad
from anomalyr1.data.question_options import rewrite_option_references, speaks_of_letters
from anomalyr1.questioning import choose_questions
from anomalyr1.types import Prompt, Record

SHARED = (Path(__file__).resolve().parents[2] / "shared" / "data").resolve()
REAL_FILES = {
    "mmad/questions_subset.json": 100,
    "iad_r1/test_DTD_format.json": 1304,
    "iad_r1/test_MPDD_format.json": 458,
    "iad_r1/test_SDD_format.json": 340,
}
SPEAK_OF_THEMSELVES = {
    "GoodsAD/drink_bottle/test/surface_damage/027_007.jpg",
    "GoodsAD/food_bottle/test/deformation/020_029.jpg",
}
"""Pictures with a question whose option B is "Both A and B", as MMAD publishes it."""


def put(records: list[Record], placeholder: Path) -> list[Prompt]:
    """The prompts that a model gets of the records, with a picture in the place of absent ones."""
    prompts: list[Prompt] = []

    def script(prompt: Prompt, pictures: object) -> str:
        prompts.append(prompt)
        return "<answer>A</answer>"

    pictured = [replace(record, image_path=placeholder, reference_paths=()) for record in records]
    assert len(list(make_inspector(script, hint=False).answer_records(pictured))) == len(records)
    return prompts


@pytest.mark.parametrize("name", REAL_FILES)
def test_every_real_question_is_put_whole(tmp_path: Path, name: str) -> None:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    mmad = load_mmad(path, allow_missing=True)
    records = choose_questions(mmad, shots=0)
    assert len(records) == REAL_FILES[name]
    unclear = set()
    for record, prompt in zip(
        records, put(records, make_picture(tmp_path / "a.png", (16, 16))), strict=True
    ):
        question = record.question
        assert question is not None
        text = prompt.messages[-1].parts[-1]
        assert isinstance(text, str)
        head, *options, instruction = text.split("\n")
        assert head == f"Question: {question.text}"
        assert instruction.startswith("Reason in <think>")
        assert options == [f"{letter}: {said}" for letter, said in question.options.items()]
        assert "".join(question.options) == "ABCDE"[: len(options)]
        assert prompt.listed.options == tuple(question.options.items())
        assert question.answer in question.options
        assert all(said.strip(" .") for said in question.options.values())
        assert len(set(question.options.values())) == len(options)
        if speaks_of_letters(rewrite_option_references(question)):
            unclear.add(record.record_id.partition("#")[0])
    assert unclear == (SPEAK_OF_THEMSELVES if name.startswith("mmad") else set())
    said = f"{len(unclear)} questions have an option that speaks of itself"
    assert any(fault.startswith(said) for fault in mmad.faults) == bool(unclear)
