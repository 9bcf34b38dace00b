"""Starts a small language model off with the ability to copy a list of numbers.

Two heads of the first layer bring the number three tokens back to each number and the one two
tokens back to each separator ("12, 34": number, comma, space); heads of the second layer look for
the place where the two agree and carry over the number that stands there. These are the induction
heads of Olsson et al. (2022, arXiv 2209.11895), which large models find by themselves; a model of a
few million parameters has not found them after ten thousand samples. Training goes on from there.
"""

from __future__ import annotations

from typing import Any

import torch

_KEY_OFFSET, _QUERY_OFFSET = 3, 2
_SHARPNESS = 8.0
_MATCH = 2.5
_WRITE = 0.05
_COPY = 0.3
_QUIET = 0.1
_SLOW_PAIRS = 7
"""Rotary pairs from here on turn so slowly that they compare contents at any distance."""


def prime_copying(model: Any, seed: int) -> None:
    """Set the weights of some heads of the first two layers, in place.

    Needs rotary wavelengths far beyond the texts' length. A model of fewer than two layers or two
    groups of keys is left as it is.
    """
    language = model.model.language_model
    config = language.config
    if config.num_key_value_heads < 2 or config.num_hidden_layers < 2:
        return
    size, head = config.hidden_size, config.hidden_size // config.num_attention_heads
    share = config.num_attention_heads // config.num_key_value_heads
    generator = torch.Generator().manual_seed(seed)
    basis, carried = (
        torch.linalg.qr(torch.randn(size, size, generator=generator))[0] for _ in range(2)
    )
    content, behind, ahead = basis[:head], basis[head : 2 * head], basis[2 * head : 3 * head]
    first, second = language.layers[0].self_attn, language.layers[1].self_attn
    pairs = torch.arange(_SLOW_PAIRS, head // 2)
    slow = torch.cat([pairs, pairs + head // 2])
    with torch.no_grad():
        for layer in language.layers:
            # What untrained layers write would drown what the primed heads read.
            layer.self_attn.o_proj.weight *= _QUIET
            layer.mlp.down_proj.weight *= _QUIET
        for group, (offset, place) in enumerate(((_KEY_OFFSET, behind), (_QUERY_OFFSET, ahead))):
            rows = slice(group * head, (group + 1) * head)
            number = group * share
            _look_back(first, rows, number, offset, language.rotary_emb.inv_freq)
            _set(first.v_proj, rows, content)
            first.o_proj.weight[:, number * head : (number + 1) * head] = _WRITE * place.T
        for group in range(2):
            rows = slice(group * head, (group + 1) * head)
            mixed = torch.linalg.qr(torch.randn(head, head, generator=generator))[0][: len(slow)]
            keys, queries = torch.zeros(2, head, size)
            keys[slow] = _MATCH * mixed @ behind
            queries[slow] = _MATCH * mixed @ ahead
            _set(second.k_proj, rows, keys)
            _set(second.v_proj, rows, carried[rows])
            for number in range(group * share, (group + 1) * share):
                columns = slice(number * head, (number + 1) * head)
                _set(second.q_proj, columns, queries)
                second.o_proj.weight[:, columns] = _COPY * carried[rows].T


def _look_back(
    attention: Any, rows: slice, number: int, offset: int, frequencies: torch.Tensor
) -> None:
    """Make query head `number`, whose keys are in `rows`, attend `offset` tokens back.

    Keys and queries are constant; the rotation by position alone makes the score, which is
    highest where the turn between them is undone.
    """
    turn = frequencies.float() * offset
    head = 2 * len(turn)
    keys = _SHARPNESS * torch.cat([torch.ones_like(turn), torch.zeros_like(turn)])
    queries = _SHARPNESS * torch.cat([turn.cos(), -turn.sin()])
    nothing = torch.zeros(head, attention.k_proj.weight.shape[1])
    _set(attention.k_proj, rows, nothing, keys)
    _set(attention.q_proj, slice(number * head, (number + 1) * head), nothing, queries)


def _set(linear: Any, rows: slice, weight: torch.Tensor, bias: torch.Tensor | float = 0.0) -> None:
    linear.weight[rows] = weight
    linear.bias[rows] = bias
