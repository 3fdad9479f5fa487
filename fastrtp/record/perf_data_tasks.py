"""What a perf.data file says beside its samples: names and groups of tasks, and what was lost.

Kernel: kernel/events/core.c:perf_event_comm_output, perf_event_task_output, perf_log_throttle,
kernel/events/ring_buffer.c:__perf_output_begin.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from . import perf_data_layout as layout
from .perf_data import PerfData
from .perf_data_attr import PerfAttr, Trailer
from .perf_data_streams import COMM, FORK, LOST, LOST_SAMPLES, THROTTLE
from .reader import ByteReader

_COMM_LEN = 15
_PID_MAX = 1 << 31


class _TaskEvent(NamedTuple):
    """A task got a name, or was made by `parent`."""

    time: int
    pid: int
    tgid: int
    parent: int
    comm: str


@dataclass(slots=True)
class SideFacts:
    """`comms`: each task's last name; `tgids`: the group of each thread that is not its group's first; losses by CPU.

    `gaps`: how often an event was throttled, which loses an unknown number of samples.
    """

    comms: dict[int, str]
    tgids: dict[int, int] = field(default_factory=dict)
    lost: dict[int, int] = field(default_factory=dict)
    gaps: dict[int, int] = field(default_factory=dict)


class _Trailers:
    """Time and CPU of records that are no samples."""

    def __init__(self, attrs: list[PerfAttr]) -> None:
        self._first = next((attr.trailer for attr in attrs if any(attr.trailer)), Trailer())
        self._by_id: dict[int, Trailer] = {}
        if any(attr.trailer != self._first for attr in attrs):  # told apart by the identifier, the last word
            self._by_id = {ident: attr.trailer for attr in attrs if "identifier" in attr.places for ident in attr.ids.tolist()}

    def _of(self, reader: ByteReader) -> Trailer:
        if self._by_id:
            return self._by_id.get(int.from_bytes(reader.data[-8:], "little"), self._first)
        return self._first

    def time(self, reader: ByteReader) -> int:
        """0 when it has none."""
        return self._word(reader, self._of(reader).time, 8)

    def cpu(self, reader: ByteReader) -> int:
        """0 when it has none, or none that can be."""
        cpu = self._word(reader, self._of(reader).cpu, 4)
        return cpu if cpu <= layout.MAX_CPU else 0

    def _word(self, reader: ByteReader, back: int, size: int) -> int:
        at = reader.end - back
        return int.from_bytes(reader.data[at : at + size], "little") if back and at >= reader.offset else 0


def read_side_facts(perf: PerfData) -> SideFacts:
    """All of it. RecordingError for a record that is too short."""
    trailers = _Trailers(perf.attrs)
    facts = SideFacts(dict(perf.tracing.comms) if perf.tracing is not None else {})
    _read_tasks(perf, trailers, facts)
    buffers: Counter[int] = Counter()
    counted: Counter[int] = Counter()
    throttled: Counter[int] = Counter()
    for stream in perf.streams:
        for record in stream.side_records(LOST, LOST_SAMPLES, THROTTLE):
            reader = record.reader
            if record.kind == LOST:
                reader.u64("id of an event")
                lost = reader.u64("number of lost records")
                buffers[_cpu_behind(reader, trailers, lost)] += lost
            elif record.kind == LOST_SAMPLES:
                lost = reader.u64("number of lost samples")
                if not record.misc:  # with it, these are samples that a filter was to drop
                    counted[_cpu_behind(reader, trailers, lost)] += lost
            else:
                throttled[trailers.cpu(reader)] += 1
    # a full buffer counts a sample for the buffer (LOST) and for its event (LOST_SAMPLES, written at the end)
    facts.lost = {cpu: max(buffers[cpu], counted[cpu]) for cpu in sorted(buffers.keys() | counted.keys())}
    facts.gaps = dict(sorted(throttled.items()))
    return facts


def _cpu_behind(reader: ByteReader, trailers: _Trailers, lost: int) -> int:
    if lost >> 63:
        raise reader.error(f"{lost} lost records")
    return trailers.cpu(reader)


def _read_tasks(perf: PerfData, trailers: _Trailers, facts: SideFacts) -> None:
    events: list[_TaskEvent] = []
    for stream in perf.streams:
        for record in stream.side_records(COMM, FORK):
            reader = record.reader
            if record.kind == COMM:
                tgid, pid = reader.u32("pid of a task"), reader.u32("tid of a task")
                time = trailers.time(reader)
                comm = bytes(reader.data[reader.offset : reader.offset + _COMM_LEN]).partition(b"\0")[0]
                events.append(_TaskEvent(time, pid, tgid, -1, comm.decode("utf-8", "replace")))
            else:
                tgid, _ppid = reader.u32("pid of a task"), reader.u32("its parent's pid")
                pid, parent = reader.u32("tid of a task"), reader.u32("its parent's tid")
                events.append(_TaskEvent(reader.u64("time of a fork"), pid, tgid, parent, ""))
    events.sort(key=lambda event: event.time)
    for event in events:
        if event.pid >= _PID_MAX or event.tgid >= _PID_MAX:
            continue
        if event.tgid != event.pid:
            facts.tgids[event.pid] = event.tgid
        else:
            facts.tgids.pop(event.pid, None)
        if event.parent < 0:
            facts.comms[event.pid] = event.comm
        elif event.parent in facts.comms:
            facts.comms[event.pid] = facts.comms[event.parent]
