"""A primed model copies the boxes that it has read before it has learned anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from anomalyr1.prompts import build_inspection_prompt, render_inspection_answer, to_chat
from anomalyr1.training.nano import NanoShape, build_nano, find_numbers
from anomalyr1.types import Hint, HintRegion, Record

torch = pytest.importorskip("torch")


def _texts(rng: np.random.Generator) -> Iterator[tuple[Hint, str]]:
    """Maps with three regions, and answers that name them in order."""
    for _number in range(8):
        corners = rng.integers(0, 120, (3, 2))
        sides = rng.integers(8, 70, (3, 2))
        boxes = np.concatenate([corners, corners + sides], axis=1).tolist()
        boxes = [tuple(box) for box in sorted(boxes, key=lambda box: (box[1], box[0]))]
        defects = [(box, "crack", "slight crack, a jagged line at the top left") for box in boxes]
        answer = render_inspection_answer("anomalous", defects, "The map is bright. So: anomalous.")
        yield Hint(97, tuple(HintRegion(box, 80, "centre", "crack") for box in boxes)), answer


def test_an_untrained_nano_copies_the_regions_of_its_prompt_one_after_the_other() -> None:
    checkpoint = build_nano(NanoShape(), seed=0)
    tokenizer = checkpoint.processor.tokenizer
    numbers = find_numbers(tokenizer).values
    right: list[list[bool]] = []
    for hint, answer in _texts(np.random.default_rng(0)):
        prompt = build_inspection_prompt(
            Record("0", Path("0.png"), category="part"), num_references=0, hint=hint
        )
        asked = tokenizer.apply_chat_template(
            to_chat(prompt), tokenize=False, add_generation_prompt=True
        ).replace("<|image_pad|>", "")
        start = len(tokenizer(asked)["input_ids"])
        ids = tokenizer(asked + answer)["input_ids"]
        with torch.inference_mode():
            best = checkpoint.model(input_ids=torch.tensor([ids])).logits[0].argmax(-1).tolist()
        places = [place for place in range(start, len(ids)) if ids[place] in numbers]
        right.append([best[place - 1] == ids[place] for place in places])
    assert {len(row) for row in right} == {12}
    assert np.mean(right) > 0.75, "of 2,560 tokens, the right one is the likeliest"
    next_ones = np.asarray(right)[:, [4, 8]]
    assert next_ones.mean() > 0.85, "a next box's first number too, which nothing in it announces"


def test_near_numbers_begin_alike_and_all_differ_from_words() -> None:
    checkpoint = build_nano(NanoShape(), seed=0)
    numbers = find_numbers(checkpoint.processor.tokenizer).values
    tokens = {value: token for token, value in numbers.items()}
    weights = checkpoint.model.get_input_embeddings().weight.detach()
    weights = torch.nn.functional.normalize(weights, dim=1)

    def alike(one: int, other: int) -> float:
        return float(weights[one] @ weights[other])

    near, far = (
        np.mean([alike(tokens[n], tokens[n + apart]) for n in range(100)]) for apart in (3, 45)
    )
    assert near > far + 0.1
    word = next(token for token in range(400, 500) if token not in numbers)
    assert alike(tokens[50], tokens[95]) > alike(tokens[50], word) + 0.1
