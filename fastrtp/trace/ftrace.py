"""TraceBuffer: the ring of records that ftrace events are written to, one part a CPU; and an event's probe into it.

Kernel: kernel/trace/ring_buffer.c, kernel/trace/trace_events.c (struct trace_event_file)
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from heapq import merge
from typing import NamedTuple

from fastrtp.errors import BpfError
from fastrtp.native.memory import Memory
from fastrtp.trace.records import RECORD_HEADER, RingBufferPerCpu, TraceFile
from fastrtp.trace.tracepoint import Tracepoint, TracepointFunc, tracepoint_probe_register, tracepoint_probe_unregister


class RawRecord(NamedTuple):
    """One record: `time` in ns, `data` with the common fields in front."""

    time: int
    cpu: int
    data: bytes


class TraceBuffer:
    """`size` bytes (a power of two, at least 4096) for each CPU; when a part is full, its oldest records go."""

    def __init__(self, memory: Memory, size: int) -> None:
        if size < 1 << 12 or size & (size - 1):
            raise BpfError(errno.EINVAL, f"EINVAL: a trace buffer has a power of two of bytes, at least 4096, not {size}")
        self.memory = memory
        self.address, self._record = memory.record(RingBufferPerCpu.layout.dtype, memory.cpus)
        self._data = [memory.arena.alloc(2 * size) for _ in range(memory.cpus)]
        self._record["data"], self._record["size"], self._record["on"] = self._data, size, 1

    @property
    def on(self) -> bool:
        """Whether records are written: tracing_on."""
        return bool(self._record["on"][0])

    @on.setter
    def on(self, value: bool) -> None:
        self._record["on"] = int(value)

    @property
    def entries(self) -> int:
        """Records written since it was made."""
        return int(self._record["entries"].sum())

    @property
    def overrun(self) -> int:
        """Records overwritten before they were read."""
        return int(self._record["overrun"].sum())

    @property
    def dropped(self) -> int:
        """Records that were too large to be written."""
        return int(self._record["dropped"].sum())

    def read(self, *, consume: bool) -> Iterator[RawRecord]:
        """All records in time order. Copied at once; `consume` takes them out."""
        parts = []
        lib = self.memory.lib
        lib.machine_enter(self.memory.machine_address)
        try:
            for cpu in range(self.memory.cpus):
                used = int(self._record["head"][cpu] - self._record["tail"][cpu])
                buffer = ctypes.create_string_buffer(max(used, 1))
                written = lib.trace_buffer_copy(
                    self.address + cpu * RingBufferPerCpu.layout.size, ctypes.addressof(buffer), int(consume)
                )
                parts.append(_records(cpu, buffer.raw[:written]))
        finally:
            lib.machine_leave(self.memory.machine_address)
        return merge(*parts, key=lambda record: record.time)

    def close(self) -> None:
        """Free it. No event may be enabled."""
        for data in self._data:
            self.memory.arena.free(data)
        self.memory.arena.free(self.address)


def _records(cpu: int, data: bytes) -> Iterator[RawRecord]:
    at = 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        time = int.from_bytes(data[at + 8 : at + RECORD_HEADER], "little")
        yield RawRecord(time, cpu, data[at + RECORD_HEADER : at + RECORD_HEADER + length])
        at += (length + RECORD_HEADER + 7) & ~7


class TraceEventFile:
    """`struct trace_event_file`: one event's probe into a trace buffer. `func`: native trace_event_raw_event_<name>."""

    def __init__(self, tp: Tracepoint, func: int, event_type: int, buffer: TraceBuffer) -> None:
        self.tp = tp
        self.func = func
        self._memory = buffer.memory
        self.address, self._record = self._memory.record(TraceFile.layout.dtype)
        self._record["type"], self._record["buffers"] = event_type, buffer.address

    def enable(self) -> None:
        """Write records from now on. BpfError: what registering the probe gives."""
        tracepoint_probe_register(self.tp, TracepointFunc(self.func, self.address))

    def close(self) -> None:
        """Stop, and free: when it returns, no record is being written."""
        tracepoint_probe_unregister(self.tp, self.func, self.address)
        self._memory.arena.free(self.address)
