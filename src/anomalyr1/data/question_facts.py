"""What multiple-choice questions must know to have one right option: which kinds of defect may be
taken for each other, which causes and effects fit several kinds, what normal parts are like.

A wrong option is only written where these tables rule out that it is right as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from anomalyr1.data.wording import KIND_WORDS

VAGUE_KINDS = frozenset(
    ("", "anomalous", "anomaly", "bad", "combined", "defect", "defective", "good", "ng", "normal")
)
"""Folder names that say that something is wrong but not what."""

_ALIKE = (
    ("scratch", "cut"),
    ("scratch", "thread pull"),
    ("crack", "cut"),
    ("crack", "chipped edge"),
    ("hole", "missing part"),
    ("dent", "bent"),
    ("stain", "discolouration"),
    ("stain", "contamination"),
    ("stain", "misprint"),
    ("missing part", "misplaced part"),
    ("missing part", "chipped edge"),
    ("misplaced part", "contamination"),
)
"""Pairs of kinds of which neither is a fair wrong option for the other."""

_LOOK_ALIKE = (
    ("scratch", "crack", "cut", "thread pull"),
    ("hole", "stain", "contamination", "dent"),
    ("hole", "missing part", "chipped edge", "cut", "crack"),
    ("stain", "discolouration", "contamination", "misprint"),
    ("dent", "bent", "discolouration"),
    ("missing part", "misplaced part", "chipped edge"),
    ("misplaced part", "contamination", "bent"),
)
"""Groups of kinds whose looks, told without their name, could be said of one another."""

_KIND_HINTS: dict[str, tuple[str, ...]] = {
    "blowhole": ("hole",),
    "break": ("crack", "chipped edge", "missing part", "cut"),
    "broken": ("crack", "chipped edge", "missing part", "cut", "hole"),
    "chip": ("chipped edge",),
    "color": ("discolouration",),
    "colour": ("discolouration",),
    "copper": ("contamination", "misplaced part", "misprint"),
    "faulty imprint": ("misprint",),
    "fold": ("bent", "crack"),
    "fray": ("thread pull", "cut", "chipped edge"),
    "glue": ("contamination",),
    "imprint": ("misprint",),
    "liquid": ("stain",),
    "metal contamination": ("contamination",),
    "misplaced": ("misplaced part",),
    "missing": ("missing part",),
    "mousebite": ("chipped edge", "hole"),
    "oil": ("stain",),
    "open": ("missing part", "cut", "crack"),
    "pin hole": ("hole",),
    "poke": ("hole", "dent"),
    "print": ("misprint",),
    "short": ("contamination", "misplaced part", "misprint"),
    "spot": ("stain", "contamination", "discolouration"),
    "spur": ("contamination", "misplaced part", "misprint", "bent"),
    "squeeze": ("dent", "bent"),
    "thread": ("thread pull", "contamination"),
    "uneven": ("discolouration", "stain", "dent", "bent", "scratch"),
}
"""Names that data sets give to defects, and the kinds they may mean."""

_SPELLINGS = {"discoloration": "discolouration", "misprinted": "misprint"}

_MECHANICAL = ("scratch", "crack", "hole", "dent", "missing part", "bent", "chipped edge", "cut")
_MARKS = ("stain", "discolouration", "contamination", "misprint")
_ALSO_FITS: dict[str, tuple[str, ...]] = {
    "contact with a hard edge": (*_MECHANICAL, "thread pull"),
    "careless handling": (*_MECHANICAL, "thread pull", "contamination", "stain", "misplaced part"),
    "stress in the material": ("bent", "chipped edge", "dent", "thread pull", "cut", "hole"),
    "an impact": (*_MECHANICAL, "misplaced part"),
    "trapped gas": ("dent", "crack"),
    "a puncture": ("cut", "crack", "dent", "missing part"),
    "a knock during transport": (*_MECHANICAL, "misplaced part"),
    "pressure from a tool": (*_MECHANICAL, "misplaced part", "discolouration"),
    "spilled fluid": _MARKS,
    "oil or ink": _MARKS,
    "overheating": ("crack", "bent", "hole", "stain"),
    "uneven treatment": _MARKS,
    "an assembly step left out": ("misplaced part",),
    "material torn away": ("hole", "chipped edge", "cut", "thread pull", "crack"),
    "wrong assembly": ("missing part", "bent"),
    "a loose fixture": ("missing part", "bent", "scratch", "misprint", "dent"),
    "excess force": (*_MECHANICAL, "misplaced part", "thread pull"),
    "a jam in the machine": (*_MECHANICAL, "misplaced part", "thread pull", "misprint"),
    "an impact on the edge": (*_MECHANICAL, "misplaced part"),
    "brittle material": ("crack", "hole", "missing part"),
    "a blade": ("scratch", "thread pull", "missing part", "chipped edge", "hole"),
    "a sharp burr": ("scratch", "thread pull", "dent", "hole"),
    "snagging": ("cut", "scratch", "missing part", "bent", "hole"),
    "uneven tension": ("bent", "crack"),
    "dust in the process": ("stain", "discolouration", "scratch", "hole", "misprint"),
    "poor cleaning": ("stain", "discolouration", "misprint"),
    "a slipping print head": ("scratch", "stain"),
    "too much ink": ("stain", "discolouration"),
    "the coating is weakened": (*_MECHANICAL, *_MARKS),
    "the part may break": (*_MECHANICAL, "thread pull"),
    "the strength is reduced": (*_MECHANICAL, "thread pull", "discolouration"),
    "the part may leak": (*_MECHANICAL, "misplaced part"),
    "the section is weakened": (*_MECHANICAL, "thread pull"),
    "coating may not hold there": (*_MARKS, "scratch"),
    "the edge no longer seals": (*_MECHANICAL, "misplaced part", "contamination"),
    "the edge may crumble further": (*_MECHANICAL, "misplaced part"),
    "the material may tear further": (*_MECHANICAL, "thread pull"),
    "the surface is open": _MECHANICAL,
    "the weave may run": ("cut", "hole", "missing part"),
    "the surface is not clean": ("stain", "discolouration", "misprint", "misplaced part"),
    "the mark cannot be read": (*_MECHANICAL, *_MARKS, "misplaced part"),
    "the label is not valid": ("stain", "misplaced part", "missing part", "discolouration"),
}
"""Cause or effect to the kinds it may be said of, besides its own. A phrase that is not listed
("the look is spoiled") may be said of any kind: it is never a wrong option."""


def known_kinds(defect_type: str) -> frozenset[str]:
    """The kinds of `wording.KIND_WORDS` that a data set's name may mean; empty for other names.

    >>> sorted(known_kinds("scratches")), sorted(known_kinds("squeeze")), known_kinds("logical")
    (['scratch'], ['bent', 'dent'], frozenset())
    """
    name = _plain_name(defect_type)
    if name in KIND_WORDS:
        return frozenset((name,))
    words = set(name.split())
    found = {kind for kind in KIND_WORDS if set(kind.split()) <= words}
    for hint, kinds in _KIND_HINTS.items():
        if set(hint.split()) <= words:
            found.update(kinds)
    return frozenset(found)


def exact_kind(defect_type: str) -> str | None:
    """The kind of `wording.KIND_WORDS` that a name is, but for its spelling, or None."""
    name = _plain_name(defect_type)
    return name if name in KIND_WORDS else None


def kinds_alike(kinds: frozenset[str], *, by_look: bool = False) -> frozenset[str]:
    """`kinds` and those that are no fair wrong option beside them, by name or by look."""
    groups = (*_ALIKE, *_LOOK_ALIKE) if by_look else _ALIKE
    return kinds.union(*(group for group in groups if kinds & set(group)))


def fits_kind(phrase: str, kind: str) -> bool:
    """Whether a cause or effect may be said of a kind of defect."""
    if phrase not in _ALSO_FITS:
        return True
    words = KIND_WORDS[kind]
    return phrase in (*words.causes, *words.effects) or kind in _ALSO_FITS[phrase]


def _plain_name(defect_type: str) -> str:
    name = " ".join(defect_type.lower().replace("_", " ").replace("-", " ").split())
    name = _SPELLINGS.get(name, name)
    for ending in ("es", "s"):
        if name.removesuffix(ending) in KIND_WORDS:
            return name.removesuffix(ending)
    return name


@dataclass(frozen=True, slots=True)
class Fact:
    """Something true of every normal part of a category.

    `topic` is a key of `FACT_QUESTIONS`. A fact of another category is a wrong option only where
    the two have no word of `groups` in common; facts without groups are told apart by their text.
    """

    topic: str
    text: str
    groups: tuple[str, ...] = ()


FACT_QUESTIONS: dict[str, tuple[str, ...]] = {
    "material": (
        "What is this kind of product made of?",
        "Which material is usual for this product?",
    ),
    "shape": (
        "Which structure does a normal one of these have?",
        "What does this product look like when it is normal?",
    ),
    "use": ("What is this product used for?", "Which purpose does this product serve?"),
}


def _facts(shape: str, material: tuple[str, ...], use: tuple[str, ...]) -> tuple[Fact, ...]:
    """A category's facts; the first of `material` and `use` is the text, the rest its groups."""
    facts = [Fact("shape", shape)]
    facts += [Fact("material", material[0], material[1:])] if material else []
    facts += [Fact("use", use[0], use[1:])] if use else []
    return tuple(facts)


_METAL = ("metal", "metal")
_YARN = ("textile yarn", "yarn")
_BOARD = ("copper on an insulating board", "metal", "plastic", "board")
_JOINING = ("holding parts together", "joining")
_CIRCUIT = ("carrying an electric circuit", "electric")

CATEGORY_FACTS: dict[str, tuple[Fact, ...]] = {
    "brushed metal": _facts("fine parallel grain all over", _METAL, ()),
    "ground metal tile": _facts("a flat grey face with straight grinding marks", _METAL, ()),
    "woven fabric": _facts(
        "threads in a regular weave", _YARN, ("clothing and covers", "textile", "cover")
    ),
    "wood": _facts(
        "rings and fibres that follow one grain",
        ("timber", "plant"),
        ("furniture and building", "cover"),
    ),
    "leather": _facts(
        "pores and creases of a hide",
        ("animal hide", "hide"),
        ("bags, shoes and seats", "textile", "cover"),
    ),
    "ceramic tile": _facts(
        "a smooth glazed face", ("fired clay", "clay"), ("covering walls and floors", "cover")
    ),
    "carpet": _facts(
        "a dense pile of tufts or loops", _YARN, ("covering a floor", "cover", "textile")
    ),
    "painted sheet": _facts("an even coat of paint", (), ()),
    "screw": _facts("a head on a threaded shank", _METAL, _JOINING),
    "nut": _facts("six flat sides around a threaded hole", _METAL, _JOINING),
    "washer": _facts(
        "a flat round ring", _METAL, ("spreading the load under a screw head", "joining")
    ),
    "bottle cap": _facts("a round top with a crimped rim", _METAL, ("closing a bottle", "closing")),
    "capsule": _facts(
        "two halves with round ends, pushed together",
        ("gelatine", "organic"),
        ("holding a dose of medicine",),
    ),
    "gear": _facts("teeth all around its rim", _METAL, ("passing on a turning motion",)),
    "connector": _facts(
        "a row of pins in a housing",
        ("plastic with metal pins", "metal", "plastic"),
        ("joining electric lines", "electric", "joining"),
    ),
    "circuit board": _facts("chips and traces on a coloured board", _BOARD, _CIRCUIT),
    "etched board": _facts("dark and light tracks without chips", _BOARD, _CIRCUIT),
    "nut kernel": _facts("a rounded brown body", ("plant matter", "plant", "organic"), ("food",)),
}
"""Category, in words, to facts of its normal state; "shape" texts are all different."""

_SAME_PRODUCT = (
    ("carpet", "woven fabric", "textile", "fabric", "grid"),
    ("circuit board", "etched board", "pcb", "board"),
    ("nut kernel", "hazelnut", "nut"),
    ("capsule", "pill", "tablet"),
    ("ceramic tile", "painted sheet", "stone", "marble"),
    ("brushed metal", "painted sheet", "metal"),
    ("bottle cap", "bottle", "cap"),
    ("connector", "cable", "plug"),
)


def spoken(name: str) -> str:
    """A category or kind as it is said: "ground_metal_tile" is "ground metal tile"."""
    return " ".join(name.replace("_", " ").split())


def may_be_called(category: str, other: str) -> bool:
    """Whether a part of one category could rightly be called the other.

    >>> may_be_called("nut", "nut kernel"), may_be_called("gear", "washer")
    (True, False)
    """
    first, second = spoken(category).lower(), spoken(other).lower()
    if any(one in two or two in one for one in first.split() for two in second.split()):
        return True
    return any(first in group and second in group for group in _SAME_PRODUCT)
