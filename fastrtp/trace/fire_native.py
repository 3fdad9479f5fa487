"""A live event: from Python or from compiled code to the probes of one tracepoint."""

from __future__ import annotations

from fastrtp.maps.timer_native import run_due_timers
from fastrtp.native.intrinsics import call_trace, native
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import Machine, TracepointRecord


@native()
def trace_fire(machine: Machine, tracepoint: TracepointRecord, trace_call: int, args: int, cpu: int) -> int:
    """Call the tracepoint's probes with u64 args[] on `cpu`; 1 when there were any. Waits for its turn on the machine."""
    if tracepoint.key == 0:
        return 0
    enter(machine)
    run_due_timers(machine)
    live = tracepoint.key != 0  # probes may have gone while it waited
    if live:
        call_trace(trace_call, int(tracepoint), args, int(machine.env[cpu]))
    leave(machine)
    return 1 if live else 0
