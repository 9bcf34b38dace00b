"""Keeps the answer of a small model to what its prompt lists and in shape: its boxes are those of
the prompt's regions, all of them and each once, as many as it says and none without area; it calls
a region no other kind and no other place than the prompt does; the option that it settles on is one
of the question's, and its letter that option's; and nothing follows the answer.

For tokenizers whose numbers are one token each, as the bundled model's: it chooses well among the
regions of an anomaly map, and copies badly where they are many.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import LogitsProcessor

from anomalyr1.data.question_options import LETTERS
from anomalyr1.data.wording import TAKEN_FOR
from anomalyr1.engines.answer_tokens import AnswerTokens
from anomalyr1.types import Listed

_LIKELY = 0.5


class AnswerGrammar(LogitsProcessor):  # type: ignore[misc]
    """Leaves out what would not continue the box of one of a prompt's regions that its answer has
    not written yet, a fifth number in a box, a box's key where no defect begins, further defects
    once all are written, the end of the list before, quotation marks, braces and brackets in a
    reasoning and in what is said of a defect, a second beginning, text after the answer, and its
    end before its tag. Where no region is listed, or a box is begun that is not: numbers that leave
    a box without area.

    The reasoning tells how many regions there are, and the answer boxes all of them: the model says
    whether there is a defect, and what stands out. Left to itself, the bundled one says two and
    boxes about four where a map has more.

    A sentence that tells the map is told as the prompt does. Behind a box, kind and place are not
    those of other regions; before it, not such as no region has. Other words may be written: a
    person's "hair" for what the map takes for a scratch. Of a question's options the one that
    "fits best" is quoted word for word: the one that the answer has named last, where it has named
    any. No other letter is named from there on, and the answer is a letter.

    An answer can still be unreadable. One object serves one call of `generate`, with what each of
    its rows lists; not for beam search, which moves answers between rows.
    """

    def __init__(self, tokens: AnswerTokens, listed: Sequence[Listed]) -> None:
        self._rows = [_Row(tokens, own) for own in listed]

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        for row, own, recent in zip(self._rows, scores, input_ids[:, -3:].tolist(), strict=True):
            row.constrain(own, tuple(recent))
        return scores


@dataclass(slots=True)
class _Sentence:
    """A sentence that is begun: what it may name, how many at most, and what is said of it."""

    items: Sequence[tuple[int, ...]]
    most: int
    said: list[int] = field(default_factory=list)


class _Row:
    """One answer: which regions are `left` to box, which are `meant` here, what is begun."""

    def __init__(self, tokens: AnswerTokens, listed: Listed) -> None:
        self._tokens = tokens
        self._regions = listed.regions
        self._strength = listed.strength
        self._left = list(listed.regions)
        self._meant = list(listed.regions)
        self._box: list[int] | None = None
        self._sentence: _Sentence | None = None
        self._counting: tuple[int, ...] | None = None
        known = all(letter in tokens.letters for letter, _text in listed.options)
        options = listed.options if known else ()
        self._options = {letter: tokens.encode(text) for letter, text in options}
        self._letters = {form for letter in self._options for form in tokens.letters[letter]}
        self._named = {letter: tokens.encode_named(text) for letter, text in options}
        self._written: list[int] = []
        self._quotable = self._options
        self._quote: list[int] | None = None
        self._is_begun = False
        self._is_question = bool(listed.options)
        self._ends: frozenset[int] | None = None if self._is_question else frozenset()
        self._is_answering = False
        self._refused: set[int] = set()

    def constrain(self, scores: torch.Tensor, recent: tuple[int, ...]) -> None:
        """Leave out of scores (vocabulary,), in place, what may not follow the last tokens."""
        tokens, (slash, name, token) = self._tokens, recent
        if self._follow(token):
            scores[[tokens.comma, tokens.space, *tokens.numbers]] = -torch.inf
        elif self._box is not None:
            self._go_on_with_box(scores, token, self._box)
        elif self._regions and not self._left:
            scores[tokens.defect_end] = -torch.inf
        elif self._regions and len(self._left) < len(self._regions):
            scores[sorted(tokens.list_ends)] = -torch.inf
        if token not in tokens.braces:
            scores[tokens.key] = -torch.inf
        self._end_answer(scores, slash, name, token)
        self._keep_plain(scores, recent)
        if self._options:
            self._written.append(token)
            self._choose(scores, recent)
        if not self._is_question:
            self._count(scores, token)
        if not self._tell(scores, recent):
            self._name_kind(scores, token)
            self._name_place(scores, recent)

    def _end_answer(self, scores: torch.Tensor, slash: int, name: int, token: int) -> None:
        """Begin the text once, an answer by its tag, and end the text behind it and not before."""
        tokens = self._tokens
        if self._is_begun:
            scores[tokens.thinking] = -torch.inf
        self._is_begun = True
        if token == tokens.name and name in tokens.askings:
            self._is_answering = True
        elif (name, token) == (tokens.name, tokens.bracket) and slash in tokens.slashes:
            self._is_answering = False
            _keep(scores, [tokens.end])
        if self._is_answering:
            scores[tokens.end] = -torch.inf
        if token not in tokens.askings and token not in tokens.slashes:
            scores[tokens.name] = -torch.inf

    def _keep_plain(self, scores: torch.Tensor, recent: tuple[int, ...]) -> None:
        """Of the marks leave in words none but those that end them. A reasoning is words until a
        tag follows; so are a defect's label and description."""
        tokens, token = self._tokens, recent[-1]
        if recent in tokens.values:
            self._ends = tokens.values[recent]
        elif token in tokens.slashes or token == tokens.name or token in (self._ends or ()):
            self._ends = None
        if self._ends is not None:
            scores[sorted(tokens.marks - self._ends)] = -torch.inf

    def _follow(self, token: int) -> bool:
        """Take the last token into account: it opens a box, goes on with it or ends it. True when
        it is a box's fourth number, behind which no other may stand."""
        box = self._box
        if token == self._tokens.opening:
            self._box = []
        elif box is not None and token in self._tokens.numbers:
            box.append(self._tokens.numbers[token])
            if len(box) == 4:
                left, self._box = self._left, None
                self._left = [region for region in left if list(region.box) != box]
                self._meant = [region for region in left if list(region.box) == box]
                return True
        elif token not in (self._tokens.comma, self._tokens.space):
            self._box = None
        return False

    def _go_on_with_box(self, scores: torch.Tensor, last: int, box: Sequence[int]) -> None:
        tokens, place = self._tokens, len(box)
        values = {
            region.box[place] for region in self._left if list(region.box[:place]) == list(box)
        }
        allowed = [token for token, value in tokens.numbers.items() if value in values]
        if last in (tokens.opening, tokens.space):
            if allowed:
                _keep(scores, allowed)
            elif place >= 2:
                least = box[place - 2]
                refused = [token for token, value in tokens.numbers.items() if value <= least]
                scores[refused] = -torch.inf
        elif allowed:
            _keep(scores, [tokens.space if last == tokens.comma else tokens.comma])

    def _count(self, scores: torch.Tensor, token: int) -> None:
        """Where a reasoning begins to tell how many defects there are, make it the regions' number:
        all of them are boxed."""
        if token == self._tokens.there and self._regions:
            self._counting = ()
        elif self._counting is not None:
            self._counting += (token,)
        if self._counting is not None:
            number = self._tokens.encode_count(len(self._regions))
            following = _find_next([number], self._counting)
            if following:
                _keep(scores, sorted(following))
            else:
                self._counting = None

    def _choose(self, scores: torch.Tensor, recent: tuple[int, ...]) -> None:
        """Quote an option where one is to be settled on, and answer with a letter."""
        tokens, (before, name, token) = self._tokens, recent
        if self._quote is not None:
            self._quote.append(token)
            settled = {letter for letter, text in self._options.items() if text == (*self._quote,)}
            if settled:
                self._quote = None
                others = {*LETTERS, *self._options} - {min(settled)}
                self._refused = {form for letter in others for form in tokens.letters[letter]}
        elif recent == tokens.quoting and not self._refused:
            self._quote = []
            self._quotable = self._find_named() or self._options
        if self._quote is not None:
            _keep(scores, sorted(_find_next(self._quotable.values(), tuple(self._quote))))
            return
        scores[sorted(self._refused)] = -torch.inf
        if token == tokens.name and name in tokens.askings:
            _keep(scores, sorted({tokens.answers[letter] for letter in self._options}))
        elif name == tokens.name and before in tokens.askings and token in self._letters:
            _keep(scores, [tokens.closing])

    def _find_named(self) -> dict[str, tuple[int, ...]]:
        """The option that the answer has named last, of several that end there the longest."""
        places = {
            letter: (_find_end(self._written, named), len(named))
            for letter, named in self._named.items()
        }
        last = max(places.values())
        return {
            letter: self._options[letter]
            for letter, place in places.items()
            if place == last and last[0] > 0
        }

    def _tell(self, scores: torch.Tensor, recent: tuple[int, ...]) -> bool:
        """Make a sentence on the map that is begun name what the regions are or where, each once
        and in any order. False where there is none."""
        tokens, sentence = self._tokens, self._sentence
        if sentence is not None:
            sentence.said.append(recent[-1])
        elif self._meant == self._left:
            sentence = self._begin_sentence(recent)
        if sentence is not None and sentence.said[-1:] == [tokens.period]:
            sentence = None
        self._sentence = sentence
        if sentence is None:
            return False
        *done, item = _split(sentence.said, tokens.comma)
        left = [other for other in sentence.items if other not in done]
        allowed = _find_next(left, item)
        if item in left:
            allowed.add(tokens.period)
            if len(left) > 1 and len(done) + 1 < sentence.most:
                allowed.add(tokens.comma)
        _keep(scores, sorted(allowed))
        return True

    def _begin_sentence(self, recent: tuple[int, ...]) -> _Sentence | None:
        for begun, words, most in self._tokens.lists:
            if recent[-len(begun) :] == begun:
                named = [word for own in self._meant for word in (own.place, own.kind)]
                items = [
                    words[word]
                    for word in dict.fromkeys([self._strength, *named, *TAKEN_FOR])
                    if word in words
                ]
                if items:
                    return _Sentence(items, most)
        return None

    def _name_kind(self, scores: torch.Tensor, token: int) -> None:
        """Where a kind may be named, make it one of the regions that are meant."""
        meant, begins = self._meant, self._tokens.kinds
        if token not in self._tokens.severities or not all(region.kind for region in meant):
            return
        named = {token for region in meant for token in begins.get(region.kind, ())}
        if named:
            _prefer(scores, named, {token for tokens in begins.values() for token in tokens})

    def _name_place(self, scores: torch.Tensor, recent: tuple[int, ...]) -> None:
        """Where a place may be named, make it one of the regions that are meant."""
        places = self._tokens.places
        if recent[-2:] == self._tokens.at_the:
            begun: tuple[int, ...] = ()
        elif recent[:-1] == self._tokens.at_the:
            begun = recent[-1:]
        else:
            return
        named = {places[region.place] for region in self._meant if region.place in places}
        known, allowed = _find_next(places.values(), begun), _find_next(named, begun)
        if begun and allowed and begun not in named:
            _keep(scores, sorted(allowed))
        elif named:
            _prefer(scores, allowed, known)


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


def _find_end(tokens: Sequence[int], words: tuple[int, ...]) -> int:
    """Behind which of the tokens the words end last; 0 where they do not stand there."""
    length = len(words)
    starts = range(len(tokens) - length, -1, -1)
    return next((at + length for at in starts if tuple(tokens[at : at + length]) == words), 0)


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
