"""What native bodies share between CPUs: locks, counters, words. Where one thread at a time runs, plain accesses remain of it.

A body asks smp(): a constant 0 or 1 in a program's code. Both forms work on the same memory, and may take turns on it.

Kernel: include/asm-generic/qspinlock.h, include/linux/bpf.h:bpf_long_memcpy
"""

from __future__ import annotations

from fastrtp.native.intrinsics import (
    cmpxchg32,
    cpu_relax,
    device,
    fetch_add64,
    load8,
    load16,
    load32,
    load64,
    load_acquire32,
    memcpy,
    sched_yield,
    smp,
    store8,
    store16,
    store32,
    store64,
    store_relaxed,
    store_release32,
)

_SPINS = 100


@device
def wait_turn(spins: int) -> None:
    """One step of a wait: briefly on the CPU, then giving it away, for who is waited for may have no CPU."""
    if spins < _SPINS:
        cpu_relax()
    else:
        sched_yield()


@device
def spin_lock(lock: int) -> None:
    """Take the lock in the four bytes at `lock`."""
    if smp() == 0:
        return
    spins = 0
    while cmpxchg32(lock, 0, 1) != 0:
        while load_acquire32(lock) != 0:
            wait_turn(spins)
            spins += 1


@device
def spin_unlock(lock: int) -> None:
    """Give it back."""
    if smp() != 0:
        store_release32(lock, 0)


@device
def add64(address: int, value: int) -> None:
    """Add to a counter that all CPUs have in common."""
    if smp() == 0:
        store64(address, load64(address) + value)
    else:
        fetch_add64(address, value)


@device
def load32_shared(address: int) -> int:
    """A number that another CPU may publish something with."""
    return load32(address) if smp() == 0 else load_acquire32(address)


@device
def store32_shared(address: int, value: int) -> None:
    """Publish what was written before."""
    if smp() == 0:
        store32(address, value)
    else:
        store_release32(address, value)


@device
def copy_value(target: int, source: int, size: int) -> None:
    """Copy to an 8-aligned map value. Nobody sees a part of one of its words; the words together are no unit, as in Linux."""
    if smp() == 0:
        memcpy(target, source, size)
        return
    at = 0
    while size - at >= 8:
        store_relaxed(target + at, load64(source + at))
        at += 8
    if size - at >= 4:
        store32(target + at, load32(source + at))
        at += 4
    if size - at >= 2:
        store16(target + at, load16(source + at))
        at += 2
    if size - at == 1:
        store8(target + at, load8(source + at))


@device
def copy_around_lock(target: int, source: int, size: int, lock_end: int) -> None:
    """copy_value, but the bpf_spin_lock whose four bytes end at `lock_end` stays as it is; 0: there is none."""
    if lock_end == 0:
        copy_value(target, source, size)
        return
    memcpy(target, source, lock_end - 4)
    memcpy(target + lock_end, source + lock_end, size - lock_end)
