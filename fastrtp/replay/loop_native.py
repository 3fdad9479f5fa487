"""The linked replay loop: events in time order, their objects brought up to date, their tracepoints fired; and what goes
before and after a chunk of the fused loop (fused.py).

Must not know: programs, links, BTF. It calls trace_call<N> and the code of materialize.py through REPLAY_EVENT.
"""

from __future__ import annotations

from fastrtp.maps.timer_native import timers_run
from fastrtp.native.intrinsics import call_materialize, call_trace, device, load16, load32, load64, native, stack_bytes, store64
from fastrtp.native.layout import (
    ENV,
    ENV_STRIDE,
    FUSED,
    FUSED_ROW,
    MACHINE,
    NEVER,
    PROG_STATS,
    REPLAY,
    REPLAY_EVENT,
    TRACEPOINT,
    at,
)
from fastrtp.native.machine_native import enter, leave

_MACHINE = at(REPLAY, "machine")
_TIMES = at(REPLAY, "time")
_CPUS = at(REPLAY, "cpu")
_EVENTS_OF = at(REPLAY, "event")
_ROWS = at(REPLAY, "row")
_CURRENTS = at(REPLAY, "current")
_STACKS = at(REPLAY, "stacks")
_KINDS = at(REPLAY, "events")
_POSITION = at(REPLAY, "position")
_END = at(REPLAY, "end")
_FIRED = at(REPLAY, "fired")
_HELD = at(REPLAY, "held")
_ENVS = at(MACHINE, "env")
_STOP = at(MACHINE, "stop")
_TIMER_NEXT = at(MACHINE, "timer_next")
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
_KERNEL_STACK = at(ENV, "kernel_stack")
_USER_STACK = at(ENV, "user_stack")
_RUN_CTX = at(ENV, "run_ctx")
_KEEP_STATS = at(ENV, "stats")
_GENERATION = at(MACHINE, "generation")
_REPLAY = at(FUSED, "replay")
_MADE_FOR = at(FUSED, "generation")
_COUNTS = at(FUSED, "counts")
_LAST = at(FUSED, "last")
_KINDS_NUMBER = at(FUSED, "kinds")
_CPUS_NUMBER = at(FUSED, "cpus")
_ROWS_OF = at(FUSED, "rows")
_ROW_COUNT = at(FUSED, "row_count")
_MINE = at(FUSED, "mine")
_ROW_KIND = at(FUSED_ROW, "kind")
_ROW_STATS = at(FUSED_ROW, "stats")
_ROW_SIZE = FUSED_ROW.itemsize
_ACTIVE = at(PROG_STATS, "active")
_RUNS = at(PROG_STATS, "runs")
_STATS_SIZE = PROG_STATS.itemsize
_CHANGED = -1
_NOT_NOW = -2


@device
def _take(replay: int) -> None:
    """Take the machine for a chunk, unless that has been done for all loops of a parallel replay."""
    if load64(replay + _HELD) == 0:
        enter(load64(replay + _MACHINE))


@device
def _give_back(replay: int) -> None:
    if load64(replay + _HELD) == 0:
        leave(load64(replay + _MACHINE))


@native()
def replay_run(replay: int, limit: int) -> int:
    """Play at most `limit` events; how many were played. Stops early when the machine is told to."""
    machine = load64(replay + _MACHINE)
    _take(replay)
    times = load64(replay + _TIMES)
    cpus = load64(replay + _CPUS)
    events = load64(replay + _EVENTS_OF)
    rows = load64(replay + _ROWS)
    currents = load64(replay + _CURRENTS)
    stacks = load64(replay + _STACKS)
    kinds = load64(replay + _KINDS)
    envs = load64(machine + _ENVS)
    first = load64(replay + _POSITION)
    position = first
    end = load64(replay + _END)
    if end > position + limit:
        end = position + limit
    fired = 0
    args = stack_bytes(96)
    alone = load64(replay + _HELD) == 0  # timers fire in the order of all events, so not while loops run side by side
    while position < end:
        due = load64(machine + _TIMER_NEXT) if alone else NEVER
        if due != NEVER and due <= load64(times + position * 8):
            timers_run(machine, load64(times + position * 8))
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
                if stacks != 0:
                    store64(env + _KERNEL_STACK, load64(stacks + position * 16))
                    store64(env + _USER_STACK, load64(stacks + position * 16 + 8))
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
    _give_back(replay)
    return position - first


@native()
def fused_begin(fused: int, run_ctx: int) -> int:
    """Take the machine for a chunk of the fused loop: 0. Otherwise it is not taken: -1 when probes have changed since the
    code was made, -2 when this chunk must be linked (runs are timed, or one of the programs is running).
    """
    replay = load64(fused + _REPLAY)
    machine = load64(replay + _MACHINE)
    _take(replay)
    if load64(machine + _GENERATION) != load64(fused + _MADE_FOR):
        _give_back(replay)
        return _CHANGED
    envs = load64(machine + _ENVS)
    cpus = load64(fused + _CPUS_NUMBER)
    rows = load64(fused + _ROWS_OF)
    busy = load64(machine + _STOP) | load64(envs + _KEEP_STATS)
    mine = load64(fused + _MINE)
    for cpu in range(cpus):
        for row in range(load64(fused + _ROW_COUNT) if load64(mine + cpu * 8) != 0 else 0):
            busy |= load64(load64(rows + row * _ROW_SIZE + _ROW_STATS) + cpu * _STATS_SIZE + _ACTIVE)
    if busy != 0:
        _give_back(replay)
        return _NOT_NOW
    for cpu in range(cpus):
        if load64(mine + cpu * 8) != 0:
            store64(envs + cpu * ENV_STRIDE + _RUN_CTX, run_ctx)
        store64(load64(fused + _LAST) + cpu * 8, -1)
    return 0


@native()
def fused_end(fused: int, position: int) -> int:
    """Account for the chunk that ended before event `position`, and give the machine back; how many events were played."""
    replay = load64(fused + _REPLAY)
    machine = load64(replay + _MACHINE)
    cpus = load64(fused + _CPUS_NUMBER)
    counts = load64(fused + _COUNTS)
    rows = load64(fused + _ROWS_OF)
    mine = load64(fused + _MINE)
    for row in range(load64(fused + _ROW_COUNT)):
        of_kind = counts + load64(rows + row * _ROW_SIZE + _ROW_KIND) * cpus * 8
        stats = load64(rows + row * _ROW_SIZE + _ROW_STATS) + _RUNS
        for cpu in range(cpus):
            runs = stats + cpu * _STATS_SIZE
            if load64(mine + cpu * 8) != 0:
                store64(runs, load64(runs) + load64(of_kind + cpu * 8))
    fired = 0
    for item in range(load64(fused + _KINDS_NUMBER) * cpus):
        fired += load64(counts + item * 8)
        store64(counts + item * 8, 0)
    for cpu in range(cpus):
        env = load64(machine + _ENVS) + cpu * ENV_STRIDE
        last = load64(load64(fused + _LAST) + cpu * 8)
        if last >= 0:
            store64(env + _TIME, load64(load64(replay + _TIMES) + last * 8))
            store64(env + _CURRENT, load64(load64(replay + _CURRENTS) + last * 8))
    played = position - load64(replay + _POSITION)
    store64(replay + _POSITION, position)
    store64(replay + _FIRED, load64(replay + _FIRED) + fired)
    _give_back(replay)
    return played
