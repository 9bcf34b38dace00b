"""A primed model copies a list of numbers before it has learned anything."""

from __future__ import annotations

import numpy as np
import pytest

from anomalyr1.training.nano import NanoShape, build_nano

torch = pytest.importorskip("torch")


def test_an_untrained_nano_goes_on_with_a_list_that_it_has_read() -> None:
    checkpoint = build_nano(NanoShape(), seed=0)
    tokenizer = checkpoint.processor.tokenizer
    rng = np.random.default_rng(0)
    boxes = rng.integers(0, 200, (4, 4)).tolist()
    text = "; ".join(str(box) for box in boxes) + ". "
    start = len(tokenizer(text)["input_ids"])
    ids = tokenizer(text + ", ".join(f'{{"bbox_2d": {box}' for box in boxes))["input_ids"]
    with torch.inference_mode():
        logits = checkpoint.model(input_ids=torch.tensor([ids])).logits[0]
    words = tokenizer.batch_decode([[token] for token in ids])
    found = [
        int((logits[place - 1] > logits[place - 1, ids[place]]).sum()) < 5
        for place in range(start, len(ids))
        if words[place].isdigit() and words[place - 1] == " "
    ]
    assert len(found) >= 12
    assert np.mean(found) > 0.5, "of 2,560 tokens, the right one is among the first five"
