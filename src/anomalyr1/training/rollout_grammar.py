"""Keeps rollouts to the grammar of answers that inspection keeps a small model to.

What is rewarded is then what `inspect` would have written, and a second box no more likely wrong
than a first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from anomalyr1.engines.answer_grammar import AnswerGrammar
from anomalyr1.engines.answer_tokens import AnswerTokens, read_answer_tokens
from anomalyr1.prompts import read_listed
from anomalyr1.training.shared_rollout import find_decoding_obstacle, replace_generate
from anomalyr1.types import Listed


def keep_to_grammar(trainer: Any) -> None:
    """Make a GRPOTrainer's `generate` follow `AnswerGrammar`, where the tokenizer has one.

    Rollouts of vLLM and of continuous batching, which do not call it, stay as they are, as do
    those with beams or assistance. Tokens that the grammar leaves no choice about are left out of
    the loss. All others keep their probabilities among all tokens there, not among those that the
    grammar allows: a better answer also makes what is allowed likelier as a whole.
    """
    if find_decoding_obstacle(getattr(trainer, "generation_config", None)) is not None:
        return
    tokens = read_answer_tokens(trainer.processing_class.tokenizer)
    if tokens is None:
        return
    roll_out = trainer._generate

    def roll_out_kept(prompts: list[Any]) -> Any:
        model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
        listed = [find_listed(prompt) for prompt in prompts]
        with _constrain(model, tokens, listed) as choices:
            output = list(roll_out(prompts))
        if choices.were_watched:
            # Of TRL's eight parts, the mask of what a tool wrote, which is not to be learned.
            output[2] = choices.build_mask(output[1])
        return tuple(output)

    trainer._generate = roll_out_kept


def find_listed(prompt: Sequence[Any]) -> Listed:
    """What a chat's last text lists."""
    texts = [part["text"] for part in prompt[-1]["content"] if part["type"] == "text"]
    return read_listed(texts[-1])


class _Choices(LogitsProcessor):  # type: ignore[misc]
    """Changes nothing: it keeps whether a row has more than one token to choose from."""

    def __init__(self) -> None:
        self._free: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        self._free.append((scores > -torch.inf).sum(dim=-1) > 1)
        return scores

    @property
    def were_watched(self) -> bool:
        return bool(self._free)

    def build_mask(self, completion_ids: Sequence[Sequence[int]]) -> list[list[int]]:
        """1 for each token that was chosen, 0 for those that were forced."""
        rows = torch.stack(self._free, dim=1).int().tolist()
        return [row[: len(ids)] for row, ids in zip(rows, completion_ids, strict=True)]


@contextmanager
def _constrain(model: Any, tokens: AnswerTokens, listed: Sequence[Listed]) -> Iterator[_Choices]:
    """Inside, `model.generate` keeps to the grammar, unless it is told of other processors."""
    stock, choices = model.generate, _Choices()

    def generate(**inputs: Any) -> Any:
        kept = LogitsProcessorList([AnswerGrammar(tokens, listed), choices])
        return stock(**{"logits_processor": kept, **inputs})

    with replace_generate(model, generate):
        yield choices
