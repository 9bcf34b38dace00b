"""What all report pages share: the template environment, safe text, and a write in one step."""

from __future__ import annotations

import base64
import hashlib
import os
import tempfile
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import jinja2

from anomalyr1.types import InputError

TEXT_LIMIT = 20_000
"""Signs of one text on a page; what is longer is cut, and says so."""


def build_page_environment() -> jinja2.Environment:
    """Templates of this folder: everything is escaped, an unknown name is an error.

    Filters: `csp_hash` for the policy's source expression of an inline text, `clean`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["csp_hash"] = _compute_csp_hash
    environment.filters["clean"] = clean
    return environment


def clean(text: str) -> str:
    r"""Text a page can hold: control characters and lone surrogates become visible signs.

    >>> clean("a\x00b")
    'a␀b'
    """
    cut = text if len(text) <= TEXT_LIMIT else f"{text[:TEXT_LIMIT]} [cut after {TEXT_LIMIT}]"
    return "".join(
        sign
        if sign in "\n\t" or unicodedata.category(sign) not in {"Cc", "Cs"}
        else chr(0x2400 + ord(sign))
        if ord(sign) < 0x20
        else "\ufffd"
        for sign in cut
    )


def write_page(path: Path, parts: Iterable[str]) -> None:
    """Replace `path` in one step, so that a report is never half a report.

    The folder is made where missing. Raises InputError where the file cannot be written; an older
    one is then left as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, parts)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); "
            "free some space or choose a folder you may write to, then build the report again"
        ) from error


def _write_whole(path: Path, parts: Iterable[str]) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".report-", suffix=".html")
    temporary = Path(name)
    try:
        # newline="\n": the policy's hashes hold for these very bytes.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace", newline="\n") as file:
            file.writelines(parts)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _compute_csp_hash(text: str) -> str:
    """The source expression that allows exactly this inline text (CSP level 3, section 2.3.1)."""
    digest = hashlib.sha256(str(text).encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
