"""Keeps the answer of a small model to what its prompt lists and in shape: its boxes are those of
the prompt's regions, each once, none without area; it calls a region no other kind and no other
place than the prompt does; and nothing follows the answer.

For tokenizers whose numbers are one token each, as the bundled model's: it chooses well among the
regions of an anomaly map, and copies badly where they are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor

from anomalyr1.data.wording import (
    DECIDED_BEHIND,
    KIND_WORDS,
    MOST_NAMED,
    SEVERITIES,
    TAKEN_FOR,
)
from anomalyr1.geometry import GRID_WORDS
from anomalyr1.prompts import AT_THE, BRIGHT, LIKE_A, LOOKS
from anomalyr1.types import HintRegion

_FEWEST = 100
_LIKELY = 0.5


@dataclass(frozen=True, slots=True)
class AnswerTokens:
    """How a tokenizer writes an answer: `numbers` (token to value), what opens a box, and what
    stands between two numbers; `defect_end`, after which another defect follows; the tokens that
    end in "</", the two of "answer>", and the `end` of the text.

    `kinds` are the tokens that begin each kind of defect, named behind one of `severities`;
    `places` those of each place, named behind `at_the`. `lists` are sentences on the map: how one
    begins, what it may name, each up to the comma or the `period` behind it, and how many.
    """

    numbers: dict[int, int]
    opening: int
    comma: int
    space: int
    defect_end: int
    slashes: frozenset[int]
    name: int
    bracket: int
    end: int
    kinds: dict[str, frozenset[int]]
    severities: frozenset[int]
    places: dict[str, tuple[int, ...]]
    at_the: tuple[int, ...]
    lists: tuple[tuple[tuple[int, ...], dict[str, tuple[int, ...]], int], ...]
    period: int


def read_answer_tokens(tokenizer: Any) -> AnswerTokens | None:
    """None for a tokenizer that writes numbers digit by digit."""
    numbers = read_number_tokens(tokenizer)
    if sum(value > 9 for value in numbers.values()) < _FEWEST:
        return None

    def tokens(text: str) -> tuple[int, ...]:
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

    def first(text: str) -> int:
        return tokens(text)[0]

    name, bracket = tokens("]}</answer>")[-2:]
    deciding = DECIDED_BEHIND.rpartition(" ")[0]
    return AnswerTokens(
        numbers,
        opening=first(" [1"),
        comma=first(","),
        space=first(" 1"),
        defect_end=first('"}, {'),
        slashes=frozenset(
            token for word, token in tokenizer.get_vocab().items() if word.endswith("</")
        ),
        name=name,
        bracket=bracket,
        end=tokenizer.eos_token_id,
        kinds={kind: frozenset({first(kind), first(f" {kind}")}) for kind in KIND_WORDS},
        severities=frozenset(
            first(before) for word in (*SEVERITIES, '"') for before in (word, f" {word}")
        ),
        places={place: tokens(f" {place}") for place in GRID_WORDS},
        at_the=tokens(AT_THE.rstrip()),
        lists=(
            (
                tokens(f" {BRIGHT}"),
                {word: tokens(AT_THE + word) for word in GRID_WORDS},
                MOST_NAMED,
            ),
            (
                tokens(f" {LOOKS}"),
                {word: tokens(LIKE_A + word) for word in KIND_WORDS},
                MOST_NAMED,
            ),
            (
                tokens(f" {deciding}")[-3:],
                {
                    label: tokens(said.removeprefix(deciding).removesuffix("."))
                    for label, said in TAKEN_FOR.items()
                },
                1,
            ),
        ),
        period=first("."),
    )


def read_number_tokens(tokenizer: Any) -> dict[int, int]:
    """The tokens that are a whole number and nothing else, each with its value."""
    return {token: int(word) for word, token in tokenizer.get_vocab().items() if word.isdecimal()}


class AnswerGrammar(LogitsProcessor):  # type: ignore[misc]
    """Leaves out what would not continue the box of one of a prompt's regions that its answer has
    not written yet, a fifth number in a box, further defects once all are written, and text after
    the answer. Where no region is listed, or a box is begun that is not: numbers that leave a box
    without area.

    A sentence that tells the map is told as the prompt does. Behind a box, kind and place are not
    those of other regions; before it, not such as no region has. Other words may be written: a
    person's "hair" for what the map takes for a scratch.

    An answer can still be unreadable. One object serves one call of `generate`, `listed` holding
    the regions of each of its rows; not for beam search, which moves answers between rows.
    """

    def __init__(self, tokens: AnswerTokens, listed: Sequence[Sequence[HintRegion]]) -> None:
        self._tokens = tokens
        self._listed = listed
        self._left = [list(regions) for regions in listed]
        self._meant = [list(regions) for regions in listed]
        self._begun: list[list[int] | None] = [None] * len(listed)
        self._said: list[list[int] | None] = [None] * len(listed)
        self._items: list[list[tuple[int, ...]]] = [[] for _ in listed]
        self._most = [0] * len(listed)

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        tokens = self._tokens
        for row, recent in enumerate(input_ids[:, -3:].tolist()):
            slash, name, token = recent
            is_whole = self._follow(row, token)
            begun = self._begun[row]
            if is_whole:
                scores[row, [tokens.comma, tokens.space, *tokens.numbers]] = -torch.inf
            elif begun is not None:
                self._constrain(scores[row], token, begun, self._left[row])
            elif self._listed[row] and not self._left[row]:
                scores[row, tokens.defect_end] = -torch.inf
            if (name, token) == (tokens.name, tokens.bracket) and slash in tokens.slashes:
                _keep(scores[row], [tokens.end])
            if not self._list(scores[row], row, tuple(recent)):
                self._name_kind(scores[row], token, self._meant[row])
                self._name_place(scores[row], tuple(recent), self._meant[row])
        return scores

    def _list(self, scores: torch.Tensor, row: int, recent: tuple[int, ...]) -> bool:
        """Make, in place, a sentence on the map that is begun name what the regions are or where,
        each once and in any order. False where there is none."""
        tokens, said = self._tokens, self._said[row]
        if said is not None:
            said.append(recent[-1])
        elif self._meant[row] == self._left[row]:
            for begun, words, most in tokens.lists:
                if recent[-len(begun) :] == begun:
                    named = [word for own in self._meant[row] for word in (own.place, own.kind)]
                    chosen = dict.fromkeys([*named, *TAKEN_FOR])
                    self._items[row] = [words[word] for word in chosen if word in words]
                    self._most[row] = most
                    self._said[row] = said = []
        if said and said[-1] == tokens.period:
            self._said[row] = said = None
        if said is None or not self._items[row]:
            return False
        *done, item = _split(said, tokens.comma)
        left = [other for other in self._items[row] if other not in done]
        allowed = _find_next(left, item)
        if item in left:
            allowed.add(tokens.period)
            if len(left) > 1 and len(done) + 1 < self._most[row]:
                allowed.add(tokens.comma)
        _keep(scores, sorted(allowed))
        return True

    def _name_kind(self, scores: torch.Tensor, token: int, meant: Sequence[HintRegion]) -> None:
        """Where a kind may be named, make it, in place, one of the regions that are `meant`."""
        if token not in self._tokens.severities or not all(region.kind for region in meant):
            return
        begins = self._tokens.kinds
        named = {token for region in meant for token in begins.get(region.kind, ())}
        if named:
            _prefer(scores, named, {token for tokens in begins.values() for token in tokens})

    def _name_place(
        self, scores: torch.Tensor, recent: tuple[int, ...], meant: Sequence[HintRegion]
    ) -> None:
        """Where a place may be named, make it, in place, one of the regions that are `meant`."""
        places = self._tokens.places
        if recent[-2:] == self._tokens.at_the:
            begun: tuple[int, ...] = ()
        elif recent[:-1] == self._tokens.at_the:
            begun = recent[-1:]
        else:
            return
        named = {places[region.place] for region in meant if region.place in places}
        known, allowed = _find_next(places.values(), begun), _find_next(named, begun)
        if begun and allowed and begun not in named:
            _keep(scores, sorted(allowed))
        elif named:
            _prefer(scores, allowed, known)

    def _constrain(
        self, scores: torch.Tensor, last: int, begun: list[int], left: Sequence[HintRegion]
    ) -> None:
        """Leave out, in place, what may not follow the `last` token of a box that is `begun`."""
        tokens, place = self._tokens, len(begun)
        values = {region.box[place] for region in left if list(region.box[:place]) == begun}
        allowed = [token for token, value in tokens.numbers.items() if value in values]
        if last in (tokens.opening, tokens.space):
            if allowed:
                _keep(scores, allowed)
            elif place >= 2:
                least = begun[place - 2]
                refused = [token for token, value in tokens.numbers.items() if value <= least]
                scores[refused] = -torch.inf
        elif allowed:
            _keep(scores, [tokens.space if last == tokens.comma else tokens.comma])

    def _follow(self, row: int, token: int) -> bool:
        """Take the last token into account: it opens a box, goes on with it or ends it. True when
        it is a box's fourth number, behind which no other may stand."""
        begun = self._begun[row]
        if token == self._tokens.opening:
            self._begun[row] = []
        elif begun is not None and token in self._tokens.numbers:
            begun.append(self._tokens.numbers[token])
            if len(begun) == 4:
                left, self._begun[row] = self._left[row], None
                self._left[row] = [region for region in left if list(region.box) != begun]
                self._meant[row] = [region for region in left if list(region.box) == begun]
                return True
        elif token not in (self._tokens.comma, self._tokens.space):
            self._begun[row] = None
        return False


def _prefer(scores: torch.Tensor, named: set[int], known: set[int]) -> None:
    """Leave out the `known` tokens that are not `named` ones; and all that is neither where one of
    those is what would most likely come: what is left of the rest would be noise."""
    if named and torch.softmax(scores, -1)[sorted(known)].sum() > _LIKELY:
        _keep(scores, sorted(named))
    else:
        scores[sorted(known - named)] = -torch.inf


def _split(said: Sequence[int], comma: int) -> list[tuple[int, ...]]:
    items: list[list[int]] = [[]]
    for token in said:
        if token == comma:
            items.append([])
        else:
            items[-1].append(token)
    return [tuple(item) for item in items]


def _find_next(words: Iterable[tuple[int, ...]], begun: tuple[int, ...]) -> set[int]:
    """The tokens that follow in those of the words that begin so."""
    done = len(begun)
    return {word[done] for word in words if len(word) > done and word[:done] == begun}


def _keep(scores: torch.Tensor, tokens: list[int]) -> None:
    """Leave out all but `tokens`, unless those were left out before: something has to follow."""
    kept = scores[tokens].clone()
    if torch.isneginf(kept).all():
        return
    scores.fill_(-torch.inf)
    scores[tokens] = kept
