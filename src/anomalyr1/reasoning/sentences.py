"""Sentences of a reasoning, and whether what leads to a statement denies it or only supposes it."""

from __future__ import annotations

import re

SO = (
    r"\b(?:so|therefore|thus|hence|consequently|accordingly|ergo|as\s+a\s+result|finally|overall"
    r"|in\s+(?:conclusion|summary|short)|to\s+conclude)\b"
)
"""What announces a conclusion."""

SURELY = (
    r"(?:therefore|thus|hence|then|clearly|obviously|indeed|probably|likely|most|surely|definitely"
    r"|certainly|simply|just|also|still|now|here|overall)"
)
"""Adverbs that may stand in a conclusion without changing it."""

_SO = re.compile(SO, re.IGNORECASE)
_HEDGE = re.compile(
    r"(?<!even )\bif\b|\b(?:whether|unless|suppos\w+|assum\w+|might|may|could|would|at\s+first)\b",
    re.IGNORECASE,
)
_NEGATION = re.compile(
    r"\b(?:not(?!\s+only)|never|no(?!\s+doubt)|hardly|wrong|incorrect|false|unlikely|neither|nor"
    r"|(?<!no )(?<!without )doubt)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(rf"[,;:()]|{SO}|\b(?:but|because|since|and|while|although)\b", re.IGNORECASE)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, undressed and on one line each; questions are left out.

    A line break ends a sentence, but not behind a colon ("Answer:\\nB").

    >>> split_sentences("Is it **B**? It isn't.")
    ['It is not.']
    """
    joined = re.sub(r":\s*\n\s*", ": ", undress(text))
    sentences = re.split(r"(?<=[.!?;])\s+|\n+", joined)
    return [" ".join(part.split()) for part in sentences if not part.rstrip().endswith("?")]


def undress(text: str) -> str:
    """Text without emphasis and quotes, negations written out: "isn't" becomes "is not"."""
    text = re.sub(r"[*`\"“”]", "", text.replace("’", "'").replace("‘", "'"))
    text = re.sub(r"'([A-Za-z])'", r"\1", text)
    text = re.sub(r"\bcan't\b", "can not", text).replace("cannot", "can not")
    return re.sub(r"n't\b", " not", text)


def is_hedged(before: str) -> bool:
    """Whether what follows is only supposed ("if", "might"), unless a "so" stands between.

    >>> is_hedged("If it were dark, the answer"), is_hedged("If in doubt look: dark, so the answer")
    (True, False)
    """
    return _HEDGE.search(_SO.split(before)[-1]) is not None


def is_negated(before: str) -> bool:
    """Whether the clause that leads to a statement denies it ("I do not think that the answer")."""
    return len(_NEGATION.findall(_CLAUSE.split(before)[-1])) % 2 == 1
