"""The records of ftrace and perf. Arrays of pointers and of ProgArrayItem end with a zero. Must not know: formats, BTF."""

from __future__ import annotations

from fastrtp.maps.records import MapRecord
from fastrtp.native.record import Array, Pointer, Record, i64, u32
from fastrtp.native.records import Prog

PERF_MAX_TRACE_SIZE = 8192
PERF_NR_CONTEXTS = 4
RECORD_HEADER = 16
"""Bytes before a record in a trace buffer: u32 length, u32 0, u64 time."""


class RingBufferPerCpu(Record):
    """`struct ring_buffer_per_cpu`: one CPU's part of a trace buffer; a cache line."""

    data: i64  # twice `size` bytes: a record that starts near the end runs on past it
    size: i64  # a power of two
    head: i64  # positions in bytes, growing for ever
    tail: i64
    overrun: i64  # records that were overwritten before they were read
    dropped: i64  # records too large for the buffer
    on: i64
    entries: i64  # records written


class TraceFile(Record):
    """`struct trace_event_file`: the event's id, and the address of TraceBuffer[cpus]: what the ftrace probe gets as its data."""

    type: i64
    buffers: Pointer[Array[RingBufferPerCpu]]


class PerfCpu(Record):
    """Per CPU: bpf_prog_active, how deep perf probes are nested, the buffers that they build records in; and, in a replay, the
    record that the event which is about to fire had when it was recorded.
    """

    active: i64
    nest: i64
    buffers: i64
    recorded_call: Pointer[PerfCallRecord]  # PerfCall that the recorded record is for, 0: none
    recorded: i64
    recorded_size: i64
    pad0: i64
    pad1: i64


class PerfCallRecord(Record):
    """What perf keeps in `struct trace_event_call`: the event's id, ProgArrayItem[], the events, PerfCpu[cpus]."""

    type: i64
    prog_array: Pointer[Array[ProgArrayItem]]
    events: i64
    cpus: Pointer[Array[PerfCpu]]


class ProgArrayItem(Record):
    """`struct bpf_prog_array_item`. What a RunCtx starts as: `cookie`, `tail_calls` (always 0) and `ctx_size`."""

    prog: Pointer[Prog]
    cookie: i64
    tail_calls: u32
    ctx_size: u32


class PerfCounter(Record):
    """`struct perf_event` of a tracepoint."""

    cpu: i64  # -1: any
    pid: i64  # -1: any
    enabled: i64
    count: i64
    period: i64  # 0: counting only
    period_left: i64  # from -period up to 0
    sample_type: i64
    ring: Pointer[MapRecord]  # the ring, 0: none
