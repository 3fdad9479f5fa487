"""What goes before and after a chunk of the replay loop (loop_text.py): taking the machine, the positions, the counters.

Must not know: programs, links, BTF.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load64, native, store64
from fastrtp.native.layout import ENV, ENV_STRIDE, FUSED, FUSED_ROW, MACHINE, NEVER, PROG_STATS, REPLAY, STATS_TIMED, at
from fastrtp.native.machine_native import enter, leave

_MACHINE = at(REPLAY, "machine")
_TIMES = at(REPLAY, "time")
_CURRENTS = at(REPLAY, "current")
_STACKS = at(REPLAY, "stacks")
_POSITION = at(REPLAY, "position")
_END = at(REPLAY, "end")
_FIRED = at(REPLAY, "fired")
_HELD = at(REPLAY, "held")
_ENVS = at(MACHINE, "env")
_TIME = at(ENV, "time")
_CURRENT = at(ENV, "current")
_KERNEL_STACK = at(ENV, "kernel_stack")
_USER_STACK = at(ENV, "user_stack")
_STATS = at(ENV, "stats")
_TIMER_NEXT = at(MACHINE, "timer_next")
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


@device
def _chunk_end(replay: int, limit: int) -> int:
    """Index of the event before which a chunk of at most `limit` events ends."""
    end = load64(replay + _END)
    stop = load64(replay + _POSITION) + limit
    return stop if stop < end else end


@device
def _played(replay: int, position: int, fired: int) -> int:
    """Note how far it came, and give the machine back; how many events were played."""
    count = position - load64(replay + _POSITION)
    store64(replay + _POSITION, position)
    store64(replay + _FIRED, load64(replay + _FIRED) + fired)
    _give_back(replay)
    return count


@native()
def replay_begin(replay: int, limit: int) -> int:
    """Take the machine for a chunk of the linked loop; where the chunk ends."""
    _take(replay)
    return _chunk_end(replay, limit)


@native()
def replay_end(replay: int, position: int, fired: int) -> int:
    """Account for a chunk of the linked loop; how many events were played."""
    return _played(replay, position, fired)


@native()
def fused_begin(fused: int, limit: int) -> int:
    """Take the machine for a chunk of the fused loop: where the chunk ends. Otherwise it is not taken: -1 when probes have
    changed since the code was made, -2 when this chunk must be linked (runs are timed, a timer is armed, or one of the
    programs is running).
    """
    replay = load64(fused + _REPLAY)
    machine = load64(replay + _MACHINE)
    _take(replay)
    if load64(machine + _GENERATION) != load64(fused + _MADE_FOR):
        _give_back(replay)
        return _CHANGED
    cpus = load64(fused + _CPUS_NUMBER)
    rows = load64(fused + _ROWS_OF)
    busy = (load64(load64(machine + _ENVS) + _STATS) & STATS_TIMED) | (load64(machine + _TIMER_NEXT) ^ NEVER)
    mine = load64(fused + _MINE)
    for cpu in range(cpus):
        for row in range(load64(fused + _ROW_COUNT) if load64(mine + cpu * 8) != 0 else 0):
            busy |= load64(load64(rows + row * _ROW_SIZE + _ROW_STATS) + cpu * _STATS_SIZE + _ACTIVE)
    if busy != 0:
        _give_back(replay)
        return _NOT_NOW
    for cpu in range(cpus):
        store64(load64(fused + _LAST) + cpu * 8, -1)
    return _chunk_end(replay, limit)


@native()
def fused_end(fused: int, position: int, fired: int) -> int:
    """Account for the chunk that ended before event `position`, and give the machine back; how many events were played.

    `fired`: events that went to probes; the others are in `counts`.
    """
    replay = load64(fused + _REPLAY)
    cpus = load64(fused + _CPUS_NUMBER)
    mine = load64(fused + _MINE)
    counts = load64(fused + _COUNTS)
    rows = load64(fused + _ROWS_OF)
    for row in range(load64(fused + _ROW_COUNT)):
        of_kind = counts + load64(rows + row * _ROW_SIZE + _ROW_KIND) * cpus * 8
        stats = load64(rows + row * _ROW_SIZE + _ROW_STATS) + _RUNS
        for cpu in range(cpus):
            runs = stats + cpu * _STATS_SIZE
            if load64(mine + cpu * 8) != 0:
                store64(runs, load64(runs) + load64(of_kind + cpu * 8))
    for item in range(load64(fused + _KINDS_NUMBER) * cpus):
        fired += load64(counts + item * 8)
        store64(counts + item * 8, 0)
    stacks = load64(replay + _STACKS)
    for cpu in range(cpus):
        env = load64(load64(replay + _MACHINE) + _ENVS) + cpu * ENV_STRIDE
        last = load64(load64(fused + _LAST) + cpu * 8)
        if last >= 0:
            store64(env + _TIME, load64(load64(replay + _TIMES) + last * 8))
            store64(env + _CURRENT, load64(load64(replay + _CURRENTS) + last * 8))
            if stacks != 0:
                store64(env + _KERNEL_STACK, load64(stacks + last * 16))
                store64(env + _USER_STACK, load64(stacks + last * 16 + 8))
    return _played(replay, position, fired)
