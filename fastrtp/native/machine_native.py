"""Whose turn it is: one thread at a time runs native code of a machine, and a thread may enter again."""

from __future__ import annotations

from fastrtp.native.heap_native import heap_reclaim
from fastrtp.native.intrinsics import (
    cmpxchg64,
    device,
    fetch_add64,
    load64,
    native,
    pthread_self,
    sched_yield,
    store64,
    store_release,
)
from fastrtp.native.layout import MACHINE, at

_OWNER = at(MACHINE, "owner")
_DEPTH = at(MACHINE, "depth")
_WAITERS = at(MACHINE, "waiters")
_DEFERRED = at(MACHINE, "deferred")


@device
def enter(machine: int) -> None:
    """Wait for the machine and take it; a thread that has it already goes one deeper."""
    me = pthread_self()
    if load64(machine + _OWNER) == me:
        store64(machine + _DEPTH, load64(machine + _DEPTH) + 1)
        return
    if cmpxchg64(machine + _OWNER, 0, me) != 0:
        fetch_add64(machine + _WAITERS, 1)
        while cmpxchg64(machine + _OWNER, 0, me) != 0:
            sched_yield()
        fetch_add64(machine + _WAITERS, -1)
    store64(machine + _DEPTH, 1)
    if load64(machine + _DEFERRED) != 0:
        heap_reclaim(machine)


@device
def leave(machine: int) -> None:
    """Give one level back; at the outermost, let those who wait have their turn."""
    depth = load64(machine + _DEPTH) - 1
    store64(machine + _DEPTH, depth)
    if depth == 0:
        store_release(machine + _OWNER, 0)
        if load64(machine + _WAITERS) != 0:
            sched_yield()


@native()
def machine_enter(machine: int) -> int:
    """Take the machine for a sequence of accesses from Python."""
    enter(machine)
    return 0


@native()
def machine_leave(machine: int) -> int:
    """Give the machine back."""
    leave(machine)
    return 0


@native()
def synchronize_rcu(machine: int) -> int:
    """Return when every run that was under way has ended. Kernel: kernel/rcu/tree.c:synchronize_rcu."""
    enter(machine)
    leave(machine)
    return 0
