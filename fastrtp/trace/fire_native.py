"""A live event: from Python or from compiled code to the probes of one tracepoint."""

from __future__ import annotations

from fastrtp.maps.timer_native import run_due_timers
from fastrtp.native.intrinsics import call_trace, load64, native
from fastrtp.native.layout import ENV_STRIDE, MACHINE, TRACEPOINT, at
from fastrtp.native.machine_native import enter, leave

_ENVS = at(MACHINE, "env")
_KEY = at(TRACEPOINT, "key")


@native()
def trace_fire(machine: int, tracepoint: int, trace_call: int, args: int, cpu: int) -> int:
    """Call the tracepoint's probes with u64 args[] on `cpu`; 1 when there were any. Waits for its turn on the machine."""
    if load64(tracepoint + _KEY) == 0:
        return 0
    enter(machine)
    run_due_timers(machine)
    live = load64(tracepoint + _KEY) != 0  # probes may have gone while it waited
    if live:
        call_trace(trace_call, tracepoint, args, load64(machine + _ENVS) + cpu * ENV_STRIDE)
    leave(machine)
    return 1 if live else 0
