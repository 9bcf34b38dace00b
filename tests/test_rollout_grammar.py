"""Rollouts of a small model write the boxes that their prompt lists, as its inspections do."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_shared_prefix import build_trainer

from anomalyr1.prompts import build_choice_prompt, build_inspection_prompt, to_chat
from anomalyr1.training.nano import NanoShape, build_nano
from anomalyr1.types import Hint, HintRegion, Listed, Question, Record

torch = pytest.importorskip("torch")
pytest.importorskip("trl", reason="training needs the extra 'train'")

from anomalyr1.training.resampling import _replace  # noqa: E402
from anomalyr1.training.rollout_grammar import find_listed, keep_to_grammar  # noqa: E402

SHAPE = NanoShape(2560, 64, 2, 64, 2, 84 * 84)
ONE = ((12, 30, 44, 60), (12, 35, 80, 61))
OTHER = ((20, 12, 99, 30), (7, 70, 80, 90), (7, 71, 90, 95))
RECORD = Record("7", Path("7.png"), category="part", knowledge="Holes at [1, 2, 3, 4] are meant.")


def make_hint(boxes: Sequence[tuple[int, int, int, int]]) -> Hint:
    return Hint(81, tuple(HintRegion(box, 90, "centre", "scratch") for box in boxes))


def make_row(hint: Hint | None) -> dict[str, Any]:
    prompt = build_inspection_prompt(RECORD, num_references=0, hint=hint)
    picture = Image.fromarray(np.full((84, 84, 3), 90, np.uint8))
    return {"prompt": to_chat(prompt), "images": [picture] * (1 if hint is None else 2)}


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Any]:
    trainer = build_trainer(build_nano(SHAPE, seed=0), tmp_path, max_completion_length=60)
    yield trainer
    assert "generate" not in vars(trainer.model)


def favour(trainer: Any, words: dict[str, float]) -> None:
    """Make the model of a trainer write words more often, by what is added to their logits."""
    tokenizer = trainer.processing_class.tokenizer
    ids = torch.tensor([tokenizer(word)["input_ids"][0] for word in words])
    added = torch.tensor(list(words.values()))

    def add(_module: Any, _arguments: Any, logits: Any) -> Any:
        return logits.index_add(-1, ids, added.expand(*logits.shape[:-1], -1))

    trainer.model.lm_head.register_forward_hook(add)


BOXING = {" [1": 18.0, "</think>": 12.0}
"""A box is begun wherever one may be, and a reasoning, where none may, is ended."""


def roll_out(trainer: Any, rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The tokens of three completions of each row."""
    from trl.data_utils import prepare_multimodal_messages

    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    torch.manual_seed(5)
    output = trainer._generate([prompt for prompt in prompts for _ in range(3)])
    decode = trainer.processing_class.tokenizer.decode
    return [[decode([token]) for token in ids] for ids in output[1]]


def find_boxes(words: Sequence[str]) -> list[tuple[int, ...]]:
    numbers = r"\|,\| \|".join([r"(\d+)"] * 4)
    found = re.findall(rf"\[\|{numbers}\|", "|".join([*words, ""]))
    return [tuple(int(side) for side in box) for box in found]


@pytest.mark.parametrize("sampling", [{}, {"top_k": 1}, {"top_p": 0.2}])
def test_every_box_is_a_listed_one_and_none_is_written_twice(
    trainer: Any, sampling: dict[str, Any]
) -> None:
    from trl import GRPOTrainer

    trainer.generation_config.update(**sampling)
    favour(trainer, BOXING)
    rows = [make_row(make_hint(ONE)), make_row(make_hint(OTHER))]
    free = [find_boxes(words) for words in roll_out(trainer, rows)]
    assert not any(set(ONE + OTHER) & set(boxes) for boxes in free)
    keep_to_grammar(trainer)
    shared = roll_out(trainer, rows)
    for listed, words in zip([ONE] * 3 + [OTHER] * 3, shared, strict=True):
        assert sorted(find_boxes(words)) == sorted(listed)
    stock = partial(GRPOTrainer._generate_single_turn, trainer)
    trainer._generate_single_turn = stock
    assert roll_out(trainer, rows) == shared


def test_forced_tokens_are_left_out_of_the_loss(trainer: Any) -> None:
    favour(trainer, BOXING)
    keep_to_grammar(trainer)
    rows = [make_row(make_hint(ONE)), make_row(make_hint(()))]
    torch.manual_seed(5)
    inputs = trainer._generate_and_score_completions([rows[0]] * 3 + [rows[1]] * 3)
    opening = trainer.processing_class.tokenizer(" [1")["input_ids"][0]
    for ids, mask in zip(inputs["completion_ids"][:3], inputs["tool_mask"][:3], strict=True):
        first, second = torch.nonzero(ids == opening)[:2, 0].tolist()
        # Only the box's second number differs between the two.
        assert mask[first : first + 11].tolist() == [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0]
        assert mask[second : second + 11].tolist() == [1] + [0] * 10
    assert inputs["tool_mask"][3:].all()
    assert inputs["num_items_in_batch"] == (inputs["tool_mask"] * inputs["completion_mask"]).sum()


def test_a_prompt_without_listed_boxes_is_answered_as_before(trainer: Any) -> None:
    favour(trainer, {" the": 12.0})
    rows = [make_row(None), make_row(make_hint(()))]
    before = roll_out(trainer, rows)
    keep_to_grammar(trainer)
    assert roll_out(trainer, rows) == before


@pytest.mark.parametrize("boxes", [(), ONE[:1], ONE, OTHER])
def test_the_regions_of_a_prompt_are_those_that_its_hint_lists(
    boxes: Sequence[tuple[int, int, int, int]],
) -> None:
    question = Question("What lies at [5, 6, 7, 8]?", {"A": "[1, 1, 9, 9]", "B": "none"}, "B")
    asked = Record("8", Path("8.png"), question=question, knowledge=RECORD.knowledge)
    hint = make_hint(boxes)
    inspection = build_inspection_prompt(RECORD, num_references=1, hint=hint)
    choice = build_choice_prompt(asked, num_references=0, hint=hint)
    for prompt in (inspection, choice):
        assert find_listed(to_chat(prompt)) == prompt.listed
        assert prompt.listed.regions == hint.regions
    assert choice.listed.options == tuple(question.options.items())
    without = build_choice_prompt(asked, num_references=0, hint=None)
    assert find_listed(to_chat(without)) == Listed(options=choice.listed.options)


@pytest.mark.parametrize(("words", "num_beams"), [(10, 1), (999, 2)])
def test_other_tokenizers_and_beams_have_no_grammar(words: int, num_beams: int) -> None:
    from transformers import GenerationConfig

    class Tokenizer:
        eos_token_id = 0

        def __call__(self, text: str, **_settings: Any) -> dict[str, list[int]]:
            return {"input_ids": [1, 2, 3]}

        def get_vocab(self) -> dict[str, int]:
            return {str(number): number for number in range(words)}

    stock = object()
    trainer = SimpleNamespace(
        processing_class=SimpleNamespace(tokenizer=Tokenizer()),
        generation_config=GenerationConfig(num_beams=num_beams),
        _generate=stock,
    )
    keep_to_grammar(trainer)
    assert trainer._generate is stock


def test_what_is_drawn_again_brings_its_mask() -> None:
    first = ("prompts", [[1], [2, 3]], [[1], [1, 0]], ["a", "b"], None, {}, None, [])
    again = ("prompts", [[4, 5, 6]], [[0, 1, 1]], ["c"], None, {}, None, [])
    replaced = _replace(first, again, [0])
    assert replaced[1:4] == ([[4, 5, 6], [2, 3]], [[0, 1, 1], [1, 0]], ["c", "b"])
