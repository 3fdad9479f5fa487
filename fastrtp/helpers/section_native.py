"""Bodies of what opens and closes sections, and of the number iterator.

A program is not interrupted within a section, where no call is allowed that could start another, and the verifier lets it
hold one lock: who waits for a lock waits for another CPU, which goes on. Where one thread at a time runs programs a lock
is never found taken, and its four bytes stay 0.

Kernel: kernel/bpf/helpers.c:bpf_spin_lock, bpf_rcu_read_lock, bpf_preempt_disable; kernel/bpf/bpf_iter.c:bpf_iter_num_*.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL

from fastrtp.native.intrinsics import load32, native, store32
from fastrtp.native.records import Env
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_MAX_LOOPS


@native(inline=True)
def bpf_spin_lock(lock: int, env: Env) -> int:
    """Enter the section of a lock."""
    spin_lock(lock)
    return 0


@native(inline=True)
def bpf_spin_unlock(lock: int, env: Env) -> int:
    """Leave it."""
    spin_unlock(lock)
    return 0


@native(inline=True)
def bpf_rcu_read_lock(env: Env) -> int:
    """Objects live as long as the arena: nothing to hold."""
    return 0


@native(inline=True)
def bpf_rcu_read_unlock(env: Env) -> int:
    """The end of it."""
    return 0


@native(inline=True)
def bpf_preempt_disable(env: Env) -> int:
    """Programs are not preempted in any case."""
    return 0


@native(inline=True)
def bpf_preempt_enable(env: Env) -> int:
    """The end of it."""
    return 0


@native(inline=True)
def bpf_iter_num_new(it: int, start: int, end: int, env: Env) -> int:
    """{int cur, int end} at `it`: an iterator over [start, end). 0, -EINVAL or -E2BIG, and then it is empty."""
    first = ((start & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    last = ((end & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    if first > last:
        store32(it, 0)
        store32(it + 4, 0)
        return -EINVAL
    if last - first > BPF_MAX_LOOPS:
        store32(it, 0)
        store32(it + 4, 0)
        return -E2BIG
    store32(it, first - 1)
    store32(it + 4, last)
    return 0


@native(inline=True)
def bpf_iter_num_next(it: int, env: Env) -> int:
    """Address of the next number, or 0 at the end."""
    following = (((load32(it) + 1) & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
    last = (load32(it + 4) ^ 0x80000000) - 0x80000000
    if following >= last:
        store32(it, 0)
        store32(it + 4, 0)
        return 0
    store32(it, following)
    return it


@native(inline=True)
def bpf_iter_num_destroy(it: int, env: Env) -> int:
    """Leave nothing behind."""
    store32(it, 0)
    store32(it + 4, 0)
    return 0
