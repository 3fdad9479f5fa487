"""What classic tracepoint programs read in a replay: the records themselves.

Before an event fires, the CPU that it is fired on is told where its record lies (stores into PERF_CPU, made with the others); the
event's perf probe hands that over instead of building one from the tracepoint's arguments. So no recipe is needed, and the bytes
are those that were recorded: at the recorded places, or, where the loaded kernel has a field elsewhere, moved by the field's
name. What stood between fields is not kept by importing, and reads as 0.

Kernel: include/trace/perf.h (where the record is built). Must not know: programs, the verifier.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fastrtp.record.record_bytes import contexts
from fastrtp.trace.records import PerfCpu
from fastrtp.trace.syscalls import SYSTEM

from .bind import BoundRecording, BoundStore

if TYPE_CHECKING:
    from fastrtp.kernel import Kernel

_PLACE = {name: PerfCpu.layout.at(name) for name in ("recorded_call", "recorded", "recorded_size")}


def add_contexts(kernel: Kernel, bound: BoundRecording) -> tuple[list[Any], list[str]]:
    """Let the recorded events reach classic programs and perf events as they were recorded.

    (what has to be kept while the recording is played, what the report says).
    """
    keep: list[Any] = []
    notes: list[str] = []
    if not _has_events(kernel):
        return keep, notes
    calls = {call.name: call for call in kernel.trace_events.made if call.in_use}
    for number, (table, event) in enumerate(zip(bound.recording.tables, bound.events, strict=True)):
        call = calls.get(table.name)
        if call is None or table.fmt is None or table.system == SYSTEM or not len(table):
            continue
        made = contexts(table, kernel.trace_events.layout(table.name))
        keep.append(made)
        notes += [f"{table.name}: {note}" for note in made.notes]
        rows = bound.row[bound.event == number]
        cpu_of = np.zeros(len(table), np.uint64)
        cpu_of[rows] = bound.cpu[bound.event == number]
        base = np.uint64(call.perf.cpus_address) + cpu_of * np.uint64(PerfCpu.layout.size)
        addresses = made.starts.astype(np.uint64) + np.uint64(made.flat.ctypes.data)
        event.stores += [
            BoundStore(-1, base, _PLACE["recorded_call"], None, 8, call.perf.address),
            BoundStore(-1, base, _PLACE["recorded"], addresses, 8),
            BoundStore(-1, base, _PLACE["recorded_size"], made.sizes, 8),
        ]
    return keep, notes


def forget_contexts(kernel: Kernel) -> None:
    """The replay is over."""
    if _has_events(kernel):
        kernel.trace_events.forget_recorded()


def _has_events(kernel: Kernel) -> bool:
    """Whether anybody has asked for an event's records so far."""
    return "trace_events" in vars(kernel)
