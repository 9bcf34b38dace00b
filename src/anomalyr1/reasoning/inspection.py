"""What the reasoning of an inspection concludes: the verdict, kinds of defect, and places."""

from __future__ import annotations

import re
from collections.abc import Iterable

from anomalyr1.data.question_facts import VAGUE_KINDS, exact_kind
from anomalyr1.data.wording import KIND_WORDS
from anomalyr1.reasoning.sentences import SO, SURELY, is_hedged, is_negated, split_sentences
from anomalyr1.types import Label

_FLAW = (
    r"(?:defects?|anomal(?:y|ies)|flaws?|faults?|damages?|irregularit(?:y|ies)"
    r"|abnormalit(?:y|ies))"
)
_PART = (
    r"(?:parts?|products?|objects?|items?|pieces?|samples?|components?|units?|specimens?"
    r"|workpieces?|pictures?|images?)"
)
_IS = (
    r"(?:\s+(?:is|are|was|looks|seems|appears|remains|(?:can|must|should|will)\s+(?:not\s+)?be"
    r"|has\s+to\s+be)(?:\s+to\s+be)?|'s|\s*[:=])"
)
_ADJECTIVE = re.compile(
    r"\b(?:(?P<normal>normal|good|fine|ok|okay|acceptable|intact|conforming|in\s+order"
    rf"|free\s+(?:of|from)\s+(?:all\s+|any\s+)?{_FLAW}|without\s+(?:an?\s+|any\s+)?{_FLAW}"
    rf"|{_FLAW}[\s-]free)|(?P<whole>flawless|faultless|undamaged|perfect)"
    r"|(?P<anomalous>anomalous|abnormal|defective|faulty|flawed|unacceptable|nok"
    r"|non-?conforming)|(?P<spoiled>damaged|broken|bad|rejected))\b(?!-)",
    re.IGNORECASE,
)
_STATED = re.compile(
    rf"(?:(?P<so>{SO}[,:]?)\s*(?:(?P<subject>(?:[\w'-]+\s+){{0,4}}?[\w'-]+){_IS}\s*)?"
    rf"|(?P<noun>\b(?:(?:no|the|this|that|a)\s+)?(?:(?:[\w-]+\s+)?{_PART}|it"
    rf"|verdict|answer|conclusion|result|judge?ment)){_IS}\s*"
    r"|\b(?P<judged>judge|classif(?:y|ied)|consider|deem|rate|mark|regard)(?:e?d)?\s+"
    rf"(?:(?:it|this|that|the|{_PART})\s+)*(?:as\s+|to\s+be\s+)?)"
    rf"(?P<adverbs>(?:(?:not|neither|never|{SURELY}|completely|entirely|fully|visibly|judged"
    r"|considered|classified|as|be|to)\s+)*)(?P<article>an?\s+)?\Z",
    re.IGNORECASE,
)
_EXCEPTED = re.compile(
    r"\s+(?:except|apart|but\s+for|save|other\s+than|if|unless|(?:or|nor)\s+(?:not\s+)?\w+)\b",
    re.IGNORECASE,
)
_PART_NEXT = re.compile(rf"\s+(?:[\w-]+\s+)?{_PART}\b|\s+one\b|\s*(?:[.,;:!]|\Z)", re.IGNORECASE)
_FURTHER = r"(?:other|others|further|more|additional|second|doubt|question|longer)"
_ABSENT = re.compile(
    rf"\b(?:no|not\s+(?:\w+\s+){{0,2}}?any|without(?:\s+any)?|free\s+(?:of|from)(?:\s+any)?)"
    rf"\s+(?:(?!{_FURTHER}\b)[\w-]+\s+){{0,3}}?{_FLAW}\b"
    r"|\bnothing\s+(?:is\s+)?(?:wrong|unusual|abnormal|anomalous|suspicious|defective)\b",
    re.IGNORECASE,
)
_PRESENT = re.compile(
    r"\b(?:there\s+(?:is|are)|shows?|has|have|see|find|found|bears?|contains?)\s+(?:clearly\s+)?"
    r"(?:an?|one|two|three|four|five|several|some|many|multiple|\d+|visible|clear|signs\s+of)\s+"
    rf"(?:[\w-]+\s+){{0,3}}?{_FLAW}\b"
    rf"|\b{_FLAW}\s+(?:is|are)\s+(?:clearly\s+)?(?:visible|present|seen|found|detected|apparent)\b",
    re.IGNORECASE,
)

_DENIAL = re.compile(
    r"\b(?:no(?!\s+doubt)|not(?!\s+only)|never|neither|nor|nothing|none|without|free\s+(?:of|from))\b",
    re.IGNORECASE,
)
_TURN = re.compile(
    rf"[;:]|{SO}|\b(?:but|however|although|while)\b|,\s+(?=(?:there|i|it|an?|the)\b)",
    re.IGNORECASE,
)


def conclude_verdict(reasoning: str) -> Label | None:
    """The verdict that a reasoning concludes last, or None.

    A verdict said of the part ("so the part is normal", "it is defective") or behind a "so"
    ("therefore no defect is present") outweighs a mere statement ("no defect is visible"), which
    counts where there is no other. "Not normal" is anomalous, "not defective" normal; "not broken"
    and "normal except for" conclude nothing, nor does what is only supposed.

    >>> conclude_verdict("No defect is visible, so the part is good.")
    'normal'
    >>> conclude_verdict("Something is unlike a normal part.") is None
    True
    """
    firm: Label | None = None
    loose: Label | None = None
    for sentence in split_sentences(reasoning):
        for label, is_firm in _read_statements(sentence):
            if is_firm:
                firm = label
            else:
                loose = label
    return firm or loose


def _read_statements(sentence: str) -> list[tuple[Label, bool]]:
    """Labels stated in a sentence, in order, and whether each is a verdict rather than evidence."""
    found: list[tuple[int, Label, bool]] = []
    for adjective in _ADJECTIVE.finditer(sentence):
        label = _read_verdict(sentence, adjective)
        if label is not None:
            found.append((adjective.start(), label, True))
    absent = list(_ABSENT.finditer(sentence))
    for statement in absent:
        if not is_hedged(sentence[: statement.start()]):
            found.append((statement.start(), "normal", _follows_so(sentence, statement)))
    for statement in _PRESENT.finditer(sentence):
        before = sentence[: statement.start()]
        inside = any(
            other.start() < statement.end() and statement.start() < other.end() for other in absent
        )
        if re.search(r"\bnot\s+\Z", before):
            found.append((statement.start(), "normal", _follows_so(sentence, statement)))
        elif not inside and not _is_denied(before):
            found.append((statement.start(), "anomalous", _follows_so(sentence, statement)))
    return [(label, firm) for _place, label, firm in sorted(found)]


def _follows_so(sentence: str, statement: re.Match[str]) -> bool:
    return re.search(SO, sentence[: statement.start()], re.IGNORECASE) is not None


def _read_verdict(sentence: str, adjective: re.Match[str]) -> Label | None:
    before, after = sentence[: adjective.start()], sentence[adjective.end() :]
    stated = _STATED.search(before[-120:])
    if stated is None or is_hedged(before) or _EXCEPTED.match(after):
        return None
    if stated["article"] and not _PART_NEXT.match(after):
        return None  # "it is a damaged area" judges the area
    denials = re.findall(
        r"\b(?:not|never|neither|no|nothing|none)\b", stated[0].lower().replace("not only", "")
    )
    negative = len(denials) + is_negated(before[-120:][: stated.start()])
    if adjective["normal"] or adjective["anomalous"]:
        normal = bool(adjective["normal"]) == (negative % 2 == 0)
        return "normal" if normal else "anomalous"
    if negative % 2:
        return None  # what is not broken may be stained, what is not perfect may pass
    return "normal" if adjective["whole"] else "anomalous"


def name_kind(defect_type: str) -> str:
    """A kind of defect under its one name, "" for a name that says no kind ("defect", "ng").

    >>> name_kind("Missing_Parts"), name_kind("anomaly")
    ('missing part', '')
    """
    name = " ".join(defect_type.lower().replace("_", " ").replace("-", " ").split())
    return "" if name in VAGUE_KINDS else exact_kind(name) or name


def find_kinds(reasoning: str, known: Iterable[str] = ()) -> frozenset[str]:
    """The kinds of defect that a reasoning names and does not deny, as `name_kind` writes them.

    Looked for are the kinds of `data.wording` and those `known` beside them.

    >>> sorted(find_kinds("No crack, but two scratches."))
    ['scratch']
    """
    kinds = {*KIND_WORDS, *map(name_kind, known)} - {""}
    spellings = "|".join(
        re.escape(kind).replace(r"\ ", r"[\s-]+")
        for kind in sorted(kinds, key=lambda kind: (-len(kind), kind))
    )
    pattern = re.compile(rf"(?<!\w)(?P<kind>{spellings})(?:e?s)?(?!\w)", re.IGNORECASE)
    return frozenset(
        name_kind(found["kind"])
        for sentence in split_sentences(reasoning)
        for found in pattern.finditer(sentence)
        if not _is_denied(sentence[: found.start()])
    )


_PLACE = (
    r"(?:(?:top|upper|bottom|lower)(?:\s+|-)(?:left|right|cent(?:re|er)|middle)"
    r"|(?:cent(?:re|er)|middle)(?:\s+|-)(?:left|right)|top|upper|bottom|lower|left|right"
    r"|cent(?:re|er)|middle)"
)
# A lone "left" or "right" may be no place ("left out", "the right option"): it needs "at the".
_PLACES = re.compile(
    r"\b(?:(?:at|on|in|to|near|towards?|along)\s+the\s+(?:far\s+|extreme\s+|very\s+)?"
    rf"(?P<list>{_PLACE}\b(?:(?:\s*,\s*|\s*,?\s+and\s+)(?:(?:at|in|on)\s+)?(?:the\s+)?"
    rf"{_PLACE}\b)*)(?!\s+(?:option|answer|place|way|order|size|angle|moment|time|choice)\b)"
    r"|(?P<pair>(?:top|upper|bottom|lower)(?:\s+|-)(?:left|right)\b))",
    re.IGNORECASE,
)
_ONE_PLACE = re.compile(rf"\b{_PLACE}\b", re.IGNORECASE)
_WORDS = {"upper": "top", "lower": "bottom", "center": "centre", "middle": "centre"}


def find_places(reasoning: str) -> frozenset[str]:
    """The places that a reasoning names and does not deny, in `geometry.grid_words`.

    >>> sorted(find_places("The map is bright at the upper-left and centre. Nothing is left out."))
    ['centre', 'top left']
    """
    return frozenset(
        _write_place(place[0])
        for sentence in split_sentences(reasoning)
        for found in _PLACES.finditer(sentence)
        if not _is_denied(sentence[: found.start()])
        for place in _ONE_PLACE.finditer(found[0])
    )


def _write_place(words: str) -> str:
    parts = [_WORDS.get(word, word) for word in re.split(r"[\s-]+", words.lower())]
    return " ".join(part for part in parts if part != "centre") or "centre"


def _is_denied(before: str) -> bool:
    """Whether what follows in a sentence is said to be absent, or only supposed.

    A denial reaches over commas, for lists ("no crack, dent or hole"), but not over "but".
    """
    return is_hedged(before) or _DENIAL.search(_TURN.split(before)[-1]) is not None
