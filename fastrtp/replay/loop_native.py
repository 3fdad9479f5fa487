"""What goes before and after a chunk of the replay loop (loop_text.py): taking the machine, the positions, the counters.

Must not know: programs, links, BTF.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load64, native, store64
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import NEVER, STATS_TIMED, Env, ProgStats
from fastrtp.replay.records import Fused, Replay

_STATS = Env.layout.at("stats")
_ACTIVE = ProgStats.layout.at("active")
_RUNS = ProgStats.layout.at("runs")
_STATS_SIZE = ProgStats.layout.size
_CHANGED = -1
_NOT_NOW = -2


@device
def _take(replay: Replay) -> None:
    """Take the machine for a chunk, unless that has been done for all loops of a parallel replay."""
    if replay.held == 0:
        enter(replay.machine)


@device
def _give_back(replay: Replay) -> None:
    if replay.held == 0:
        leave(replay.machine)


@device
def _chunk_end(replay: Replay, limit: int) -> int:
    """Index of the event before which a chunk of at most `limit` events ends."""
    end = replay.end
    stop = replay.position + limit
    return stop if stop < end else end


@device
def _played(replay: Replay, position: int, fired: int) -> int:
    """Note how far it came, and give the machine back; how many events were played."""
    count = position - replay.position
    replay.position = position
    replay.fired = replay.fired + fired
    _give_back(replay)
    return count


@native()
def replay_begin(replay: Replay, limit: int) -> int:
    """Take the machine for a chunk of the linked loop; where the chunk ends."""
    _take(replay)
    return _chunk_end(replay, limit)


@native()
def replay_end(replay: Replay, position: int, fired: int) -> int:
    """Account for a chunk of the linked loop; how many events were played."""
    return _played(replay, position, fired)


@native()
def fused_begin(fused: Fused, limit: int) -> int:
    """Take the machine for a chunk of the fused loop: where the chunk ends. Otherwise it is not taken: -1 when probes have
    changed since the code was made, -2 when this chunk must be linked (runs are timed, a timer is armed, or one of the
    programs is running).
    """
    replay = fused.replay
    machine = replay.machine
    _take(replay)
    if machine.generation != fused.generation:
        _give_back(replay)
        return _CHANGED
    cpus = fused.cpus
    rows = fused.rows
    busy = (load64(int(machine.env) + _STATS) & STATS_TIMED) | (machine.timer_next ^ NEVER)
    mine = fused.mine
    for cpu in range(cpus):
        for row in range(fused.row_count if mine[cpu] != 0 else 0):
            busy |= load64(rows[row].stats + cpu * _STATS_SIZE + _ACTIVE)
    if busy != 0:
        _give_back(replay)
        return _NOT_NOW
    for cpu in range(cpus):
        fused.last[cpu] = -1
    return _chunk_end(replay, limit)


@native()
def fused_end(fused: Fused, position: int, fired: int) -> int:
    """Account for the chunk that ended before event `position`, and give the machine back; how many events were played.

    `fired`: events that went to probes; the others are in `counts`.
    """
    replay = fused.replay
    cpus = fused.cpus
    mine = fused.mine
    counts = fused.counts
    rows = fused.rows
    for row in range(fused.row_count):
        of_kind = int(counts) + rows[row].kind * cpus * 8
        stats = rows[row].stats + _RUNS
        for cpu in range(cpus):
            runs = stats + cpu * _STATS_SIZE
            if mine[cpu] != 0:
                store64(runs, load64(runs) + load64(of_kind + cpu * 8))
    for item in range(fused.kinds * cpus):
        fired += counts[item]
        counts[item] = 0
    stacks = replay.stacks
    for cpu in range(cpus):
        env = replay.machine.env[cpu]
        last = fused.last[cpu]
        if last >= 0:
            env.time = replay.time[last]
            env.current = replay.current[last]
            if stacks:
                env.kernel_stack = load64(int(stacks) + last * 16)
                env.user_stack = load64(int(stacks) + last * 16 + 8)
    return _played(replay, position, fired)
