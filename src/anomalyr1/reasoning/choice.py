"""Which option of a multiple-choice question a reasoning concludes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from anomalyr1.reasoning.sentences import (
    SO,
    SURELY,
    is_hedged,
    is_negated,
    split_sentences,
    undress,
)

_ARTICLE = re.compile(r"\A(?:an?|the)\s+")

# "the answer is", "right option:", but neither "another option is" nor "option A:", which lists.
_NAMED = (
    r"(?:\b(?:right|correct|best|only|final|proper|true|appropriate|suitable|chosen|remaining"
    r"|likely|my|our)\s+(?:option|choice)"
    r"|(?<!another )(?<!possible )(?<!other )(?<!an )\b(?:answer|conclusion))"
    rf"(?:\s+{SURELY})*"
    r"(?:\s+(?:is|was|(?:must|can|should|will)\s+(?P<not>not\s+)?be|has\s+to\s+be)\b|'s\b|\s*[:=])"
)
_CHOSEN = (
    r"\b(?:i|we)(?:'ll|'d)?\s+(?:(?:would|will|must|shall|therefore|thus)\s+)*"
    r"(?:conclude|choose|pick|select|go\s+with|opt\s+for|decide\s+(?:on|for)|settle\s+on|answer)\b"
)
_CUE = re.compile(rf"{_NAMED}|{_CHOSEN}|(?P<it>\bit\s+(?:is|must\s+be)\b)|(?P<so>{SO})", re.I)
_JUDGED = re.compile(
    r"[.:]?\s+(?:(?:is|was|must\s+be|has\s+to\s+be|remains)\s+(?P<not>not\s+)?"
    rf"(?:{SURELY}\s+)*(?:(?:the|my|our)\s+)?(?:only\s+)?(?:most\s+\w+\s+)?"
    r"(?:(?P<word>right|correct|best|true|fitting|wrong|incorrect|false)\b"
    r"(?:\s+(?P<noun>option|answer|choice|one)\b|(?=\s*(?:[.,;:!)]|\Z))|(?=\s+(?:because|since)\b))"
    r"|(?P<bare>answer|option|choice)\b)|(?P<fits>fits\s+best|matches\s+best|applies)\b)",
    re.I,
)
_LETTER = re.compile(
    r"\s*(?P<named>(?:(?i:the\s+)?(?i:option|answer|choice|letter)\b\s*:?\s*)?)"
    r"(?:\(\s*(?P<bracketed>[A-Za-z])\s*\)|(?P<bare>[A-Za-z])(?![\w'-])(?:(?=\s*(?:[:;,!)\]/&]|\Z))"
    r"|(?=\.(?:\s|\Z))|(?=\s+[-–—]\s)|(?=\s+(?i:because|since|as|and|or|nor|but|not|rather)\b)))"
)
_LETTER_BEFORE = re.compile(
    r"(?:\b(?i:option|answer|choice|letter)\s*:?\s*\(?(?P<named>[A-Za-z])\)?|\((?P<in>[A-Za-z])\)"
    r"|(?:\A\s*|[,;:]\s*|\b(?i:so|therefore|thus|hence|that|only|and|but|then|conclude|say|think)"
    r"\s+)(?P<bare>[A-Z])\)?)\Z"
)
_NEXT_LETTER = re.compile(
    r"\s*(?:,|/|&|\b(?:and|or|nor)\b)+\s*(?:(?:or|and|nor)\s+)?(?:(?i:option|answer)\s+)?"
    r"\(?(?P<letter>[A-Z])(?![\w'-])(?!(?<=A)\s+[a-z])"
)
_NEXT_TEXT = re.compile(r"\s*(?:,|/|\bor\b|\band\b|\bnor\b)+\s*(?:(?:or|and|nor|an?|the)\s+)*")
_TEXT_END = re.compile(
    r"\s*(?:\Z|[.,;:!)/]|[-–—]\s|\b(?:because|since|as|due|here|rather|not|but|or|and|nor)\b)"
)
_FILLER = re.compile(
    rf"\s*(?:[,:=–—-]+|\b(?:(?P<not>not|neither|never)|{SURELY}|so|that|this|it|it's|is|must|be"
    r"|an?|the|there|at|in|on|near|option|answer)\b)",
    re.I,
)
_SUBJECT = re.compile(
    r"[\s,:]*(?P<subject>(?:[\w'-]+\s+){1,6}?)(?:is|are|must\s+be|has\s+to\s+be|shows|lies|looks\s+"
    r"like)\b(?P<not>\s+not\b)?"
)
_INSTEAD = re.compile(r"[^.;]{0,40}?\b(?:but|rather|instead)\b")
_OTHER_THAN_CLAIM = re.compile(r"\b(?:answer|option|choice|conclusion|no|nothing|none|neither)\b")


def conclude_choice(reasoning: str, options: Mapping[str, str]) -> str | None:
    """The letter of the option that a reasoning concludes last, or None.

    A conclusion names a letter ("so the answer is B", "therefore option (B)", "B is correct") or
    an option's own text ("so the answer is a scratch", "therefore: no"). Denying an option takes
    it back if it was concluded; naming two leaves the matter open.

    >>> options = {"A": "Scratch", "B": "Dent"}
    >>> conclude_choice("A scratch is visible. So the answer is a dent.", options)
    'B'
    >>> conclude_choice("A scratch is visible.", options) is None
    True
    """
    texts = {letter: _bare_option(text) for letter, text in options.items()}
    texts = {letter: text for letter, text in texts.items() if len(text) > 1}
    concluded: str | None = None
    for sentence in split_sentences(reasoning):
        for letters, holds in _read_claims(sentence, options, texts):
            if holds:
                concluded = next(iter(letters)) if len(letters) == 1 else None
            elif concluded in letters:
                concluded = None
    return concluded


def _bare_option(text: str) -> str:
    return _ARTICLE.sub("", " ".join(undress(text).lower().split())).rstrip(" .")


_Claim = tuple[frozenset[str], bool]


def _read_claims(
    sentence: str, options: Mapping[str, str], texts: Mapping[str, str]
) -> Iterator[_Claim]:
    """(options, whether they are held right) in the sentence's order; no options: one unknown."""
    claims: list[tuple[int, _Claim]] = []
    for cue in _CUE.finditer(sentence):
        before, rest = sentence[: cue.start()], sentence[cue.end() :]
        if cue["so"]:
            if re.search(r"\b(?:not|if|even|or)\s+\Z", before, re.I):
                continue
            read = _read_claim(rest, options, texts) or _read_subject(rest, texts)
        elif is_hedged(before):
            continue
        else:
            holds = not is_negated(before) and not cue["not"]
            read = _read_claim(rest, options, texts, holds=holds)
            if cue["it"]:  # "it is": a letter in a question of letters; a text may be anything
                read = [claim for claim in read if _LETTER.match(rest)]
        claims += [(cue.end(), claim) for claim in read]
    for judged in _JUDGED.finditer(sentence):
        before = sentence[: judged.start()]
        letter, start = _find_before(before, options, texts, bool(judged["noun"]))
        if letter is not None and not is_hedged(before[:start]):
            word = (judged["word"] or "").lower()
            denied = word in ("wrong", "incorrect", "false"), judged["not"]
            negative = sum(map(bool, denied)) + is_negated(before[:start])
            claims.append((judged.end(), (frozenset((letter,)), negative % 2 == 0)))
    return (claim for _place, claim in sorted(claims, key=lambda pair: pair[0]))


def _read_claim(
    rest: str, options: Mapping[str, str], texts: Mapping[str, str], *, holds: bool = True
) -> list[_Claim]:
    """What is claimed right behind a cue: one option, several, or none of the known ones."""
    for _step in range(10):
        found = _match_letter(rest, options, texts) or _match_text(rest.lower(), texts)
        if found is not None:
            letters, tail = found
            claims = [(letters, holds)]
            if not holds and (instead := _INSTEAD.match(tail)):
                claims += _read_claim(tail[instead.end() :], options, texts)
            return claims
        filler = _FILLER.match(rest)
        if filler is None:
            break
        holds = holds ^ bool(filler["not"])
        rest = rest[filler.end() :]
    return []


def _read_subject(rest: str, texts: Mapping[str, str]) -> list[_Claim]:
    """Behind "so", "the defect is a scratch": an option's text said of something; no letter."""
    lower = rest.lower()
    found = _SUBJECT.match(lower)
    if found is None or _OTHER_THAN_CLAIM.search(found["subject"]) or is_hedged(found["subject"]):
        return []
    return _read_claim(lower[found.end() :], {}, texts, holds=not found["not"])


def _match_letter(
    rest: str, options: Mapping[str, str], texts: Mapping[str, str]
) -> tuple[frozenset[str], str] | None:
    found = _LETTER.match(rest) if options else None
    if found is None:
        return None
    tail = rest[found.end() :]
    said = found["bracketed"] or found["bare"]
    # A lower-case letter alone must end the sentence: "the answer is a" but not "a, well, scratch".
    if said.islower() and not found["named"] and found["bare"] and tail.strip(" .!)"):
        return None
    known = {letter.upper(): letter for letter in options}
    letters = {known[said.upper()]} if said.upper() in known else set()
    while following := _NEXT_LETTER.match(tail):
        if following["letter"] in known:
            letters.add(known[following["letter"]])
        tail = tail[following.end() :]
    named = _match_text(tail.lstrip(" ).:,-–—").lower(), texts)
    if named is not None and not named[0] & letters:
        letters |= named[0]  # "B: scratch", where scratch is another option's text
    return frozenset(letters), tail


def _match_text(rest: str, texts: Mapping[str, str]) -> tuple[frozenset[str], str] | None:
    """The option whose whole text a lower-case rest starts with, and others listed behind it."""
    letters: set[str] = set()
    rest = rest.lstrip()
    while found := max(
        (
            (len(text), letter)
            for letter, text in texts.items()
            if rest.startswith(text) and _TEXT_END.match(rest, len(text))
        ),
        default=None,
    ):
        length, letter = found
        letters |= {other for other, text in texts.items() if text == texts[letter]}
        rest = rest[length:]
        following = _NEXT_TEXT.match(rest)
        if following is None:
            break
        if _match_text(rest[following.end() :], texts) is None:
            # "scratch or something": open; "no, the part is whole": said and explained.
            return (frozenset(letters), rest) if following[0].strip() == "," else None
        rest = rest[following.end() :]
    return (frozenset(letters), rest) if letters else None


def _find_before(
    before: str, options: Mapping[str, str], texts: Mapping[str, str], text_counts: bool
) -> tuple[str | None, int]:
    """The option named at the end of a text, with its start; texts only before "right answer"."""
    if found := _LETTER_BEFORE.search(before[-80:]):
        said = next(group for group in found.groups() if group).upper()
        start = len(before) - (len(found.string) - found.start())
        return next((letter for letter in options if letter.upper() == said), None), start
    lower = before.lower()
    ending = [
        (len(text), letter)
        for letter, text in texts.items()
        if text_counts and re.search(rf"(?<!\w){re.escape(text)}\Z", lower)
    ]
    return (max(ending)[1], len(before) - max(ending)[0]) if ending else (None, 0)
