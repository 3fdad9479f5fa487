"""From a trace.dat file to a Recording: pages, scan, time order, one table per event type."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastrtp.errors import RecordingError

from .event_tables import common_fields, event_tables
from .recording import Recording
from .ring_buffer import CommonFields, Pages, Records, merge_buffers, read_pages, scan
from .trace_dat import TraceDat
from .trace_dat_options import TraceBuffer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Progress = Callable[[int, int], None]


def import_trace_dat(path: Path, progress: Progress | None = None, instance: str | None = None) -> Recording:
    """Read a trace.dat file: one trace instance ("": the top one), or, with None, all that have events.

    Instances whose events differ in kind are played together, by time. RecordingError, with their names, where one event was
    recorded in several of them, or by different clocks: then each has to be asked for.
    """
    trace = TraceDat(path)
    common = common_fields(trace.formats, trace.header_page.commit_size, trace.path)
    wanted = _full(trace) if instance is None else [_pick(trace, instance)]
    read = [(buffer, *_read(trace, buffer, common, progress)) for buffer in wanted]
    if instance is None:
        read = [one for one in read if len(one[2].time)] or read[:1]
        _check_apart(trace, read)
    data, records = merge_buffers([one[1:] for one in read])
    buffers = [one[0] for one in read]
    made = event_tables(data, records.type, records.offset, records.length, trace.formats, trace.header_page.commit_size)
    if made.known is not None:
        for name in ("time", "cpu", "pid"):
            setattr(records, name, getattr(records, name)[made.known])
    options = trace.options
    clock = buffers[0].clock or options.clock
    recording = Recording(
        time=_nanoseconds(trace, records.time, clock),
        cpu=records.cpu,
        event=made.event,
        row=made.row,
        pid=records.pid,
        tables=made.tables,
        comms=trace.comms,
        lost=records.lost,
        gaps=records.gaps,
        damaged=records.damaged,
        overrun={cpu: stat.get("overrun", 0) + stat.get("dropped events", 0) for cpu, stat in options.cpustat.items()},
        unknown=made.unknown,
        clock=clock,
        uname=options.uname,
        cpus=max([options.cpu_count, *(cpu.cpu + 1 for buffer in buffers for cpu in buffer.cpus)]),
        instances=[other.name for other in trace.buffers if other.name not in {buffer.name for buffer in buffers}],
        notes=[*_notes(trace, buffers), *records.notes, *made.notes],
        printk=trace.printk,
        source=str(path),
    )
    recording.kallsyms_text = lambda: _kallsyms(trace, recording)
    if progress is not None:
        progress(len(trace.data), len(trace.data))
    return recording


def _kallsyms(trace: TraceDat, recording: Recording) -> bytes:
    before = len(trace.notes)
    text = trace.kallsyms
    recording.notes += trace.notes[before:]
    return text


def _notes(trace: TraceDat, buffers: list[TraceBuffer]) -> list[str]:
    notes = [f"option {name} of the file was not applied" for name in trace.options.not_applied]
    notes += [
        f"instance {other.name!r} was not read: version 6 files do not say where its events are"
        for other in trace.buffers
        if other.name and not other.cpus
    ]
    if [buffer.name for buffer in buffers] != [""]:
        notes.append(f"events of {', '.join(_name(buffer) for buffer in buffers)}")
    return [*notes, *trace.notes]


def _name(buffer: TraceBuffer) -> str:
    return f"instance {buffer.name!r}" if buffer.name else "the top instance"


def _read(trace: TraceDat, buffer: TraceBuffer, common: CommonFields, progress: Progress | None) -> tuple[Pages, Records]:
    pages = read_pages(trace, buffer, progress)
    header = trace.header_page
    page_size = buffer.page_size if buffer.name else max(buffer.page_size, trace.sub_buffer_size)
    told = None if trace.compressed else progress
    return pages, scan(pages, page_size, header.commit_size, header.data_offset, common, told)


def _full(trace: TraceDat) -> list[TraceBuffer]:
    """The instances that have pages; the top one where none has."""
    full = [buffer for buffer in trace.buffers if any(cpu.size for cpu in buffer.cpus)]
    unread = [buffer for buffer in trace.buffers if buffer.name and not buffer.cpus]
    if not full and unread and trace.version == 6:
        return [_pick(trace, unread[0].name)]  # which says why it cannot be read
    return full or [_pick(trace, "")]


def _check_apart(trace: TraceDat, read: list[tuple[TraceBuffer, Pages, Records]]) -> None:
    """RecordingError unless the instances can be played together and nothing counts twice."""
    clocks = {buffer.clock or trace.options.clock for buffer, _pages, _records in read}
    kinds = [set(np.unique(records.type).tolist()) for _buffer, _pages, records in read]
    if len(clocks) < 2 and sum(map(len, kinds)) == len(set().union(*kinds)):
        return
    held = ", ".join(f"{_name(buffer)}: {len(records.time)}" for buffer, _pages, records in read)
    why = "one event in several of them" if len(clocks) < 2 else f"clocks {', '.join(sorted(clocks))}"
    raise RecordingError(f"{trace.path}: events in several instances ({held}), {why}: ask for one by its name")


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
