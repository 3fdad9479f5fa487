"""The feature sections of a perf.data file: what the recorder said of the machine, and the formats of its events.

Each is read from a `ByteReader`; none knows whether it came from a file's header or from a record of a pipe. Sections that
say nothing about events are left out. Format: tools/perf/Documentation/perf.data-file-format.txt.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from fastrtp.errors import RecordingError

from . import perf_data_layout as layout
from . import trace_dat_sections as sections
from .perf_data_attr import ATTR_LIMIT
from .reader import ByteReader
from .trace_dat_sections import FormatText

TRACING_DATA = 1
_HOSTNAME, _OSRELEASE, _VERSION, _ARCH, _NRCPUS, _CPUDESC = range(3, 9)
_TOTAL_MEM, _CMDLINE, _EVENT_DESC = range(10, 13)
_COMPRESSED = 27
_CLOCK_DATA = 29
_NEEDED = frozenset({_COMPRESSED})
"""Without these the records cannot be read; every other section costs itself alone."""
_STRINGS = {_HOSTNAME: "host name", _OSRELEASE: "kernel release", _VERSION: "version of perf", _ARCH: "architecture",
            _CPUDESC: "kind of CPU"}  # fmt: skip
_MAGIC = b"\x17\x08\x44tracing"
_WITH_CMDLINES = 6
_MAX_CPUS = layout.MAX_CPU + 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class TracingData:
    """Event formats by type id, and what else of tracefs came with them."""

    formats: dict[int, FormatText] = field(default_factory=dict)
    long_size: int = 8
    kallsyms: bytes = b""
    printk: dict[int, str] = field(default_factory=dict)
    comms: dict[int, str] = field(default_factory=dict)


@dataclass(slots=True)
class PerfFeatures:
    """What the sections said; empty and zero where they said nothing. `names`: names of events with their ids.

    `wall_offset`: ns from the clock of the events to the time since 1970. `unpacked_limit`: most bytes that one compressed
    record unpacks to. `notes`: sections that could not be read.
    """

    texts: dict[int, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    memory_kb: int = 0
    cpus: int = 0
    names: list[tuple[str, list[int]]] = field(default_factory=list)
    wall_offset: int | None = None
    unpacked_limit: int = 0
    notes: list[str] = field(default_factory=list)

    def apply(self, feature: int, reader: ByteReader) -> None:
        """Take in one section other than TRACING_DATA; unknown ones are skipped, as the format asks. RecordingError."""
        try:
            self._apply(feature, reader)
        except RecordingError as error:
            if feature in _NEEDED:
                raise
            self.notes.append(f"left out: {error}")

    def _apply(self, feature: int, reader: ByteReader) -> None:
        if feature in _STRINGS:
            self.texts[feature] = reader.sized_string(_STRINGS[feature])
        elif feature == _NRCPUS:
            counts = [reader.u32("number of CPUs"), reader.u32("number of CPUs")]
            cpus = min((count for count in counts if count), default=0)
            if cpus > _MAX_CPUS:
                raise reader.error(f"number of CPUs is {cpus}, the limit is {_MAX_CPUS}")
            self.cpus = cpus
        elif feature == _TOTAL_MEM:
            self.memory_kb = reader.u64("size of the memory")
        elif feature == _CMDLINE:
            self.command = [reader.sized_string("a word of the command") for _ in range(reader.count(4, "number of words"))]
        elif feature == _EVENT_DESC:
            self.names = _event_names(reader)
        elif feature == _COMPRESSED:
            reader.u32("version of the compression")
            kind = reader.u32("kind of compression")
            if kind != 1:
                raise reader.error(f"compression {kind} is not supported: zstd is", reader.offset - 4)
            reader.u32("level of the compression")
            reader.u32("ratio of the compression")
            self.unpacked_limit = reader.u32("size of the recorder's buffer")
        elif feature == _CLOCK_DATA:
            reader.u32("version of the clock data")
            reader.u32("id of the clock")
            wall = reader.u64("wall clock")
            self.wall_offset = wall - reader.u64("clock")

    @property
    def uname(self) -> str:
        """The machine in the words of uname."""
        words = [self.texts.get(feature, "") for feature in (_HOSTNAME, _OSRELEASE, _ARCH)]
        return " ".join(["Linux", *filter(None, words)]) if any(words) else ""

    def facts(self, clock: str, first: int | None) -> dict[str, str]:
        """What there is to tell for `fastrtp info`. `first`: time of the first event."""
        found = {
            "recorded by": f"perf {self.texts[_VERSION]}" if _VERSION in self.texts else "",
            "command": " ".join(self.command),
            "processor": self.texts.get(_CPUDESC, ""),
            "memory": f"{self.memory_kb} kB" if self.memory_kb else "",
            "began": "",
        }
        offset = 0 if clock == "realtime" else self.wall_offset
        if offset is not None and first is not None and 0 <= first + offset < 1 << 62:
            found["began"] = (_EPOCH + timedelta(microseconds=(first + offset) // 1000)).isoformat(" ", "milliseconds")
        return {name: text for name, text in found.items() if text}


def _event_names(reader: ByteReader) -> list[tuple[str, list[int]]]:
    count, room = reader.u32("number of events"), reader.u32("size of an attr")
    if room > ATTR_LIMIT or count * (room + 8) > reader.end - reader.offset:
        raise reader.error(f"{count} events with attrs of {room} bytes do not fit into {reader.end - reader.offset}")
    names = []
    for _ in range(count):
        reader.bytes(room, "an attr")
        ids = reader.count(8, "number of ids")
        name = reader.sized_string("name of an event")
        names.append((name, [reader.u64("an id") for _ in range(ids)]))
    return names


def read_tracing_data(reader: ByteReader) -> TracingData:
    """Formats of the events and what follows them, as trace-cmd's version 6 has these, too."""
    magic = bytes(reader.bytes(len(_MAGIC), "the magic"))
    if magic != _MAGIC:
        raise reader.error(f"begins with {magic!r}", reader.offset - len(_MAGIC))
    version = reader.string("version", 16)
    number = re.fullmatch(r"0\.(\d{1,3})", version)
    if number is None:
        raise reader.error(f"version {version!r} is not supported: 0.5 and 0.6 are")
    if reader.u8("endianness") != 0:
        raise reader.error("a big-endian recording: only little-endian ones are supported", reader.offset - 1)
    size = reader.u8("size of a long")
    if size != 8:
        raise reader.error(f"a recording with longs of {size} bytes: only 64-bit ones are supported", reader.offset - 1)
    reader.u32("page size")
    found = TracingData(long_size=sections.read_headers(reader).commit_size)
    if found.long_size != 8:
        raise reader.error("a recording of a 32-bit kernel: only 64-bit ones are supported")
    sections.read_ftrace_formats(reader, found.formats)
    sections.read_event_formats(reader, found.formats)
    found.kallsyms = sections.read_sized_text(reader, "kallsyms")
    found.printk = sections.parse_printk_formats(sections.read_sized_text(reader, "printk formats"))
    if int(number[1]) >= _WITH_CMDLINES:
        found.comms = sections.parse_cmdlines(sections.read_sized_text(reader, "command lines", wide=True))
    return found
