"""One thread's part of a turn of a parallel replay: its windows, one after the other, and the meetings between them.

One thread, the leader, has the machine for all of them, from before the first plays until after the last has played: to
everybody else a turn is one run on the machine. Must not know: programs, links, Python's threads.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import call_loop, device, fetch_add64, load_acquire, native, store_release
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.smp_native import wait_turn
from fastrtp.replay.records import Lane, Team

_ABORT = Team.layout.at("abort")
_ARRIVED = Team.layout.at("arrived")
_PHASE = Team.layout.at("phase")


@device
def _meet(team: Team) -> bool:
    """Wait until all threads are here. False: it was called off."""
    phase = load_acquire(int(team) + _PHASE)
    if fetch_add64(int(team) + _ARRIVED, 1) == team.threads - 1:
        team.arrived = 0
        store_release(int(team) + _PHASE, phase + 1)
        return True
    spins = 0
    while load_acquire(int(team) + _PHASE) == phase:
        if load_acquire(int(team) + _ABORT) != 0:
            return False
        wait_turn(spins)
        spins += 1
    return True


@device
def _play_to(lane: Lane, end: int) -> int:
    """Play the lane's events before its `end`-th; how many that were."""
    replay = lane.replay
    first = replay.position
    if end <= first:
        return 0
    if lane.refused != 0:
        return 0
    played = call_loop(lane.run, lane.loop, end - first)
    if played < 0:
        lane.refused = played
        return 0
    return played


@native()
def lane_play(lane: Lane, first: int, last: int, meet: int, lead: int) -> int:
    """Play the windows [first, last) of a lane; how many events that were. `meet`: wait for the others after each window.

    `lead`: take the machine for all.
    """
    team = lane.team
    machine = team.machine
    lane.refused = 0
    if lead != 0:
        enter(machine)
    together = _meet(team)
    played = 0
    ends = lane.ends
    while together and first < last:
        played += _play_to(lane, ends[first])
        first += 1
        if meet != 0 and first < last:
            together = _meet(team)
    if together:
        _meet(team)
    if lead != 0:
        leave(machine)
    return played
