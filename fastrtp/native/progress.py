"""What somebody at a terminal sees while the native library is built: what it is, how far it is, how much longer it takes.

Without a terminal nothing is written.
"""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TextIO

_WIDTH = 24
_EVERY = 0.1


class BuildLine:
    """Progress on a line of a terminal, called with (done, total, name). A context manager, which says how long it took."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._start = time.monotonic()
        self._last = 0.0
        self._shown = ""

    def __enter__(self) -> BuildLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._shown:
            end = "" if error is not None else f"fastrtp: built in {time.monotonic() - self._start:.1f} s\n"
            self._stream.write(f"\r{' ' * len(self._shown)}\r{end}")
            self._stream.flush()

    def __call__(self, done: int, total: int, name: str) -> None:
        """Function `name` is being compiled, the `done`th of `total`."""
        now = time.monotonic()
        if not self._stream.isatty() or (0 < done < total and now - self._last < _EVERY):
            return
        if not self._shown:
            self._stream.write("fastrtp: the native library is built, once for this version and processor\n")
        self._last = now
        filled = _WIDTH * done // max(total, 1)
        left = (now - self._start) / max(done, 1) * (total - done)
        text = f"[{'#' * filled}{'.' * (_WIDTH - filled)}] {done} of {total} steps, {left:.0f} s left"
        self._stream.write(f"\r{text.ljust(len(self._shown))}")
        self._stream.flush()
        self._shown = text


def silent(done: int, total: int, name: str) -> None:
    """Progress that nobody sees."""
