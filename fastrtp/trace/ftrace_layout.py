"""The native records of the ftrace and perf side; offsets are taken with native.layout.at().

All fields are int64. Arrays of pointers and of PROG_ARRAY_ITEM end with a zero. Must not know: formats, BTF.
"""

from __future__ import annotations

import numpy as np

from fastrtp.native.layout import I8

TRACE_BUFFER = np.dtype(
    [
        ("data", I8),  # twice `size` bytes: a record that starts near the end runs on past it
        ("size", I8),  # a power of two
        ("head", I8),  # positions in bytes, growing for ever
        ("tail", I8),
        ("overrun", I8),  # records that were overwritten before they were read
        ("dropped", I8),  # records too large for the buffer
        ("on", I8),
        ("entries", I8),  # records written
    ]
)
"""`struct ring_buffer_per_cpu`: one CPU's part of a trace buffer; a cache line."""

TRACE_FILE = np.dtype([("type", I8), ("buffers", I8)])
"""`struct trace_event_file`: the event's id, and the address of TRACE_BUFFER[cpus]: what the ftrace probe gets as its data."""

RECORD_HEADER = 16
"""Bytes before a record in a trace buffer: u32 length, u32 0, u64 time."""

PERF_CPU = np.dtype(
    [
        ("active", I8),
        ("nest", I8),
        ("buffers", I8),
        ("recorded_call", I8),  # PERF_CALL that the recorded record is for, 0: none
        ("recorded", I8),
        ("recorded_size", I8),
        ("pad0", I8),
        ("pad1", I8),
    ]
)
"""Per CPU: bpf_prog_active, how deep perf probes are nested, the buffers that they build records in; and, in a replay, the record
that the event which is about to fire had when it was recorded.
"""

PERF_CALL = np.dtype([("type", I8), ("prog_array", I8), ("events", I8), ("cpus", I8)])
"""What perf keeps in `struct trace_event_call`: the event's id, PROG_ARRAY_ITEM[], PERF_EVENT *[], PERF_CPU[cpus]."""

PROG_ARRAY_ITEM = np.dtype([("prog", I8), ("cookie", I8), ("tail_calls", I8)])
"""`struct bpf_prog_array_item`; `cookie` and `tail_calls` (always 0) are what a RUN_CTX starts as."""

PERF_EVENT = np.dtype(
    [
        ("cpu", I8),  # -1: any
        ("pid", I8),  # -1: any
        ("enabled", I8),
        ("count", I8),
        ("period", I8),  # 0: counting only
        ("period_left", I8),  # from -period up to 0
        ("sample_type", I8),
        ("ring", I8),  # MAP record of the ring, 0: none
    ]
)
"""`struct perf_event` of a tracepoint."""

PERF_MAX_TRACE_SIZE = 8192
PERF_NR_CONTEXTS = 4
