"""The heap that programs' objects and timers come from: size classes within one area of the arena.

An object has a header in front: {u64 link, u64 class | rows << 8}, and in front of that `rows` words that say which
special fields it has (maps/fields_native.py). What is freed is kept until the turn of the machine is over
(machine_native.enter): a program that still holds a pointer then holds one to an object that was, never to another one.
That is the grace period of RCU. Kernel: kernel/bpf/memalloc.c.
"""

from __future__ import annotations

from fastrtp.native.intrinsics import device, load64, memset, store64
from fastrtp.native.records import Heap, Machine
from fastrtp.native.smp_native import spin_lock, spin_unlock

_LOCK = Heap.layout.at("lock")

HEADER = 16
_SMALLEST = 32
_LARGEST = _SMALLEST << 11
_CLASS = 8


@device
def heap_alloc(machine: Machine, size: int, rows: int) -> int:
    """A zeroed object of `size` bytes with room for `rows` words in front of its header, or 0."""
    heap = machine.heap
    need = HEADER + rows * 8 + size
    number = 0
    room = _SMALLEST
    while room < need:
        room <<= 1
        number += 1
    if room > _LARGEST:
        return 0
    spin_lock(int(heap) + _LOCK)
    base = heap.free[number]
    if base != 0:
        heap.free[number] = load64(base)
    elif heap.next + room <= heap.end:
        base = heap.next
        heap.next = base + room
    if base != 0:
        heap.live = heap.live + 1
    spin_unlock(int(heap) + _LOCK)
    if base == 0:
        return 0
    memset(base, 0, need)
    made = base + rows * 8 + HEADER
    store64(made - _CLASS, number | rows << 8)
    return made


@device
def heap_free(machine: Machine, made: int) -> None:
    """Give an object back; its memory is used again after this turn of the machine."""
    heap = machine.heap
    spin_lock(int(heap) + _LOCK)
    heap.live = heap.live - 1
    store64(made - HEADER, machine.deferred)
    machine.deferred = made
    spin_unlock(int(heap) + _LOCK)


@device
def heap_reclaim(machine: Machine) -> None:
    """Nobody runs: what was freed may be used again."""
    heap = machine.heap
    made = machine.deferred
    machine.deferred = 0
    while made != 0:
        following = load64(made - HEADER)
        shape = load64(made - _CLASS)
        base = made - HEADER - (shape >> 8) * 8
        slot = int(heap.free) + (shape & 0xFF) * 8
        store64(base, load64(slot))
        store64(slot, base)
        made = following
