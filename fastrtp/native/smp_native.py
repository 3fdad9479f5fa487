"""What native bodies share between CPUs: locks, counters, words. Where one thread at a time runs, plain accesses remain of it.

A body asks smp(): a constant 0 or 1 in a program's code. Both forms work on the same memory, and may take turns on it.

Kernel: include/asm-generic/qspinlock.h, include/linux/bpf.h:bpf_long_memcpy
"""

from __future__ import annotations

from fastrtp.native.intrinsics import (
    cmpxchg32,
    cmpxchg64,
    cpu_relax,
    device,
    fetch_add64,
    load8,
    load16,
    load32,
    load64,
    load_acquire,
    load_acquire32,
    memcpy,
    sched_yield,
    smp,
    store8,
    store16,
    store32,
    store64,
    store_relaxed,
    store_release,
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
def take64(flag: int) -> bool:
    """Set a flag that is 0; False when it is not."""
    if smp() != 0:
        return cmpxchg64(flag, 0, 1) == 0
    if load64(flag) != 0:
        return False
    store64(flag, 1)
    return True


@device
def give64(flag: int) -> None:
    """Set it to 0 again, after all else that was written."""
    if smp() == 0:
        store64(flag, 0)
    else:
        store_release(flag, 0)


@device
def add64(address: int, value: int) -> int:
    """Add to a counter that all CPUs have in common; the sum."""
    if smp() == 0:
        total = load64(address) + value
        store64(address, total)
        return total
    return fetch_add64(address, value) + value


@device
def swap32(address: int, old: int, new: int) -> bool:
    """Replace a number if it is still `old`; whether it was."""
    if smp() == 0:
        store32(address, new)
        return True
    return cmpxchg32(address, old, new) == old


@device
def add32(address: int, value: int) -> int:
    """Add to a number of four bytes; the sum."""
    if smp() == 0:
        store32(address, load32(address) + value)
        return load32(address)
    while True:
        old = load_acquire32(address)
        if cmpxchg32(address, old, old + value) == old:
            return (old + value) & 0xFFFFFFFF


@device
def exchange64(address: int, value: int) -> int:
    """Put a word in the place of another; that one."""
    if smp() == 0:
        old = load64(address)
        store64(address, value)
        return old
    while True:
        old = load_acquire(address)
        if cmpxchg64(address, old, value) == old:
            return old


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
