"""Starts a small language model off with numbers: what they are, and how boxes are copied.

A number is found by the one before it: where "12, 34" or "12], [34" was read, 34 follows 12. In the
first layer, one head brings the token three back to each number, and another the last number
written to each token, however long ago that was. Heads of the second layer look for the number
where the two agree and carry it over: within a box, and from the end of a box to the next. A third
head of the first layer brings each token the one before it, so that later layers can learn to look
up a word by the word before it. These are the induction heads of Olsson et al. (2022, arXiv
2209.11895), which large models find by themselves; a model of a few million parameters has not
found them after ten thousand samples. Where no number is announced, they look at the first token,
which says nothing: heads that copied everywhere would be unlearned before they are of use. Training
goes on from there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_OFFSET = 3
"""Tokens from a number to the one before it: "12, 34" is number, comma, space, number."""
_SHARPNESS = 8.0
_STARTING = 1.2
_HERALDING = 1.2
_RECENCY = 24.0
_FASTEST = 0.02
"""Turns a token, in radians, of the fastest pair that says in full how long ago a number was."""
_NUMBERNESS = 10.0
_MATCH = 2.5
_SLOW_PAIRS = 7
"""Rotary pairs from here on turn so slowly that they compare contents at any distance."""
_WRITE = 0.1
_READERS = 3
"""Groups of heads that copy; each carries a part of what a number is."""
_COPY = 0.6
_OWN = 1.5
"""How much more a number's embedding says which it is than that it is one, and of what size."""
_WAVES = (1600.0, 640.0, 256.0, 100.0, 40.0)
"""Wavelengths, in units, of what says how large a number is."""
_NUMBER, _HERALD, _START = range(3)
_MARKS = 3 + 2 * len(_WAVES)
_QUIET = 0.1


@dataclass(frozen=True, slots=True)
class NumberTokens:
    """What the tokenizer makes of numbers: `values`, token to value; `heralds`, the tokens after
    which a number stands; `start`, the token that every prompt begins with."""

    values: Mapping[int, int]
    heralds: Sequence[int]
    start: int


def prime_numbers(model: Any, tokens: NumberTokens, seed: int) -> None:
    """Set the weights of some heads of the first two layers, and give the embeddings of numbers
    what they have in common and what their size is, in place.

    Needs rotary wavelengths far beyond the texts' length. A model of fewer than two layers or too
    narrow for seven heads' contents is left as it is.
    """
    language = model.model.language_model
    config = language.config
    size, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    if config.num_hidden_layers < 2 or size < 7 * head + _MARKS:
        return
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(size, size, generator=generator))[0]
    content, behind, last, previous = basis[: 4 * head].split(head)
    marks, carried = basis[4 * head :].split([_MARKS, size - 4 * head - _MARKS])
    share = config.num_attention_heads // config.num_key_value_heads
    with torch.no_grad():
        _mark(language.embed_tokens.weight, tokens, marks)
        for layer in language.layers:
            # What untrained layers write would drown what the primed heads read.
            layer.self_attn.o_proj.weight *= _QUIET
            layer.mlp.down_proj.weight *= _QUIET
        frequencies = language.rotary_emb.inv_freq.float()
        first, second = language.layers[0].self_attn, language.layers[1].self_attn
        for group, place in enumerate((behind, last, previous)):
            rows = _head_rows(group, head)
            reader = _head_rows(group * share, head)
            if place is last:
                _look_for_last(first, rows, reader, marks[_NUMBER], frequencies)
            else:
                _look_back(first, rows, reader, frequencies, _OFFSET if place is behind else 1)
            _set(first.v_proj, rows, content)
            first.o_proj.weight[:, reader] = _WRITE * place.T
        for group in range(_READERS):
            mixed = torch.linalg.qr(torch.randn(head, head, generator=generator))[0]
            readers = [_head_rows(group * share + number, head) for number in range(share)]
            rows = _head_rows(group, head)
            _match(second, rows, readers, mixed @ behind, mixed @ last, marks)
            _set(second.v_proj, rows, carried[rows])
            for reader in readers:
                second.o_proj.weight[:, reader] = _COPY * carried[rows].T


def _head_rows(number: int, head: int) -> slice:
    return slice(number * head, (number + 1) * head)


def _mark(embeddings: torch.Tensor, tokens: NumberTokens, marks: torch.Tensor) -> None:
    """Give numbers, heralds and the start a direction each that no other token has, all numbers the
    same share of theirs; and numbers waves over their values, so that near ones begin alike."""
    norm = embeddings.norm(dim=1).mean()
    embeddings -= embeddings @ marks.T @ marks
    numbers, values = list(tokens.values), list(tokens.values.values())
    own = _OWN * torch.nn.functional.normalize(embeddings[numbers], dim=1)
    turns = 2 * torch.pi * torch.tensor(values)[:, None] / torch.tensor(_WAVES)
    waves = torch.cat([turns.cos(), turns.sin()], 1) / len(_WAVES) ** 0.5
    embeddings[numbers] = norm * (own + marks[_NUMBER] + waves @ marks[_START + 1 :])
    embeddings[list(tokens.heralds)] += norm * marks[_HERALD]
    embeddings[tokens.start] = norm * marks[_START]


def _look_back(
    attention: Any, rows: slice, reader: slice, frequencies: torch.Tensor, offset: int
) -> None:
    """Make the query head `reader`, whose keys are in `rows`, attend `offset` tokens back.

    Keys and queries are constant; the rotation by position alone makes the score, which is
    highest where the turn between them is undone.
    """
    turn = frequencies * offset
    nothing = torch.zeros(2 * len(turn), attention.k_proj.weight.shape[1])
    keys = torch.cat([torch.ones_like(turn), torch.zeros_like(turn)])
    _set(attention.k_proj, rows, nothing, _SHARPNESS * keys)
    _set(attention.q_proj, reader, nothing, _SHARPNESS * torch.cat([turn.cos(), -turn.sin()]))


def _look_for_last(
    attention: Any, rows: slice, reader: slice, number: torch.Tensor, frequencies: torch.Tensor
) -> None:
    """Make the query head `reader`, whose keys are in `rows`, attend to the last number.

    Pairs that turn fast are quieted, so that the score falls over all of an answer's length.
    """
    quieted = (_FASTEST / frequencies).square().clamp(max=1.0)
    nothing = torch.zeros_like(quieted)
    content = torch.zeros(2 * len(quieted), len(number))
    content[len(quieted) - 1] = _NUMBERNESS * number
    _set(attention.k_proj, rows, content, _RECENCY * torch.cat([quieted, nothing]))
    queries = torch.cat([torch.ones_like(quieted), nothing])
    _set(attention.q_proj, reader, torch.zeros_like(content), _RECENCY * queries)


def _match(
    attention: Any,
    rows: slice,
    readers: Sequence[slice],
    keys: torch.Tensor,
    queries: torch.Tensor,
    marks: torch.Tensor,
) -> None:
    """Make the query heads `readers` attend, at a herald, to the number whose key is their query,
    and elsewhere to the start.

    Compared in the pairs that turn slowly; of the two slowest, one asks for the start, the other,
    at heralds and more loudly, for numbers.
    """
    head = len(keys)
    slowest = head // 2 - 1
    pairs = torch.arange(_SLOW_PAIRS, slowest - 1)
    slow = torch.cat([pairs, pairs + head // 2])
    sought, asked, constant = torch.zeros_like(keys), torch.zeros_like(keys), torch.zeros(head)
    sought[slow] = _MATCH * keys[: len(slow)]
    asked[slow] = _MATCH * queries[: len(slow)]
    sought[slowest - 1] = _NUMBERNESS * marks[_START]
    constant[slowest - 1] = _STARTING
    sought[slowest] = _NUMBERNESS * marks[_NUMBER]
    asked[slowest] = _HERALDING * marks[_HERALD]
    _set(attention.k_proj, rows, sought)
    for reader in readers:
        _set(attention.q_proj, reader, asked, constant)


def _set(linear: Any, rows: slice, weight: torch.Tensor, bias: torch.Tensor | float = 0.0) -> None:
    linear.weight[rows] = weight
    linear.bias[rows] = bias
