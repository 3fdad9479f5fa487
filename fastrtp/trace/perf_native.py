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
from fastrtp.native.records import STATS_TIMED, Env, Prog, RunCtx
from fastrtp.native.smp_native import add64, store32_shared
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
from fastrtp.trace.records import PERF_MAX_TRACE_SIZE, PERF_NR_CONTEXTS, PerfCallRecord, PerfCounter, PerfCpu, ProgArrayItem

_ITEM_PROG = ProgArrayItem.layout.at("prog")
_ITEM_COOKIE = ProgArrayItem.layout.at("cookie")
_ITEM_SIZE = ProgArrayItem.layout.size
_COUNT = PerfCounter.layout.at("count")
_LEFT = PerfCounter.layout.at("period_left")

_run_timed = outline("bpf_prog_run_timed", 4)


@device
def trace_call_bpf(call: PerfCallRecord, cpu: PerfCpu, ctx: int, env: Env) -> int:
    """Run the tracepoint's programs; whether all of them returned an odd number. None runs while one is running on the CPU."""
    item = int(call.prog_array)
    busy = cpu.active
    run_ctx = stack_bytes(16)
    outer = env.run_ctx
    cpu.active = 1
    result = 1
    while True:
        prog = Prog(load64(item + _ITEM_PROG))
        if not prog:
            break
        stats = prog.stats[env.cpu]
        if busy != 0:
            stats.misses = stats.misses + 1
            result = 0
        else:
            memcpy(run_ctx, item + _ITEM_COOKIE, 16)  # the cookie, and no tail calls so far
            env.run_ctx = RunCtx(run_ctx)
            if env.stats & STATS_TIMED == 0:
                result &= call_prog(prog.entry, ctx, int(env))
            else:
                result &= _run_timed(int(prog), int(stats), ctx, int(env))
            stats.runs = stats.runs + 1
        item += _ITEM_SIZE
    env.run_ctx = outer
    cpu.active = busy
    return result


@device
def perf_event_output(event: PerfCounter, raw: int, size: int, env: Env) -> None:
    """Write one PERF_RECORD_SAMPLE. A full ring counts it as lost."""
    what = event.sample_type
    length = 8
    for bit in (PERF_SAMPLE_TID, PERF_SAMPLE_TIME, PERF_SAMPLE_CPU, PERF_SAMPLE_PERIOD):
        if what & bit:
            length += 8
    if what & PERF_SAMPLE_RAW:
        length += 4 + size
    record = ring_reserve(event.ring, length)
    if record == 0:
        return
    store32(record, PERF_RECORD_SAMPLE)
    store16(record + 4, PERF_RECORD_MISC_KERNEL)
    store16(record + 6, length)
    out = record + 8
    if what & PERF_SAMPLE_TID:
        current = env.current
        store32(out, load32(current + env.tgid_at) if current != 0 else 0)
        store32(out + 4, current_pid(env))
        out += 8
    if what & PERF_SAMPLE_TIME:
        store64(out, bpf_ktime_get_ns(env))
        out += 8
    if what & PERF_SAMPLE_CPU:
        store64(out, env.cpu)
        out += 8
    if what & PERF_SAMPLE_PERIOD:
        store64(out, event.period)
        out += 8
    if what & PERF_SAMPLE_RAW:
        store32(out, size)
        memcpy(out + 4, raw, size)
    store32_shared(record - 8, length)


@device
def perf_swevent_event(event: PerfCounter, raw: int, size: int, env: Env) -> None:
    """Count, and sample when the period is over."""
    add64(int(event) + _COUNT, 1)
    period = event.period
    if period == 0:
        return
    left = add64(int(event) + _LEFT, 1)
    if left < 0:
        return
    add64(int(event) + _LEFT, -period - left)
    if event.ring:
        perf_event_output(event, raw, size, env)


@device
def perf_tp_event(call: PerfCallRecord, raw: int, size: int, env: Env) -> None:
    """Give the record to the events that are on for this CPU and task."""
    tracing_generic_entry_update(raw, call.type, env)
    at_event = call.events
    while True:
        event = PerfCounter(load64(at_event))
        if not event:
            return
        cpu = event.cpu
        pid = event.pid
        mine = (cpu == -1 or cpu == env.cpu) and (pid == -1 or pid == current_pid(env))
        if mine and event.enabled != 0:
            perf_swevent_event(event, raw, size, env)
        at_event += 8


@native()
def perf_trace_buf_alloc(call: PerfCallRecord, size: int, env: Env) -> int:
    """Room for a record of `size` bytes; 0 when nobody wants it, it is too large, or probes are nested too deep."""
    if load64(int(call.prog_array)) == 0 and load64(call.events) == 0:
        return 0
    cpu = call.cpus[env.cpu]
    nest = cpu.nest
    if nest >= PERF_NR_CONTEXTS or not ult(size, PERF_MAX_TRACE_SIZE + 1):
        return 0
    cpu.nest = nest + 1
    raw = cpu.buffers + nest * PERF_MAX_TRACE_SIZE
    store64(raw + size - 8, 0)  # the bytes that size was rounded up by
    return raw


@native()
def perf_trace_run_bpf_submit(call: PerfCallRecord, raw: int, size: int, env: Env) -> int:
    """Programs first, then events, and the buffer is free again."""
    cpu = call.cpus[env.cpu]
    wanted = 1
    if load64(int(call.prog_array)) != 0:
        store64(raw, 0)  # in Linux the address of the registers; no program may read it
        wanted = trace_call_bpf(call, cpu, raw, env) & 1
    if wanted != 0:
        perf_tp_event(call, raw, size, env)
    cpu.nest = cpu.nest - 1
    return 0


@native()
def perf_trace_recorded(call: PerfCallRecord, env: Env) -> int:
    """Hand over the record that the event had when it was recorded, where a replay has put one; whether it had."""
    cpu = call.cpus[env.cpu]
    if cpu.recorded_call != call:
        return 0
    cpu.recorded_call = PerfCallRecord(0)
    size = cpu.recorded_size
    room = ((size + 11) & ~7) - 4
    raw = perf_trace_buf_alloc(call, room, env)
    if raw != 0:
        memcpy(raw, cpu.recorded, size)
        perf_trace_run_bpf_submit(call, raw, room, env)
    return 1
