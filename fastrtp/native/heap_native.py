"""The heap that programs' objects and timers come from: size classes within one area of the arena.

An object has a header in front: {u64 link, u64 class | rows << 8}, and in front of that `rows` words that say which
special fields it has (maps/fields_native.py). What is freed is kept until the turn of the machine is over
(machine_native.enter): a program that still holds a pointer then holds one to an object that was, never to another one.
That is the grace period of RCU. Kernel: kernel/bpf/memalloc.c.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load64, memset, store64
from fastrtp.native.layout import HEAP, MACHINE, at
from fastrtp.native.smp_native import spin_lock, spin_unlock

_HEAP = at(MACHINE, "heap")
_DEFERRED = at(MACHINE, "deferred")
_NEXT = at(HEAP, "next")
_END = at(HEAP, "end")
_LIVE = at(HEAP, "live")
_FREE = at(HEAP, "free")
_LOCK = at(HEAP, "lock")

HEADER = 16
_SMALLEST = 32
_LARGEST = _SMALLEST << 11
_CLASS = 8


@device
def heap_alloc(machine: int, size: int, rows: int) -> int:
    """A zeroed object of `size` bytes with room for `rows` words in front of its header, or 0."""
    heap = load64(machine + _HEAP)
    need = HEADER + rows * 8 + size
    number = 0
    room = _SMALLEST
    while room < need:
        room <<= 1
        number += 1
    if room > _LARGEST:
        return 0
    spin_lock(heap + _LOCK)
    base = load64(heap + _FREE + number * 8)
    if base != 0:
        store64(heap + _FREE + number * 8, load64(base))
    elif load64(heap + _NEXT) + room <= load64(heap + _END):
        base = load64(heap + _NEXT)
        store64(heap + _NEXT, base + room)
    if base != 0:
        store64(heap + _LIVE, load64(heap + _LIVE) + 1)
    spin_unlock(heap + _LOCK)
    if base == 0:
        return 0
    memset(base, 0, need)
    made = base + rows * 8 + HEADER
    store64(made - _CLASS, number | rows << 8)
    return made


@device
def heap_free(machine: int, made: int) -> None:
    """Give an object back; its memory is used again after this turn of the machine."""
    heap = load64(machine + _HEAP)
    spin_lock(heap + _LOCK)
    store64(heap + _LIVE, load64(heap + _LIVE) - 1)
    store64(made - HEADER, load64(machine + _DEFERRED))
    store64(machine + _DEFERRED, made)
    spin_unlock(heap + _LOCK)


@device
def heap_reclaim(machine: int) -> None:
    """Nobody runs: what was freed may be used again."""
    heap = load64(machine + _HEAP)
    made = load64(machine + _DEFERRED)
    store64(machine + _DEFERRED, 0)
    while made != 0:
        following = load64(made - HEADER)
        shape = load64(made - _CLASS)
        base = made - HEADER - (shape >> 8) * 8
        slot = heap + _FREE + (shape & 0xFF) * 8
        store64(base, load64(slot))
        store64(slot, base)
        made = following
