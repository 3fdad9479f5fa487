"""The linked replay loop: events in time order, their objects brought up to date, their tracepoints fired.

Must not know: programs, links, BTF. It calls trace_call<N> and the code of materialize.py through REPLAY_EVENT.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import call_materialize, call_trace, load16, load32, load64, native, stack_bytes, store64
from fastrtp.native.layout import ENV, ENV_STRIDE, MACHINE, REPLAY, REPLAY_EVENT, TRACEPOINT, at
from fastrtp.native.machine_native import enter, leave

_MACHINE = at(REPLAY, "machine")
_TIMES = at(REPLAY, "time")
_CPUS = at(REPLAY, "cpu")
_EVENTS_OF = at(REPLAY, "event")
_ROWS = at(REPLAY, "row")
_CURRENTS = at(REPLAY, "current")
_KINDS = at(REPLAY, "events")
_POSITION = at(REPLAY, "position")
_END = at(REPLAY, "end")
_FIRED = at(REPLAY, "fired")
_ENVS = at(MACHINE, "env")
_STOP = at(MACHINE, "stop")
_TRACEPOINT = at(REPLAY_EVENT, "tracepoint")
_TRACE = at(REPLAY_EVENT, "trace")
_MATERIALIZE = at(REPLAY_EVENT, "materialize")
_AFTER = at(REPLAY_EVENT, "after")
_SOURCES = at(REPLAY_EVENT, "sources")
_STORES = at(REPLAY_EVENT, "stores")
_KIND_SIZE = REPLAY_EVENT.itemsize
_KEY = at(TRACEPOINT, "key")
_TIME = at(ENV, "time")
_CURRENT = at(ENV, "current")


@native()
def replay_run(replay: int, limit: int) -> int:
    """Play at most `limit` events; how many were played. Stops early when the machine is told to."""
    machine = load64(replay + _MACHINE)
    enter(machine)
    times = load64(replay + _TIMES)
    cpus = load64(replay + _CPUS)
    events = load64(replay + _EVENTS_OF)
    rows = load64(replay + _ROWS)
    currents = load64(replay + _CURRENTS)
    kinds = load64(replay + _KINDS)
    envs = load64(machine + _ENVS)
    first = load64(replay + _POSITION)
    position = first
    end = load64(replay + _END)
    if end > position + limit:
        end = position + limit
    fired = 0
    args = stack_bytes(96)
    while position < end:
        kind = kinds + load16(events + position * 2) * _KIND_SIZE
        tracepoint = load64(kind + _TRACEPOINT)
        live = tracepoint != 0 and load64(tracepoint + _KEY) != 0
        after = load64(kind + _AFTER)
        if live or after != 0 or load64(kind + _STORES) != 0:
            row = load32(rows + position * 4)
            sources = load64(kind + _SOURCES)
            call_materialize(load64(kind + _MATERIALIZE), row, args, sources)
            if live:
                env = envs + load16(cpus + position * 2) * ENV_STRIDE
                store64(env + _TIME, load64(times + position * 8))
                store64(env + _CURRENT, load64(currents + position * 8))
                call_trace(load64(kind + _TRACE), tracepoint, args, env)
                fired += 1
            if after != 0:
                call_materialize(after, row, args, sources)
            if load64(machine + _STOP) != 0:
                position += 1
                break
        position += 1
    store64(replay + _POSITION, position)
    store64(replay + _FIRED, load64(replay + _FIRED) + fired)
    leave(machine)
    return position - first
