"""Model text -> Response. Any string may arrive, none raises, and what cannot be read is recorded
as unread instead of being guessed at.

Statuses: "ok"; "no_answer" (no answer tags); "malformed" (tags, but unreadable); "truncated" (cut
off before a complete answer). Tags are lower-case, as asked for in `prompts`. Lone surrogates in
kept texts become U+FFFD, so that a Response can always be written to a file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from anomalyr1.geometry import clip_box, frame_size, to_original
from anomalyr1.types import Box, BoxFrame, Label, Region, Response

DEFAULT_LETTERS = "ABCDE"

_SURROGATE = re.compile("[\ud800-\udfff]")
_ANSWER_TAG = re.compile(r"</?answer>")
_FENCE = re.compile(r"\A```(?:json|JSON)?[ \t]*\n?(.*)```\Z", re.DOTALL)
_PREFIX = re.compile(r"\s*(?:(?:answer|option|choice)\b\s*:?\s*){0,2}", re.IGNORECASE)
# A letter counts when it is alone, in brackets, or set off by a mark; "e.g." and "A scratch" are
# not options.
_LETTER = re.compile(
    r"\(\s*(?P<bracketed>[A-Za-z])\s*\)[.:]?"
    r"|(?P<bare>[A-Za-z])(?:\s*[):]|\.(?=\s|\Z)|(?=[^\S\n]*(?:\n|\Z))|(?=\s+[-–—]\s))"
)
# A second option named in the text behind the first: "(A) or (B)", "A) B", "A. and not C".
_SECOND_LETTER = re.compile(
    r"\((?P<bracketed>[A-Z])\)"
    r"|(?:\A|[,/&+;]|\b(?i:and|or|not|nor|option|answer|choice)\b)\s*+:?+\s*+"
    r"(?P<bare>[A-Z])(?=[\s).,:;/&+]|\Z)(?!(?<=A)\s+[a-z])"
)
_YES_NO = re.compile(r"\s*[\"'*]*(yes|no)(?=[\s.,!;:\"'*]|\Z)(.*)\Z", re.IGNORECASE | re.DOTALL)
# "Yes and no", "no doubt it is broken": the first word alone would mislead.
_NOT_YES_NO = re.compile(r"\s*(?:and|or|doubt|question)\b", re.IGNORECASE)


class _Unreadable(Exception):
    """Carries the reason; never leaves this module."""


def parse_inspection(
    text: str,
    *,
    shown_size_wh: tuple[int, int],
    original_size_wh: tuple[int, int],
    frame: BoxFrame = "absolute",
    finish_reason: str = "stop",
) -> Response:
    """Read a verdict and its defects; regions come back in original-image pixels.

    The answer tags hold one JSON object, bare or in a ```json fence. "anomalous" without defects
    is ok. Malformed: two different answers, broken JSON, an unknown verdict, "normal" with
    defects, a box that is not four finite numbers, is empty or lies outside the picture. Boxes
    that stick out are clipped, which `problem` says while the status stays ok. A missing
    "defects" key counts as no defects, said in `problem` too.

    >>> answer = '<answer>{"verdict": "normal", "defects": []}</answer>'
    >>> parse_inspection(answer, shown_size_wh=(8, 8), original_size_wh=(8, 8)).label
    'normal'
    """
    reasoning = _read_reasoning(text)
    blocks = _split_answers(text, finish_reason)
    if isinstance(blocks, Response):
        return replace(blocks, reasoning=reasoning)
    try:
        read = [
            _read_inspection(text[start:stop], shown_size_wh, original_size_wh, frame)
            for start, stop in blocks
        ]
        if any(other != read[0] for other in read[1:]):
            raise _Unreadable(f"{len(read)} different answers")
    except _Unreadable as error:
        return Response("malformed", reasoning, problem=_clean(str(error)))
    return replace(read[0], reasoning=reasoning)


def parse_choice(
    text: str,
    options: Mapping[str, str] | None = None,
    finish_reason: str = "stop",
    *,
    untagged: bool = False,
) -> Response:
    """Read the option letter of a multiple-choice answer; letters default to A to E.

    The answer must be one letter, bare or dressed ("(B)", "Option B.", "B) scratch"), or the
    text of one option. A letter inside a sentence is not an answer, because "Based on the image"
    would then read as option B. With `untagged`, what follows the reasoning is the answer where
    there are no answer tags: models that were not trained on them leave them out.

    >>> parse_choice("<answer>B</answer>").choice
    'B'
    >>> parse_choice("I think it is B").status
    'no_answer'
    >>> parse_choice("(B) scratch", untagged=True).choice
    'B'
    """
    reasoning = _read_reasoning(text)
    blocks = _split_answers(text, finish_reason)
    if untagged and isinstance(blocks, Response) and blocks.status == "no_answer":
        blocks = [(text.find("</think>") + len("</think>") if "</think>" in text else 0, len(text))]
    if isinstance(blocks, Response):
        return replace(blocks, reasoning=reasoning)
    known = dict.fromkeys(DEFAULT_LETTERS, "") if options is None else options
    try:
        letters = {_read_choice(text[start:stop], known) for start, stop in blocks}
        if len(letters) > 1:
            raise _Unreadable(f"different answers: {', '.join(sorted(letters))}")
    except _Unreadable as error:
        return Response("malformed", reasoning, problem=_clean(str(error)))
    return Response("ok", reasoning, choice=letters.pop())


def parse_yes_no(text: str) -> Response:
    """Read "yes" or "no" into `choice` from the first word; anything else is malformed.

    Where there are answer tags, what they hold is read, otherwise the whole text.

    >>> parse_yes_no("Yes, there is a defect.").choice
    'yes'
    >>> parse_yes_no("an anomaly is present").status
    'malformed'
    """
    reasoning = _read_reasoning(text)
    blocks = _split_answers(text, "stop")
    if isinstance(blocks, Response):
        if blocks.status == "malformed":
            return replace(blocks, reasoning=reasoning)
        blocks = [(0, len(text))]
    words = set()
    for start, stop in blocks:
        found = _YES_NO.match(text, start, stop)
        if found is None or _NOT_YES_NO.match(found[2]):
            problem = f"neither yes nor no: {_excerpt(text[start:stop])}"
            return Response("malformed", reasoning, problem=problem)
        words.add(found[1].lower())
    if len(words) > 1:
        return Response("malformed", reasoning, problem="different answers: no, yes")
    return Response("ok", reasoning, choice=words.pop())


def _read_reasoning(text: str) -> str:
    """What stands in the think tags; either tag may be missing, as some chat templates open it."""
    start, stop = text.find("<think>"), text.find("</think>")
    if start < 0 and stop < 0:
        return ""
    begin = start + len("<think>") if start >= 0 and (stop < 0 or start < stop) else 0
    if stop < 0:
        answer = text.find("<answer>", begin)
        stop = answer if answer >= 0 else len(text)
    return _clean(text[begin:stop].strip())


def _split_answers(text: str, finish_reason: str) -> list[tuple[int, int]] | Response:
    """Character spans between answer tags, or the Response that says why there are none."""
    tags = list(_ANSWER_TAG.finditer(text))
    expected = ("<answer>", "</answer>")
    paired = all(tag[0] == expected[index % 2] for index, tag in enumerate(tags))
    if finish_reason == "length" and len(tags) < 2 and paired:
        return Response("truncated", problem="cut off before a complete answer")
    if not tags:
        return Response("no_answer", problem="no answer tags")
    if not paired or len(tags) % 2:
        return Response("malformed", problem="answer tags do not pair up")
    return [
        (opened.end(), closed.start()) for opened, closed in zip(tags[::2], tags[1::2], strict=True)
    ]


def _read_inspection(
    answer: str, shown_wh: tuple[int, int], original_wh: tuple[int, int], frame: BoxFrame
) -> Response:
    content = _read_json(answer)
    if not isinstance(content, dict):
        raise _Unreadable(f"answer is not a JSON object: {_excerpt(answer)}")
    verdict = content.get("verdict")
    if verdict not in ("normal", "anomalous"):
        raise _Unreadable(f"verdict is {_excerpt(verdict)}: expected normal or anomalous")
    label: Label = verdict
    defects = content.get("defects", [])
    if not isinstance(defects, list):
        raise _Unreadable(f"defects is not a list: {_excerpt(defects)}")
    if label == "normal" and defects:
        raise _Unreadable(f"verdict normal, but {len(defects)} defects listed")
    problems = [] if "defects" in content else ["no defects list"]
    regions = []
    for number, defect in enumerate(defects, start=1):
        try:
            region, clipped = _read_region(defect, shown_wh, original_wh, frame)
        except _Unreadable as error:
            raise _Unreadable(f"defect {number}: {error}") from error
        regions.append(region)
        if clipped:
            problems.append(f"defect {number}: box reaches out of the picture and was clipped")
    return Response("ok", label=label, regions=tuple(regions), problem="; ".join(problems))


def _read_json(answer: str) -> Any:
    content = answer.strip()
    if fenced := _FENCE.match(content):
        content = fenced[1]
    try:
        return json.loads(content, parse_constant=_refuse_constant, object_pairs_hook=_to_dict)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _Unreadable(f"answer is not JSON: {reason}") from error


def _refuse_constant(name: str) -> None:
    raise _Unreadable(f"answer holds {name}, which is not JSON")


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key given twice would silently keep the last value."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise _Unreadable("a JSON key is given twice")
    return content


def _read_region(
    defect: Any, shown_wh: tuple[int, int], original_wh: tuple[int, int], frame: BoxFrame
) -> tuple[Region, bool]:
    """The region in original-image pixels, and whether its box had to be clipped."""
    if not isinstance(defect, dict):
        raise _Unreadable(f"not a JSON object: {_excerpt(defect)}")
    box = _read_box(defect.get("bbox_2d"))
    texts = [defect.get("label", ""), defect.get("description", "")]
    if not all(isinstance(text, str) for text in texts):
        raise _Unreadable("label and description must be texts")
    inside = clip_box(box, frame_size(shown_wh, frame))
    if inside is None:
        raise _Unreadable(f"box {list(box)} lies outside the picture")
    original = to_original(inside, shown_wh, original_wh, frame)
    if not (original[0] < original[2] and original[1] < original[3]):
        raise _Unreadable(f"box {list(box)} is too thin to be kept")
    return Region(original, _clean(texts[0]), _clean(texts[1])), inside != box


def _read_box(values: Any) -> Box:
    if not isinstance(values, list) or len(values) != 4:
        raise _Unreadable(f"bbox_2d is not four numbers: {_excerpt(values)}")
    sides = []
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _Unreadable(f"bbox_2d holds {_excerpt(value)}, which is not a number")
        try:
            side = float(value)
        except OverflowError:
            side = math.inf
        if not math.isfinite(side):
            raise _Unreadable("bbox_2d holds a number that is not finite")
        sides.append(side)
    left, top, right, bottom = sides
    if right <= left or bottom <= top:
        raise _Unreadable(f"bbox_2d {sides} is empty: expected x1 < x2 and y1 < y2")
    return (left, top, right, bottom)


def _read_choice(answer: str, options: Mapping[str, str]) -> str:
    plain, _places = _undress(answer)
    prefix = _PREFIX.match(plain)
    bare = plain[prefix.end() :] if prefix else plain
    readings = set(_matching_options(plain, options)) | set(_matching_options(bare, options))
    found = _find_letter(plain)
    if found is not None:
        letter, place = found
        known = {option.upper(): option for option in options}
        if letter not in known:
            raise _Unreadable(f"{letter} is not among the options {', '.join(options)}")
        readings.add(known[letter])
        _check_rest(plain, place, known[letter], options)
    if not readings:
        raise _Unreadable(f"no option in {_excerpt(answer)}")
    if len(readings) > 1:
        raise _Unreadable(f"{_excerpt(answer)} reads as {' and '.join(sorted(readings))}")
    return readings.pop()


def _check_rest(plain: str, place: int, letter: str, options: Mapping[str, str]) -> None:
    """Refuse a letter whose text is another option's, or that is followed by another letter."""
    rest = plain[place + 1 :].lstrip(" \t\r\n).:-–—")
    named = _matching_options(rest, options)
    if letter in named:
        return
    if named:
        raise _Unreadable(f"letter {letter}, but the text of option {named[0]}")
    letters = {option.upper() for option in options} - {letter.upper()}
    for second in _SECOND_LETTER.finditer(rest):
        other = second["bracketed"] or second["bare"]
        if other in letters:
            raise _Unreadable(f"letters {letter} and {other} in one answer")


def _find_letter(plain: str) -> tuple[str, int] | None:
    """The upper-case letter an undressed answer leads with, and its place."""
    prefix = _PREFIX.match(plain)
    found = _LETTER.match(plain, prefix.end() if prefix else 0)
    if found is None:
        return None
    name = "bare" if found["bare"] else "bracketed"
    return found[name].upper(), found.start(name)


def _matching_options(text: str, options: Mapping[str, str]) -> list[str]:
    wanted = _normalise(text)
    return [letter for letter, option in options.items() if wanted and _normalise(option) == wanted]


def _normalise(text: str) -> str:
    return " ".join(_undress(text)[0].casefold().split()).rstrip(". ")


def _undress(text: str) -> tuple[str, list[int]]:
    """Text without emphasis and double quotes, and where each kept character stood."""
    places = [place for place, character in enumerate(text) if character not in '*`"“”']
    return "".join(text[place] for place in places), places


def _clean(text: str) -> str:
    return _SURROGATE.sub("\ufffd", text)


def _excerpt(value: Any) -> str:
    """A value in at most 64 characters; lists and objects by type, as repr of deep ones raises."""
    if isinstance(value, list | dict):
        return f"a {type(value).__name__}"
    shown = repr(value[:80] if isinstance(value, str) else value)
    return shown if len(shown) <= 64 else f"{shown[:61]}..."
