"""One thread's part of a turn of a parallel replay: its windows, one after the other, and the meetings between them.

One thread, the leader, has the machine for all of them, from before the first plays until after the last has played: to
everybody else a turn is one run on the machine. Must not know: programs, links, Python's threads.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import call_loop, device, fetch_add64, load64, load_acquire, native, store64, store_release
from fastrtp.native.layout import LANE, REPLAY, TEAM, at
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.smp_native import wait_turn

_TEAM = at(LANE, "team")
_REPLAY = at(LANE, "replay")
_LOOP = at(LANE, "loop")
_RUN = at(LANE, "run")
_ENDS = at(LANE, "ends")
_REFUSED = at(LANE, "refused")
_MACHINE = at(TEAM, "machine")
_THREADS = at(TEAM, "threads")
_ABORT = at(TEAM, "abort")
_ARRIVED = at(TEAM, "arrived")
_PHASE = at(TEAM, "phase")
_POSITION = at(REPLAY, "position")


@device
def _meet(team: int) -> bool:
    """Wait until all threads are here. False: it was called off."""
    phase = load_acquire(team + _PHASE)
    if fetch_add64(team + _ARRIVED, 1) == load64(team + _THREADS) - 1:
        store64(team + _ARRIVED, 0)
        store_release(team + _PHASE, phase + 1)
        return True
    spins = 0
    while load_acquire(team + _PHASE) == phase:
        if load_acquire(team + _ABORT) != 0:
            return False
        wait_turn(spins)
        spins += 1
    return True


@device
def _play_to(lane: int, end: int) -> int:
    """Play the lane's events before its `end`-th; how many that were."""
    replay = load64(lane + _REPLAY)
    first = load64(replay + _POSITION)
    if end <= first:
        return 0
    if load64(lane + _REFUSED) != 0:
        return 0
    played = call_loop(load64(lane + _RUN), load64(lane + _LOOP), end - first)
    if played < 0:
        store64(lane + _REFUSED, played)
        return 0
    return played


@native()
def lane_play(lane: int, first: int, last: int, meet: int, lead: int) -> int:
    """Play the windows [first, last) of a lane; how many events that were. `meet`: wait for the others after each window.

    `lead`: take the machine for all.
    """
    team = load64(lane + _TEAM)
    machine = load64(team + _MACHINE)
    store64(lane + _REFUSED, 0)
    if lead != 0:
        enter(machine)
    together = _meet(team)
    played = 0
    ends = load64(lane + _ENDS)
    while together and first < last:
        played += _play_to(lane, load64(ends + first * 8))
        first += 1
        if meet != 0 and first < last:
            together = _meet(team)
    if together:
        _meet(team)
    if lead != 0:
        leave(machine)
    return played
