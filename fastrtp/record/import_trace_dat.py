"""From a trace.dat file to a Recording: pages, scan, time order, one table per event type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.errors import RecordingError

from .columns import EventTable, gather_table
from .event_format import EventFormat, parse_event_format
from .recording import Recording
from .ring_buffer import CommonFields, Pages, Records, read_pages, scan
from .trace_dat import TraceDat
from .trace_dat_options import TraceBuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]


def import_trace_dat(path: Path, progress: Progress | None = None, instance: str = "") -> Recording:
    """Read one instance (the top one by default) of a trace.dat file."""
    trace = TraceDat(path)
    buffer = _pick(trace, instance)
    common = _common_fields(trace)
    pages = read_pages(trace, buffer, progress)
    header = trace.header_page
    page_size = buffer.page_size if instance else max(buffer.page_size, trace.sub_buffer_size)
    records = scan(pages, page_size, header.commit_size, header.data_offset, common, None if trace.compressed else progress)
    tables, event, row, known, unknown = _tables(trace, pages, records)
    if known is not None:
        for name in ("time", "cpu", "pid"):
            setattr(records, name, getattr(records, name)[known])
    options = trace.options
    recording = Recording(
        time=_nanoseconds(trace, records.time, buffer.clock or options.clock),
        cpu=records.cpu,
        event=event,
        row=row,
        pid=records.pid,
        tables=tables,
        comms=trace.comms,
        lost=records.lost,
        gaps=records.gaps,
        overrun={cpu: stat.get("overrun", 0) + stat.get("dropped events", 0) for cpu, stat in options.cpustat.items()},
        unknown=unknown,
        clock=buffer.clock or options.clock,
        uname=options.uname,
        cpus=max([options.cpu_count, *(cpu.cpu + 1 for cpu in buffer.cpus)]),
        instances=[other.name for other in trace.buffers if other.name != buffer.name],
        notes=[f"option {name} of the file was not applied" for name in options.not_applied],
        printk=trace.printk,
        source=str(path),
        kallsyms_text=lambda: trace.kallsyms,
    )
    if progress is not None:
        progress(len(trace.data), len(trace.data))
    return recording


def _pick(trace: TraceDat, instance: str) -> TraceBuffer:
    for buffer in trace.buffers:
        if buffer.name == instance:
            if instance and not buffer.cpus:
                raise RecordingError(f"{trace.path}: instance {instance!r} of a version {trace.version} file cannot be read")
            return buffer
    if not instance:
        return TraceBuffer("", 0, "", trace.page_size)
    names = ", ".join(repr(buffer.name) for buffer in trace.buffers) or "none"
    raise RecordingError(f"{trace.path}: no instance {instance!r}; there are: {names}")


def _common_fields(trace: TraceDat) -> CommonFields:
    """The common fields from the first format that has them: they are the same in all."""
    for type_id in sorted(trace.formats):
        fmt = _parse(trace, type_id)
        kind, pid = fmt.field("common_type"), fmt.field("common_pid")
        if kind is not None and pid is not None:
            if (kind.size, pid.size) != (2, 4):
                raise RecordingError(
                    f"{trace.path}: event {fmt.name}: common_type and common_pid of {kind.size} and {pid.size} bytes"
                )
            return CommonFields(kind.offset, pid.offset, max(kind.offset + 2, pid.offset + 4))
    return CommonFields()


def _parse(trace: TraceDat, type_id: int) -> EventFormat:
    system, text = trace.formats[type_id]
    return parse_event_format(text, system, trace.header_page.commit_size)


def _tables(
    trace: TraceDat, pages: Pages, records: Records
) -> tuple[list[EventTable], NDArray[np.uint16], NDArray[np.uint32], NDArray[np.bool_] | None, dict[int, int]]:
    counts = np.bincount(records.type, minlength=1)
    present = np.flatnonzero(counts)
    unknown = {int(type_id): int(counts[type_id]) for type_id in present if int(type_id) not in trace.formats}
    number = np.zeros(1 << 16, np.uint16)
    order = np.argsort(records.type, kind="stable")
    row = np.empty(len(order), np.uint32)
    tables: list[EventTable] = []
    offset, length = records.offset[order], records.length[order]
    at = 0
    for type_id in present.tolist():
        count = int(counts[type_id])
        mine = slice(at, at + count)
        at += count
        if type_id in unknown:
            continue
        number[type_id] = len(tables)
        row[order[mine]] = np.arange(count, dtype=np.uint32)
        tables.append(gather_table(pages.data, offset[mine], length[mine], _parse(trace, type_id)))
    event = number[records.type]
    known: NDArray[Any] | None = None
    if unknown:
        known = ~np.isin(records.type, np.array(list(unknown), np.uint16))
        event, row = event[known], row[known]
    return tables, event, row, known, unknown


def _nanoseconds(trace: TraceDat, time: NDArray[np.int64], clock: str) -> NDArray[np.int64]:
    """Time stamps in ns: TSC cycles converted as the file says, its fixed offset added."""
    options = trace.options
    if options.tsc2nsec is not None and clock in ("x86-tsc", "tsc2nsec") and options.tsc2nsec[0]:
        mult, shift, offset = options.tsc2nsec
        cycles = time.astype(np.uint64)
        low = (cycles & np.uint64(0xFFFFFFFF)) * np.uint64(mult)
        high = (cycles >> np.uint64(32)) * np.uint64(mult)
        scaled = (high << np.uint64(32 - shift)) if shift <= 32 else (high >> np.uint64(shift - 32))
        time = (scaled + (low >> np.uint64(shift)) - np.uint64(offset)).astype(np.int64)
    return time + options.time_offset if options.time_offset else time
