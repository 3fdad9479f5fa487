"""The trace buffer: records of {u32 length, u32 0, u64 time, event} in a ring a CPU, the oldest overwritten when it is full.

Kernel: kernel/trace/ring_buffer.c, kernel/trace/trace_events.c:trace_event_buffer_reserve
"""

from __future__ import annotations

from fastrtp.helpers.time_native import bpf_ktime_get_ns
from fastrtp.native.intrinsics import device, load8, load32, memcpy, native, store16, store32, store64, ult
from fastrtp.native.records import Env
from fastrtp.trace.records import RECORD_HEADER, RingBufferPerCpu, TraceFile

_MAX_EVENT = 4080


@device
def room_of(length: int) -> int:
    """Bytes that a record of `length` takes."""
    return (length + RECORD_HEADER + 7) & ~7


@device
def current_pid(env: Env) -> int:
    """pid of the running task, 0 for none."""
    current = env.current
    return load32(current + env.pid_at) if current != 0 else 0


@device
def tracing_generic_entry_update(entry: int, kind: int, env: Env) -> None:
    """The common fields. No flags: a recording does not say what was preempted."""
    store16(entry, kind)
    store16(entry + 2, 0)
    store32(entry + 4, current_pid(env))


@native()
def trace_strnlen(address: int, limit: int) -> int:
    """Length of the string at `address`, of which `limit` bytes may be read."""
    length = 0
    while ult(length, limit):
        if load8(address + length) == 0:
            return length
        length += 1
    return length


@native()
def trace_event_buffer_reserve(file: TraceFile, size: int, env: Env) -> int:
    """Address of a new record of `size` bytes with its common fields set; 0 when tracing is off or it is too large."""
    buffer = file.buffers[env.cpu]
    if buffer.on == 0:
        return 0
    ring = buffer.size
    need = room_of(size)
    if not ult(size, _MAX_EVENT + 1) or need > ring:
        buffer.dropped = buffer.dropped + 1
        return 0
    data = buffer.data
    head = buffer.head
    tail = buffer.tail
    while head + need - tail > ring:
        tail += room_of(load32(data + (tail & (ring - 1))))
        buffer.overrun = buffer.overrun + 1
    record = data + (head & (ring - 1))
    store64(record, size)
    store64(record + 8, bpf_ktime_get_ns(env))
    buffer.tail = tail
    buffer.head = head + need
    buffer.entries = buffer.entries + 1
    tracing_generic_entry_update(record + RECORD_HEADER, file.type, env)
    return record + RECORD_HEADER


@native()
def trace_buffer_copy(buffer: RingBufferPerCpu, out: int, consume: int) -> int:
    """Copy one CPU's records to `out`, in order and without gaps; bytes written. `consume`: they are gone afterwards."""
    written = 0
    ring = buffer.size
    data = buffer.data
    position = buffer.tail
    head = buffer.head
    while position != head:
        record = data + (position & (ring - 1))
        need = room_of(load32(record))
        memcpy(out + written, record, need)
        written += need
        position += need
    if consume != 0:
        buffer.tail = position
    return written
