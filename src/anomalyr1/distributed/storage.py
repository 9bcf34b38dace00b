"""Local folders and fsspec URLs alike: list pictures, read bounded bytes, write whole files."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from anomalyr1.images import IMAGE_SUFFIXES, MAX_BYTES, walk_images, write_bytes_atomic
from anomalyr1.types import InputError


def is_url(place: str) -> bool:
    """Whether a place is an fsspec URL and not a local path.

    >>> is_url("s3://bucket/parts"), is_url("photos/part.png")
    (True, False)
    """
    return "://" in place


def join(place: str, name: str) -> str:
    """A place below another; `name` may be absolute or a URL, and then stands alone.

    >>> join("s3://bucket/lists", "../parts/a.png")
    's3://bucket/parts/a.png'
    """
    if is_url(name):
        return name
    if not is_url(place):
        return os.path.normpath(Path(place) / name)
    protocol, _, rest = place.partition("://")
    return f"{protocol}://{os.path.normpath(PurePosixPath(rest) / name)}"


def walk_pictures(place: str) -> Iterator[str]:
    """Paths or URLs of the pictures below a folder, sorted folder by folder, as they are listed.

    Hidden files and folders are skipped and only known suffixes kept. Raises InputError for a
    folder that is not there or cannot be listed.
    """
    if not is_url(place):
        if not Path(place).is_dir():
            raise InputError(f"{place}: no such folder; check the spelling")
        yield from map(str, walk_images(Path(place)))
        return
    files, root = _open(place)
    protocol = place.partition("://")[0]
    with _naming(place):
        if not files.exists(root):
            raise InputError(f"{place}: no such folder; check the URL")
        for folder, names, entries in files.walk(root):
            names.sort()
            for hidden in [name for name in names if name.startswith(".")]:
                names.remove(hidden)
            for entry in sorted(entries):
                suffix = PurePosixPath(entry).suffix.lower()
                if not entry.startswith(".") and suffix in IMAGE_SUFFIXES:
                    yield f"{protocol}://{folder.strip('/')}/{entry}"


def read_bytes(place: str, max_bytes: int = MAX_BYTES) -> bytes:
    """A file's content. Raises InputError for what is missing, unreadable or larger."""
    files, path = _open(place)
    with _naming(place):
        size = files.size(path)
        if size is not None and size > max_bytes:
            raise InputError(f"{place}: has {size:,} bytes, at most {max_bytes:,} are read")
        content: bytes = files.cat_file(path)
        return content


@contextmanager
def opened(place: str) -> Iterator[Any]:
    """A file open for reading bytes, as a context. Raises InputError where it cannot be read."""
    files, path = _open(place)
    with _naming(place), files.open(path, "rb") as file:
        yield file


def write_whole(place: str, content: bytes) -> None:
    """Write a file so that it is there whole or not at all: a rename, or an object store's put."""
    with _naming(place):
        if is_url(place):
            files, path = _open(place)
            if "file" in files.protocol:
                files.makedirs(str(PurePosixPath(path).parent), exist_ok=True)
                partial = f"{path}.{secrets.token_hex(4)}.tmp"
                files.pipe_file(partial, content)
                files.mv(partial, path)
            else:
                files.pipe_file(path, content)
        else:
            write_bytes_atomic(place, content)


def remove(place: str) -> None:
    """Remove a file."""
    files, path = _open(place)
    with _naming(place):
        files.rm_file(path)


def clear_partial(place: str) -> None:
    """Remove what killed writers left half written in a folder; only while none writes there. An
    object store keeps no such halves."""
    if not is_url(place):
        for partial in Path(place).glob(".*.tmp"):
            partial.unlink(missing_ok=True)


def exists(place: str) -> bool:
    """Whether a file or folder is there."""
    files, path = _open(place)
    with _naming(place):
        # Another process may have written it since this one last looked.
        files.invalidate_cache()
        return bool(files.exists(path))


def list_names(place: str) -> list[str]:
    """Names of what lies in a folder, sorted; none where it is not there."""
    files, path = _open(place)
    with _naming(place):
        files.invalidate_cache()
        if not files.exists(path):
            return []
        return sorted(PurePosixPath(name).name for name in files.ls(path, detail=False))


def _open(place: str) -> tuple[Any, str]:
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(place)
    except (ValueError, ImportError) as error:
        raise InputError(f"{place} cannot be opened: {error}") from error
    return files, path


@contextmanager
def _naming(place: str) -> Iterator[None]:
    """Whatever a store's client raises becomes an InputError that names the place."""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{place}: no such file; check the path") from error
    # Each store's client has errors of its own, so no list of types would stay complete.
    except Exception as error:
        reason = str(error)[:300] or type(error).__name__
        raise InputError(f"{place}: cannot be reached ({reason})") from error
