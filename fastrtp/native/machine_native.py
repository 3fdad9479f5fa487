"""Whose turn it is: one thread at a time runs native code of a machine, and a thread may enter again."""

from __future__ import annotations

from fastrtp.native.heap_native import heap_reclaim
from fastrtp.native.intrinsics import (
    cmpxchg64,
    device,
    fetch_add64,
    native,
    pthread_self,
    sched_yield,
    store_release,
)
from fastrtp.native.records import Machine

_OWNER = Machine.layout.at("owner")
_WAITERS = Machine.layout.at("waiters")


@device
def enter(machine: Machine) -> None:
    """Wait for the machine and take it; a thread that has it already goes one deeper."""
    me = pthread_self()
    if machine.owner == me:
        machine.depth = machine.depth + 1
        return
    if cmpxchg64(int(machine) + _OWNER, 0, me) != 0:
        fetch_add64(int(machine) + _WAITERS, 1)
        while cmpxchg64(int(machine) + _OWNER, 0, me) != 0:
            sched_yield()
        fetch_add64(int(machine) + _WAITERS, -1)
    machine.depth = 1
    if machine.deferred != 0:
        heap_reclaim(machine)


@device
def leave(machine: Machine) -> None:
    """Give one level back; at the outermost, let those who wait have their turn."""
    depth = machine.depth - 1
    machine.depth = depth
    if depth == 0:
        store_release(int(machine) + _OWNER, 0)
        if machine.waiters != 0:
            sched_yield()


@native()
def machine_enter(machine: Machine) -> int:
    """Take the machine for a sequence of accesses from Python."""
    enter(machine)
    return 0


@native()
def machine_leave(machine: Machine) -> int:
    """Give the machine back."""
    leave(machine)
    return 0


@native()
def synchronize_rcu(machine: Machine) -> int:
    """Return when every run that was under way has ended. Kernel: kernel/rcu/tree.c:synchronize_rcu."""
    enter(machine)
    leave(machine)
    return 0
