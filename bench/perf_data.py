"""perf.data files: a writer of the container, and what perf record would have written instead of a trace.dat.

The tests write theirs with it, too. Format: tools/perf/Documentation/perf.data-file-format.txt.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fastrtp.record.trace_dat import TraceDat
from fastrtp.record.trace_dat_sections import FormatText
from fastrtp.record.trace_dat_writer import TraceContent
from fastrtp.trace import perf_attr as uapi
from fastrtp.trace.perf_attr import PerfEventAttr

MAGIC = b"PERFILE2"
SAMPLE_TYPE = (
    uapi.PERF_SAMPLE_IDENTIFIER | uapi.PERF_SAMPLE_IP | uapi.PERF_SAMPLE_TID | uapi.PERF_SAMPLE_TIME | uapi.PERF_SAMPLE_CPU
    | uapi.PERF_SAMPLE_PERIOD | uapi.PERF_SAMPLE_RAW
)  # fmt: skip
"""What perf record asks for with several tracepoints on all CPUs."""
SAMPLE = 9
_HEADER_SIZE, _PIPE_HEADER_SIZE = 104, 16
TRACING_DATA, OSRELEASE, NRCPUS, EVENT_DESC = 1, 4, 7, 12
HEADER_ATTR, HEADER_TRACING_DATA, HEADER_FEATURE = 64, 66, 80


@dataclass(frozen=True)
class Event:
    """An event of the recorder: by default the tracepoint with the number `config`. `size`: bytes of its attr."""

    config: int
    ids: Sequence[int] = ()
    name: str = ""
    type: int = uapi.PERF_TYPE_TRACEPOINT
    sample_type: int = SAMPLE_TYPE
    read_format: int = 0
    flags: int = uapi.ATTR_SAMPLE_ID_ALL | uapi.ATTR_USE_CLOCKID
    period: int = 1
    clockid: int = 1
    size: int = 128
    more: Mapping[str, int] = field(default_factory=dict)

    def attr(self) -> bytes:
        """Its perf_event_attr."""
        made = PerfEventAttr(
            type=self.type, size=self.size, config=self.config, sample_period=self.period, sample_type=self.sample_type,
            read_format=self.read_format, flags=self.flags, clockid=self.clockid, **self.more,
        )  # fmt: skip
        return bytes(made)[: self.size].ljust(self.size, b"\0")


def record(kind: int, body: bytes, misc: int = 0) -> bytes:
    """A record of any type."""
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body


def raw(data: bytes) -> bytes:
    """PERF_SAMPLE_RAW, padded as the kernel does."""
    size = (4 + len(data) + 7) // 8 * 8 - 4
    return struct.pack("<I", size) + data.ljust(size, b"\0")


def text(value: str) -> bytes:
    """A perf_header_string."""
    data = value.encode() + b"\0"
    data += bytes(-len(data) % 64)
    return struct.pack("<I", len(data)) + data


def tracing_data(formats: Mapping[int, FormatText], cmdlines: bytes = b"", printk: bytes = b"", kallsyms: bytes = b"") -> bytes:
    """The section with the event formats."""
    content = TraceContent(formats, {})
    return b"".join((
        b"\x17\x08\x44tracing0.6\0\0\x08", struct.pack("<I", 4096), content.headers(), content.ftrace_formats(),
        content.event_formats(), struct.pack("<I", len(kallsyms)), kallsyms, struct.pack("<I", len(printk)), printk,
        struct.pack("<Q", len(cmdlines)), cmdlines,
    ))  # fmt: skip


def event_desc(events: Sequence[Event]) -> bytes:
    """The section with the names of events."""
    room = max(event.size for event in events)
    rows = []
    for event in events:
        ids = struct.pack(f"<{len(event.ids)}Q", *event.ids)
        rows.append(event.attr().ljust(room, b"\0") + struct.pack("<I", len(event.ids)) + text(event.name) + ids)
    return struct.pack("<II", len(events), room) + b"".join(rows)


def write_file(events: Sequence[Event], records: bytes, features: Mapping[int, bytes]) -> bytes:
    """A file with a header."""
    room = max(event.size for event in events)
    ids = b"".join(struct.pack(f"<{len(event.ids)}Q", *event.ids) for event in events)
    attrs = b""
    at = _HEADER_SIZE
    for event in events:
        attrs += event.attr().ljust(room, b"\0") + struct.pack("<QQ", at, 8 * len(event.ids))
        at += 8 * len(event.ids)
    start = at + len(attrs)
    flags = sum(1 << number for number in features).to_bytes(32, "little")
    header = MAGIC + struct.pack("<8Q", _HEADER_SIZE, room + 16, at, len(attrs), start, len(records), 0, 0) + flags
    end = start + len(records) + 16 * len(features)
    index = body = b""
    for _number, data in sorted(features.items()):
        index += struct.pack("<QQ", end + len(body), len(data))
        body += data
    return b"".join((header, ids, attrs, records, index, body))


def write_pipe(events: Sequence[Event], records: bytes, features: Mapping[int, bytes]) -> bytes:
    """What `perf record -o -` writes."""
    out = [MAGIC, struct.pack("<Q", _PIPE_HEADER_SIZE)]
    out += [record(HEADER_ATTR, event.attr() + struct.pack(f"<{len(event.ids)}Q", *event.ids)) for event in events]
    for number, data in sorted(features.items()):
        padded = data + bytes(-len(data) % 8)
        if number == TRACING_DATA:
            out += [record(HEADER_TRACING_DATA, struct.pack("<II", len(padded), 0)), padded]
        else:
            out.append(record(HEADER_FEATURE, struct.pack("<Q", number) + padded))
    return b"".join([*out, records])


def from_trace_dat(path: Path) -> bytes:
    """The events of a trace.dat as perf record would have written them: each CPU's buffer by itself, in rounds."""
    from fastrtp.record.event_tables import common_fields
    from fastrtp.record.ring_buffer import read_pages, scan

    trace = TraceDat(path)
    pages = read_pages(trace, trace.buffers[0])
    header = trace.header_page
    found = scan(
        pages,
        trace.sub_buffer_size,
        header.commit_size,
        header.data_offset,
        common_fields(trace.formats, header.commit_size, path),
    )
    formats = {number: trace.formats[number] for number in set(found.type.tolist()) & trace.formats.keys()}
    cpus = int(found.cpu.max()) + 1
    events = [
        Event(number, [1 + cpus * index + cpu for cpu in range(cpus)], f"{formats[number].system}:event")
        for index, number in enumerate(sorted(formats))
    ]
    ids = {event.config: event.ids for event in events}
    data = memoryview(pages.data)  # type: ignore[arg-type]
    rounds: list[list[bytes]] = [[] for _ in range(cpus)]
    out: list[bytes] = []
    columns = (found.offset, found.length, found.time, found.cpu, found.type, found.pid)
    for offset, length, time, cpu, kind, pid in zip(*(column.tolist() for column in columns), strict=True):
        if kind in ids:
            head = struct.pack("<QQIIQIIQ", ids[kind][cpu], 0xFFFFFFFF81000000, pid, pid, time, cpu, 0, 1)
            rounds[cpu].append(record(SAMPLE, head + raw(data[offset : offset + length].tobytes())))
            if len(rounds[cpu]) > 1000:
                out += [piece for pieces in rounds for piece in pieces]
                out.append(record(68, b""))
                rounds = [[] for _ in range(cpus)]
    out += [piece for pieces in rounds for piece in pieces]
    cmdlines = "".join(f"{pid} {comm}\n" for pid, comm in trace.comms.items()).encode()
    printk = "".join(f'{address:#x} : "{line}"\n' for address, line in trace.printk.items()).encode()
    features = {TRACING_DATA: tracing_data(formats, cmdlines, printk, trace.kallsyms), NRCPUS: struct.pack("<II", cpus, cpus)}
    return write_file(events, b"".join(out), features)
