"""Lines appended to a file as they come, readable after any interruption.

A line is complete once its newline is on disk. A run that was killed may leave half a line at the
end; the next writer ends it where it is whole but for its newline, and otherwise cuts it off.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from anomalyr1.types import InputError

try:
    import fcntl
except ImportError:  # Windows has no flock: two runs into one folder are then not noticed.
    fcntl = None  # type: ignore[assignment]

_TAIL_BYTES = 1 << 16


class LineWriter:
    """Appends lines of ASCII to a file, each on disk before the next is made.

    `is_whole` tells a last line that lacks only its newline from half a line. A context manager.
    Opening creates the file and its folder, or goes on behind what is there:
    a half last line is cut off first. A full disk raises InputError after the half line is cut, so
    that what was written before stays readable. With `sync`, every line survives a power failure
    too (slower). Two writers on one file are refused.
    """

    def __init__(self, path: Path, is_whole: Callable[[str], bool], *, sync: bool = False) -> None:
        self.path = path
        self._is_whole = is_whole
        self.sync = sync
        self._descriptor: int | None = None

    def __enter__(self) -> LineWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            binary = getattr(os, "O_BINARY", 0)
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | binary
            self._descriptor = os.open(self.path, flags, 0o644)
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be opened for writing ({error.strerror or error}); "
                "choose an output folder you may write to"
            ) from error
        try:
            self._lock(self._descriptor)
            _mend_end(self._descriptor, self._is_whole)
        except OSError as error:
            self._close()
            raise self._build_error(error) from error
        except InputError:
            self._close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()

    def write(self, text: str) -> None:
        """Append one line, given without its newline; when this returns, a reader sees it."""
        if self._descriptor is None:
            raise InputError(f"{self.path}: the writer is closed; use it inside its with block")
        line = text.encode("ascii") + b"\n"
        size_before = os.fstat(self._descriptor).st_size
        try:
            _write_all(self._descriptor, line)
            if self.sync:
                os.fsync(self._descriptor)
        except OSError as error:
            # Cutting may fail as well; the reader ignores a half last line in any case.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, size_before)
            raise self._build_error(error) from error

    def _lock(self, descriptor: int) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{self.path}: another run is writing to it; wait for it or choose another folder"
            ) from error
        except OSError:
            return  # Some network file systems know no locks; writing still works there.

    def _build_error(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path}: cannot be written ({error.strerror or error}); the lines already in "
            "it stay readable: free some space and run again with the same folder to go on"
        )

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _write_all(descriptor: int, line: bytes) -> None:
    # One call in all but rare cases: a nearly full disk may take a part, and says why at the next.
    written = os.write(descriptor, line)
    while written < len(line):
        written += os.write(descriptor, line[written:])


def _mend_end(descriptor: int, is_whole: Callable[[str], bool]) -> None:
    """Make the file end in a whole line: end a complete last line, cut off a half one."""
    size = os.fstat(descriptor).st_size
    tail = b""
    start = size
    while start > 0 and b"\n" not in tail:
        step = min(_TAIL_BYTES, start)
        start -= step
        os.lseek(descriptor, start, os.SEEK_SET)
        tail = os.read(descriptor, step) + tail
    last_line = tail[tail.rfind(b"\n") + 1 :]
    if not last_line:
        return
    if is_whole(last_line.decode("utf-8", errors="replace")):
        _write_all(descriptor, b"\n")
    else:
        os.ftruncate(descriptor, size - len(last_line))
