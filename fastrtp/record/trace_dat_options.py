"""The option records of trace.dat: id, size, data. v6 has one list of them, v7 chained sections.

Only what changes the meaning of the data is interpreted; the rest is kept by name for `info`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .reader import ByteReader

DONE, DATE, CPUSTAT, BUFFER, TRACECLOCK, UNAME, HOOK, OFFSET, CPUCOUNT, VERSION = range(10)
PROCMAPS, TRACEID, TIME_SHIFT, GUEST, TSC2NSEC = range(10, 15)
HEADER_INFO, FTRACE_EVENTS, EVENT_FORMATS, KALLSYMS, PRINTK, CMDLINES, BUFFER_TEXT = range(16, 23)
SECTION_OPTIONS = frozenset({HEADER_INFO, FTRACE_EVENTS, EVENT_FORMATS, KALLSYMS, PRINTK, CMDLINES})

OPTIONAL = frozenset({DATE, CPUSTAT, UNAME, CPUCOUNT, VERSION, TRACEID})
"""Options that say nothing about where the events are or when they happened."""

_STAT = re.compile(r"^(entries|overrun|commit overrun|dropped events|CPU):\s*(\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CpuBuffer:
    """One CPU's trace data: where it lies in the file and how many bytes it takes there."""

    cpu: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class TraceBuffer:
    """A trace instance; the top one has the name "". `cpus` is empty where the file says only where the section lies."""

    name: str
    offset: int
    clock: str = ""
    page_size: int = 0
    cpus: tuple[CpuBuffer, ...] = ()


@dataclass(slots=True)
class TraceOptions:
    """What the options said; empty and zero where they said nothing."""

    clock: str = ""
    uname: str = ""
    version: str = ""
    trace_id: int = 0
    cpu_count: int = 0
    time_offset: int = 0
    tsc2nsec: tuple[int, int, int] | None = None
    buffers: list[TraceBuffer] = field(default_factory=list)
    cpustat: dict[int, dict[str, int]] = field(default_factory=dict)
    sections: dict[int, int] = field(default_factory=dict)
    text: bool = False
    not_applied: list[str] = field(default_factory=list)

    def apply(self, option: int, reader: ByteReader, version: int) -> None:
        """Take in one option, whose data `reader` holds. Unknown ids are skipped, as the format asks."""
        if option == BUFFER:
            self.buffers.append(read_buffer(reader) if version >= 7 else read_buffer_v6(reader))
        elif option in SECTION_OPTIONS and version >= 7:
            self.sections.setdefault(option, reader.u64("offset of a section"))
        elif option == TSC2NSEC:
            self.tsc2nsec = (reader.u32("TSC multiplier"), reader.u32("TSC shift"), reader.u64("TSC offset"))
            if self.tsc2nsec[1] > 63:
                raise reader.error(f"TSC shift {self.tsc2nsec[1]} is over 63")
        elif option == CPUCOUNT:
            self.cpu_count = reader.u32("number of CPUs")
        elif option == TRACEID:
            self.trace_id = reader.u64("trace id")
        elif option == BUFFER_TEXT:
            self.text = True
        elif option in (TRACECLOCK, UNAME, VERSION, CPUSTAT, OFFSET):
            self._apply_text(option, bytes(reader.data).rstrip(b"\0").decode("utf-8", "replace"), reader)
        elif option in (DATE, TIME_SHIFT):
            self.not_applied.append("DATE" if option == DATE else "TIME_SHIFT")

    def _apply_text(self, option: int, text: str, reader: ByteReader) -> None:
        if option == TRACECLOCK:
            chosen = re.search(r"\[([\w-]+)\]", text)
            self.clock = chosen[1] if chosen else ""
        elif option == UNAME:
            self.uname = text.strip()
        elif option == VERSION:
            self.version = text.strip()
        elif option == OFFSET:
            try:
                self.time_offset = int(text.strip() or "0", 0)
            except ValueError:
                raise reader.error(f"time offset {text[:40]!r} is no number") from None
            if abs(self.time_offset) >= 1 << 62:
                raise reader.error(f"time offset {self.time_offset} ns is out of range")
        else:
            stat = {name: int(value[:18]) for name, value in _STAT.findall(text)}
            if "CPU" in stat:
                self.cpustat[stat.pop("CPU")] = stat


def read_buffer(reader: ByteReader) -> TraceBuffer:
    """A v7 BUFFER option."""
    offset = reader.u64("offset of a buffer section")
    name = reader.string("name of an instance", 256)
    clock = reader.string("clock of an instance", 64)
    page_size = reader.u32("page size of an instance")
    cpus = tuple(
        CpuBuffer(reader.u32("CPU"), reader.u64("offset of CPU data"), reader.u64("size of CPU data"))
        for _ in range(reader.count(20, "number of CPUs"))
    )
    return TraceBuffer(name, offset, clock, page_size, cpus)


def read_buffer_v6(reader: ByteReader) -> TraceBuffer:
    """A v6 BUFFER option: an instance beside the top one, whose table of CPUs lies elsewhere."""
    return TraceBuffer(offset=reader.u64("offset of an instance"), name=reader.string("name of an instance", 256))
