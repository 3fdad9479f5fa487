"""The trace buffer: records of {u32 length, u32 0, u64 time, event} in a ring a CPU, the oldest overwritten when it is full.

Kernel: kernel/trace/ring_buffer.c, kernel/trace/trace_events.c:trace_event_buffer_reserve
"""

from __future__ import annotations

from fastrtp.helpers.time_native import bpf_ktime_get_ns
from fastrtp.native.intrinsics import device, load8, load32, load64, memcpy, native, store16, store32, store64, ult
from fastrtp.native.layout import ENV, at
from fastrtp.trace.ftrace_layout import RECORD_HEADER, TRACE_BUFFER, TRACE_FILE

_TYPE = at(TRACE_FILE, "type")
_BUFFERS = at(TRACE_FILE, "buffers")
_DATA = at(TRACE_BUFFER, "data")
_SIZE = at(TRACE_BUFFER, "size")
_HEAD = at(TRACE_BUFFER, "head")
_TAIL = at(TRACE_BUFFER, "tail")
_OVERRUN = at(TRACE_BUFFER, "overrun")
_DROPPED = at(TRACE_BUFFER, "dropped")
_ON = at(TRACE_BUFFER, "on")
_ENTRIES = at(TRACE_BUFFER, "entries")
_STRIDE = TRACE_BUFFER.itemsize
_CPU = at(ENV, "cpu")
_CURRENT = at(ENV, "current")
_PID_AT = at(ENV, "pid_at")
_MAX_EVENT = 4080


@device
def room_of(length: int) -> int:
    """Bytes that a record of `length` takes."""
    return (length + RECORD_HEADER + 7) & ~7


@device
def current_pid(env: int) -> int:
    """pid of the running task, 0 for none."""
    current = load64(env + _CURRENT)
    return load32(current + load64(env + _PID_AT)) if current != 0 else 0


@device
def tracing_generic_entry_update(entry: int, kind: int, env: int) -> None:
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
def trace_event_buffer_reserve(file: int, size: int, env: int) -> int:
    """Address of a new record of `size` bytes with its common fields set; 0 when tracing is off or it is too large."""
    buffer = load64(file + _BUFFERS) + load64(env + _CPU) * _STRIDE
    if load64(buffer + _ON) == 0:
        return 0
    ring = load64(buffer + _SIZE)
    need = room_of(size)
    if not ult(size, _MAX_EVENT + 1) or need > ring:
        store64(buffer + _DROPPED, load64(buffer + _DROPPED) + 1)
        return 0
    data = load64(buffer + _DATA)
    head = load64(buffer + _HEAD)
    tail = load64(buffer + _TAIL)
    while head + need - tail > ring:
        tail += room_of(load32(data + (tail & (ring - 1))))
        store64(buffer + _OVERRUN, load64(buffer + _OVERRUN) + 1)
    record = data + (head & (ring - 1))
    store64(record, size)
    store64(record + 8, bpf_ktime_get_ns(env))
    store64(buffer + _TAIL, tail)
    store64(buffer + _HEAD, head + need)
    store64(buffer + _ENTRIES, load64(buffer + _ENTRIES) + 1)
    tracing_generic_entry_update(record + RECORD_HEADER, load64(file + _TYPE), env)
    return record + RECORD_HEADER


@native()
def trace_buffer_copy(buffer: int, out: int, consume: int) -> int:
    """Copy one CPU's records to `out`, in order and without gaps; bytes written. `consume`: they are gone afterwards."""
    written = 0
    ring = load64(buffer + _SIZE)
    data = load64(buffer + _DATA)
    position = load64(buffer + _TAIL)
    head = load64(buffer + _HEAD)
    while position != head:
        record = data + (position & (ring - 1))
        need = room_of(load32(record))
        memcpy(out + written, record, need)
        written += need
        position += need
    if consume != 0:
        store64(buffer + _TAIL, position)
    return written
