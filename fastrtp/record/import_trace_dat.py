"""From a trace.dat file to a Recording: pages, scan, time order, one table per event type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastrtp.errors import RecordingError

from .event_tables import common_fields, event_tables
from .recording import Recording
from .ring_buffer import read_pages, scan
from .trace_dat import TraceDat
from .trace_dat_options import TraceBuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]


def import_trace_dat(path: Path, progress: Progress | None = None, instance: str = "") -> Recording:
    """Read one instance (the top one by default) of a trace.dat file."""
    trace = TraceDat(path)
    buffer = _pick(trace, instance)
    common = common_fields(trace.formats, trace.header_page.commit_size, trace.path)
    pages = read_pages(trace, buffer, progress)
    header = trace.header_page
    page_size = buffer.page_size if instance else max(buffer.page_size, trace.sub_buffer_size)
    records = scan(pages, page_size, header.commit_size, header.data_offset, common, None if trace.compressed else progress)
    tables, event, row, known, unknown = event_tables(
        pages.data, records.type, records.offset, records.length, trace.formats, header.commit_size
    )
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
