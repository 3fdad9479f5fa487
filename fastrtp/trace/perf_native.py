"""The perf side of a tracepoint: classic tracepoint programs, counters and samples.

A probe made by ftrace_assign.py builds the event's record in a buffer of its CPU and hands it over here: first to the
programs, whose results decide whether the perf events on this CPU see it.

Kernel: kernel/trace/trace_event_perf.c, kernel/events/core.c (perf_tp_event), kernel/trace/bpf_trace.c:trace_call_bpf
"""

from __future__ import annotations

from fastrtp.helpers.time_native import bpf_ktime_get_ns
from fastrtp.maps.ringbuf_native import ring_reserve
from fastrtp.native.intrinsics import (
    call_prog,
    device,
    load32,
    load64,
    memcpy,
    native,
    outline,
    stack_bytes,
    store16,
    store32,
    store64,
    ult,
)
from fastrtp.native.layout import ENV, PROG, PROG_STATS, STATS_TIMED, at
from fastrtp.native.smp_native import add64, store32_shared
from fastrtp.trace.ftrace_layout import (
    PERF_CALL,
    PERF_CPU,
    PERF_EVENT,
    PERF_MAX_TRACE_SIZE,
    PERF_NR_CONTEXTS,
    PROG_ARRAY_ITEM,
)
from fastrtp.trace.ftrace_native import current_pid, tracing_generic_entry_update
from fastrtp.trace.perf_attr import (
    PERF_RECORD_MISC_KERNEL,
    PERF_RECORD_SAMPLE,
    PERF_SAMPLE_CPU,
    PERF_SAMPLE_PERIOD,
    PERF_SAMPLE_RAW,
    PERF_SAMPLE_TID,
    PERF_SAMPLE_TIME,
)

_TYPE = at(PERF_CALL, "type")
_PROGS = at(PERF_CALL, "prog_array")
_EVENTS = at(PERF_CALL, "events")
_CPUS = at(PERF_CALL, "cpus")
_ACTIVE = at(PERF_CPU, "active")
_NEST = at(PERF_CPU, "nest")
_BUFFERS = at(PERF_CPU, "buffers")
_RECORDED_CALL = at(PERF_CPU, "recorded_call")
_RECORDED = at(PERF_CPU, "recorded")
_RECORDED_SIZE = at(PERF_CPU, "recorded_size")
_CPU_STRIDE = PERF_CPU.itemsize
_ITEM_PROG = at(PROG_ARRAY_ITEM, "prog")
_ITEM_COOKIE = at(PROG_ARRAY_ITEM, "cookie")
_ITEM_SIZE = PROG_ARRAY_ITEM.itemsize
_EVENT_CPU = at(PERF_EVENT, "cpu")
_EVENT_PID = at(PERF_EVENT, "pid")
_ENABLED = at(PERF_EVENT, "enabled")
_COUNT = at(PERF_EVENT, "count")
_PERIOD = at(PERF_EVENT, "period")
_LEFT = at(PERF_EVENT, "period_left")
_SAMPLE_TYPE = at(PERF_EVENT, "sample_type")
_RING = at(PERF_EVENT, "ring")
_ENTRY = at(PROG, "entry")
_STATS = at(PROG, "stats")
_STATS_SIZE = PROG_STATS.itemsize
_RUNS = at(PROG_STATS, "runs")
_MISSES = at(PROG_STATS, "misses")
_CPU = at(ENV, "cpu")
_CURRENT = at(ENV, "current")
_TGID_AT = at(ENV, "tgid_at")
_RUN_CTX = at(ENV, "run_ctx")
_STATS_FLAGS = at(ENV, "stats")

_run_timed = outline("bpf_prog_run_timed", 4)


@device
def trace_call_bpf(call: int, cpu: int, ctx: int, env: int) -> int:
    """Run the tracepoint's programs; whether all of them returned an odd number. None runs while one is running on the CPU."""
    item = load64(call + _PROGS)
    busy = load64(cpu + _ACTIVE)
    run_ctx = stack_bytes(16)
    outer = load64(env + _RUN_CTX)
    store64(cpu + _ACTIVE, 1)
    result = 1
    while True:
        prog = load64(item + _ITEM_PROG)
        if prog == 0:
            break
        stats = load64(prog + _STATS) + load64(env + _CPU) * _STATS_SIZE
        if busy != 0:
            store64(stats + _MISSES, load64(stats + _MISSES) + 1)
            result = 0
        else:
            memcpy(run_ctx, item + _ITEM_COOKIE, 16)  # the cookie, and no tail calls so far
            store64(env + _RUN_CTX, run_ctx)
            if load64(env + _STATS_FLAGS) & STATS_TIMED == 0:
                result &= call_prog(load64(prog + _ENTRY), ctx, env)
            else:
                result &= _run_timed(prog, stats, ctx, env)
            store64(stats + _RUNS, load64(stats + _RUNS) + 1)
        item += _ITEM_SIZE
    store64(env + _RUN_CTX, outer)
    store64(cpu + _ACTIVE, busy)
    return result


@device
def perf_event_output(event: int, raw: int, size: int, env: int) -> None:
    """Write one PERF_RECORD_SAMPLE. A full ring counts it as lost."""
    what = load64(event + _SAMPLE_TYPE)
    length = 8
    for bit in (PERF_SAMPLE_TID, PERF_SAMPLE_TIME, PERF_SAMPLE_CPU, PERF_SAMPLE_PERIOD):
        if what & bit:
            length += 8
    if what & PERF_SAMPLE_RAW:
        length += 4 + size
    record = ring_reserve(load64(event + _RING), length)
    if record == 0:
        return
    store32(record, PERF_RECORD_SAMPLE)
    store16(record + 4, PERF_RECORD_MISC_KERNEL)
    store16(record + 6, length)
    out = record + 8
    if what & PERF_SAMPLE_TID:
        current = load64(env + _CURRENT)
        store32(out, load32(current + load64(env + _TGID_AT)) if current != 0 else 0)
        store32(out + 4, current_pid(env))
        out += 8
    if what & PERF_SAMPLE_TIME:
        store64(out, bpf_ktime_get_ns(env))
        out += 8
    if what & PERF_SAMPLE_CPU:
        store64(out, load64(env + _CPU))
        out += 8
    if what & PERF_SAMPLE_PERIOD:
        store64(out, load64(event + _PERIOD))
        out += 8
    if what & PERF_SAMPLE_RAW:
        store32(out, size)
        memcpy(out + 4, raw, size)
    store32_shared(record - 8, length)


@device
def perf_swevent_event(event: int, raw: int, size: int, env: int) -> None:
    """Count, and sample when the period is over."""
    add64(event + _COUNT, 1)
    period = load64(event + _PERIOD)
    if period == 0:
        return
    left = add64(event + _LEFT, 1)
    if left < 0:
        return
    add64(event + _LEFT, -period - left)
    if load64(event + _RING) != 0:
        perf_event_output(event, raw, size, env)


@device
def perf_tp_event(call: int, raw: int, size: int, env: int) -> None:
    """Give the record to the events that are on for this CPU and task."""
    tracing_generic_entry_update(raw, load64(call + _TYPE), env)
    at_event = load64(call + _EVENTS)
    while True:
        event = load64(at_event)
        if event == 0:
            return
        cpu = load64(event + _EVENT_CPU)
        pid = load64(event + _EVENT_PID)
        mine = (cpu == -1 or cpu == load64(env + _CPU)) and (pid == -1 or pid == current_pid(env))
        if mine and load64(event + _ENABLED) != 0:
            perf_swevent_event(event, raw, size, env)
        at_event += 8


@native()
def perf_trace_buf_alloc(call: int, size: int, env: int) -> int:
    """Room for a record of `size` bytes; 0 when nobody wants it, it is too large, or probes are nested too deep."""
    if load64(load64(call + _PROGS)) == 0 and load64(load64(call + _EVENTS)) == 0:
        return 0
    cpu = load64(call + _CPUS) + load64(env + _CPU) * _CPU_STRIDE
    nest = load64(cpu + _NEST)
    if nest >= PERF_NR_CONTEXTS or not ult(size, PERF_MAX_TRACE_SIZE + 1):
        return 0
    store64(cpu + _NEST, nest + 1)
    raw = load64(cpu + _BUFFERS) + nest * PERF_MAX_TRACE_SIZE
    store64(raw + size - 8, 0)  # the bytes that size was rounded up by
    return raw


@native()
def perf_trace_run_bpf_submit(call: int, raw: int, size: int, env: int) -> int:
    """Programs first, then events, and the buffer is free again."""
    cpu = load64(call + _CPUS) + load64(env + _CPU) * _CPU_STRIDE
    wanted = 1
    if load64(load64(call + _PROGS)) != 0:
        store64(raw, 0)  # in Linux the address of the registers; no program may read it
        wanted = trace_call_bpf(call, cpu, raw, env) & 1
    if wanted != 0:
        perf_tp_event(call, raw, size, env)
    store64(cpu + _NEST, load64(cpu + _NEST) - 1)
    return 0


@native()
def perf_trace_recorded(call: int, env: int) -> int:
    """Hand over the record that the event had when it was recorded, where a replay has put one; whether it had."""
    cpu = load64(call + _CPUS) + load64(env + _CPU) * _CPU_STRIDE
    if load64(cpu + _RECORDED_CALL) != call:
        return 0
    store64(cpu + _RECORDED_CALL, 0)
    size = load64(cpu + _RECORDED_SIZE)
    room = ((size + 11) & ~7) - 4
    raw = perf_trace_buf_alloc(call, room, env)
    if raw != 0:
        memcpy(raw, load64(cpu + _RECORDED), size)
        perf_trace_run_bpf_submit(call, raw, room, env)
    return 1
