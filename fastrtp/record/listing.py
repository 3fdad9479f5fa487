"""Listing: a recording's events as lines, as `trace-cmd report` and `perf script` print them, by the recorded print formats.

Control characters in names and texts are escaped: what a process calls itself must not drive a terminal.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from .columns import EventTable
from .print_fmt import PrintFormat
from .record_bytes import Contexts, contexts
from .recording import Recording

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IDLE, UNKNOWN = "<idle>", "<...>"
"""Names of pid 0, and of a task whose name the recording does not have."""
_NAME_WIDTH = 20


class _Kind(NamedTuple):
    """What the records of a table need to be printed."""

    text: PrintFormat
    records: Contexts


class Listing:
    """Of one recording. Event kinds are prepared when the first of them is printed."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self._kinds: dict[int, _Kind | None] = {}

    def lines(self, start: int = 0, end: int | None = None) -> Iterator[str]:
        """A line for each event from place `start` on, in time order."""
        recording = self.recording
        part = slice(start, end)
        columns = (recording.time[part], recording.cpu[part], recording.pid[part], recording.event[part], recording.row[part])
        for time, cpu, pid, event, row in zip(*(column.tolist() for column in columns), strict=True):
            yield self._line(time, cpu, pid, event, row)

    def text(self, place: int) -> str:
        """What an event's own format says of it."""
        return self._text(int(self.recording.event[place]), int(self.recording.row[place]))

    def _line(self, time: int, cpu: int, pid: int, event: int, row: int) -> str:
        name = self.recording.tables[event].name
        comm = comm_of(self.recording, pid)
        stamp = self._stamp(time)
        return escaped(
            f"{comm:>16}-{pid:<5d} [{cpu:03d}] {stamp}: {name}: {'':{max(_NAME_WIDTH - len(name), 0)}}{self._text(event, row)}"
        )

    def _stamp(self, time: int) -> str:
        if not self._nanoseconds:
            return f"{time:>12d}"
        microseconds = (time + 500) // 1000
        return f"{microseconds // 1_000_000:5d}.{microseconds % 1_000_000:06d}"

    @cached_property
    def _nanoseconds(self) -> bool:
        return self.recording.clock not in ("counter", "uptime", "x86-tsc")

    def _text(self, event: int, row: int) -> str:
        if event not in self._kinds:
            self._kinds[event] = self._kind(self.recording.tables[event])
        kind = self._kinds[event]
        if kind is None:
            return ""
        start = int(kind.records.starts[row])
        return kind.text.text(kind.records.flat[start : start + int(kind.records.sizes[row])].tobytes()).rstrip("\n")

    def _kind(self, table: EventTable) -> _Kind | None:
        if table.fmt is None:
            return None
        texts = {key & (1 << 64) - 1: text for key, text in self.recording.printk.items()}
        return _Kind(PrintFormat(table.fmt, symbols=self._symbol, texts=texts), contexts(table, None))

    def _symbol(self, address: int) -> tuple[str, int] | None:
        found = self.recording.kallsyms.lookup(address)
        return None if found is None else (found.name, found.offset)


def comm_of(recording: Recording, pid: int) -> str:
    """The name of a task, as it was saved with the recording."""
    return IDLE if pid == 0 else recording.comms.get(pid, UNKNOWN)


def comms_of(recording: Recording, pids: NDArray[np.int32]) -> list[str]:
    """Names of some tasks."""
    return [comm_of(recording, pid) for pid in pids.tolist()]


def escaped(text: str) -> str:
    """Text for one line: control characters and what is no UTF-8 shown as escapes."""
    return text if text.isprintable() else "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
