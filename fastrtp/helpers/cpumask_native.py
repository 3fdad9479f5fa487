"""CPU masks: those of programs, which are counted objects of the heap, and what is asked of these and of the kernel's.

A mask that cannot be read is an empty one, and one that cannot be written stays as it is. `size`, behind env: bytes of struct
cpumask in the loaded kernel. Kernel: kernel/bpf/cpumask.c, lib/bitmap.c.
"""

from __future__ import annotations

from errno import EACCES

from fastrtp.helpers.probe_native import in_range, stack_room
from fastrtp.maps.field_rows_native import FIELD_REFCOUNT
from fastrtp.maps.object_native import object_drop_all, object_put
from fastrtp.native.heap_native import HEADER, heap_alloc
from fastrtp.native.intrinsics import device, load8, load64, memcpy, memset, native, stack_bytes, store8, store32, store64
from fastrtp.native.records import Env
from fastrtp.native.smp_native import add32

_U32 = 0xFFFFFFFF
_FEW = 32
"""Bytes of a mask so small that all its bits are looked at. Kernel: include/linux/cpumask.h:small_cpumask_bits"""


@device
def _cpus(env: Env) -> int:
    """nr_cpu_ids."""
    return env.machine.cpus


@device
def _bits(size: int, env: Env) -> int:
    """Bits that are looked at."""
    return 8 * size if size <= _FEW else _cpus(env)


@device
def _is_there(mask: int, size: int, env: Env) -> bool:
    here = stack_bytes(16)
    return in_range(mask, size, env.arena_base, env.arena_size) or in_range(mask, size, here, stack_room(here, env))


@device
def _test(mask: int, cpu: int) -> int:
    """A bit of a mask that is there (0: of one that is not)."""
    return load8(mask + (cpu >> 3)) >> (cpu & 7) & 1 if mask != 0 else 0


@device
def _readable(mask: int, size: int, env: Env) -> int:
    return mask if _is_there(mask, size, env) else 0


@device
def _put(mask: int, cpu: int, value: int) -> None:
    byte = load8(mask + (cpu >> 3)) & ~(1 << (cpu & 7))
    store8(mask + (cpu >> 3), byte | value << (cpu & 7))


@native()
def bpf_cpumask_create(env: Env, size: int, usage: int, mask_size: int) -> int:
    """An empty mask of one owner, or 0."""
    made = heap_alloc(env.machine, size, 1)
    if made != 0:
        store64(made - HEADER - 8, FIELD_REFCOUNT << 32 | usage)
        store32(made + usage, 1)
    return made


@native()
def bpf_cpumask_acquire(mask: int, env: Env) -> int:
    """Another owner."""
    row = load64(mask - HEADER - 8)
    add32(mask + (row & _U32), 1)
    return mask


@native()
def bpf_cpumask_release(mask: int, env: Env) -> int:
    """One owner less; the last one takes it away."""
    object_drop_all(env.machine, object_put(mask, 0))
    return 0


@device
def _first(one: int, other: int, both: int, value: int, size: int, env: Env) -> int:
    """The first CPU that is in a mask (`value` 1) or is not; of `both`, that is in the other, too. As many as there are: none."""
    one = _readable(one, size, env)
    other = _readable(other, size, env)
    bits = _bits(size, env)
    cpu = 0
    while cpu < bits:
        if _test(one, cpu) == value and (both == 0 or _test(other, cpu) != 0):
            return cpu
        cpu += 1
    return bits


@native()
def bpf_cpumask_first(mask: int, env: Env, size: int) -> int:
    """The first CPU in it."""
    return _first(mask, 0, 0, 1, size, env)


@native()
def bpf_cpumask_first_zero(mask: int, env: Env, size: int) -> int:
    """The first one that is not."""
    return _first(mask, 0, 0, 0, size, env)


@native()
def bpf_cpumask_first_and(one: int, other: int, env: Env, size: int) -> int:
    """The first one in both."""
    return _first(one, other, 1, 1, size, env)


@native()
def bpf_cpumask_any_distribute(mask: int, env: Env, size: int) -> int:
    """A CPU in it. Differs: always the first; Linux takes the next one each time."""
    return _first(mask, 0, 0, 1, size, env)


@native()
def bpf_cpumask_any_and_distribute(one: int, other: int, env: Env, size: int) -> int:
    """A CPU in both. Differs: as that."""
    return _first(one, other, 1, 1, size, env)


@native()
def bpf_cpumask_test_cpu(cpu: int, mask: int, env: Env, size: int) -> int:
    """Whether one is in it."""
    cpu &= _U32
    return _test(_readable(mask, size, env), cpu) if cpu < _cpus(env) and cpu < 8 * size else 0


@native()
def bpf_cpumask_test_and_set_cpu(cpu: int, mask: int, env: Env, size: int) -> int:
    """Put a CPU in; whether it was."""
    cpu &= _U32
    if cpu >= _cpus(env) or cpu >= 8 * size or not _is_there(mask, size, env):
        return 0
    was = _test(mask, cpu)
    _put(mask, cpu, 1)
    return was


@native()
def bpf_cpumask_test_and_clear_cpu(cpu: int, mask: int, env: Env, size: int) -> int:
    """Take a CPU out; whether it was in it."""
    cpu &= _U32
    if cpu >= _cpus(env) or cpu >= 8 * size or not _is_there(mask, size, env):
        return 0
    was = _test(mask, cpu)
    _put(mask, cpu, 0)
    return was


@native()
def bpf_cpumask_set_cpu(cpu: int, mask: int, env: Env, size: int) -> int:
    """Put a CPU in."""
    bpf_cpumask_test_and_set_cpu(cpu, mask, env, size)
    return 0


@native()
def bpf_cpumask_clear_cpu(cpu: int, mask: int, env: Env, size: int) -> int:
    """Take one out."""
    bpf_cpumask_test_and_clear_cpu(cpu, mask, env, size)
    return 0


@native()
def bpf_cpumask_setall(mask: int, env: Env, size: int) -> int:
    """All CPUs."""
    if _is_there(mask, size, env):
        for cpu in range(min(_bits(size, env), 8 * size)):
            _put(mask, cpu, 1)
    return 0


@native()
def bpf_cpumask_clear(mask: int, env: Env, size: int) -> int:
    """None."""
    if _is_there(mask, size, env):
        memset(mask, 0, (_bits(size, env) + 63) // 64 * 8)
    return 0


@native()
def bpf_cpumask_copy(dst: int, src: int, env: Env, size: int) -> int:
    """The same as another."""
    if _is_there(dst, size, env):
        src = _readable(src, size, env)
        for cpu in range(min(_bits(size, env), 8 * size)):
            _put(dst, cpu, _test(src, cpu))
    return 0


@device
def _combine(dst: int, one: int, other: int, how: int, size: int, env: Env) -> int:
    """dst = one & other, one | other, one ^ other; whether any bit is set."""
    one = _readable(one, size, env)
    other = _readable(other, size, env)
    there = _is_there(dst, size, env)
    found = 0
    for cpu in range(min(_bits(size, env), 8 * size)):
        first = _test(one, cpu)
        second = _test(other, cpu)
        bit = first & second
        if how == 1:
            bit = first | second
        elif how == 2:
            bit = first ^ second
        found |= bit
        if there:
            _put(dst, cpu, bit)
    return found


@native()
def bpf_cpumask_and(dst: int, one: int, other: int, env: Env, size: int) -> int:
    """What is in both; whether there is any."""
    return _combine(dst, one, other, 0, size, env)


@native()
def bpf_cpumask_or(dst: int, one: int, other: int, env: Env, size: int) -> int:
    """What is in either."""
    _combine(dst, one, other, 1, size, env)
    return 0


@native()
def bpf_cpumask_xor(dst: int, one: int, other: int, env: Env, size: int) -> int:
    """What is in one of them."""
    _combine(dst, one, other, 2, size, env)
    return 0


@device
def _counted(one: int, other: int, how: int, size: int, env: Env) -> int:
    """How many CPUs are in the first (0), in both (1), in the first alone (2), in one alone (3)."""
    one = _readable(one, size, env)
    other = _readable(other, size, env)
    count = 0
    for cpu in range(min(_bits(size, env), 8 * size)):
        first = _test(one, cpu)
        second = _test(other, cpu)
        if how == 1:
            first &= second
        elif how == 2:
            first &= 1 - second
        elif how == 3:
            first ^= second
        count += first
    return count


@native()
def bpf_cpumask_weight(mask: int, env: Env, size: int) -> int:
    """How many are in it."""
    return _counted(mask, 0, 0, size, env)


@native()
def bpf_cpumask_empty(mask: int, env: Env, size: int) -> int:
    """Whether none is."""
    return 1 if _counted(mask, 0, 0, size, env) == 0 else 0


@native()
def bpf_cpumask_full(mask: int, env: Env, size: int) -> int:
    """Whether all are."""
    return 1 if _counted(mask, 0, 0, size, env) == _bits(size, env) else 0


@native()
def bpf_cpumask_equal(one: int, other: int, env: Env, size: int) -> int:
    """Whether they are the same."""
    return 1 if _counted(one, other, 3, size, env) == 0 else 0


@native()
def bpf_cpumask_intersects(one: int, other: int, env: Env, size: int) -> int:
    """Whether one is in both."""
    return 1 if _counted(one, other, 1, size, env) != 0 else 0


@native()
def bpf_cpumask_subset(one: int, other: int, env: Env, size: int) -> int:
    """Whether all of the first are in the other."""
    return 1 if _counted(one, other, 2, size, env) == 0 else 0


@native()
def bpf_cpumask_populate(mask: int, src: int, length: int, env: Env, size: int) -> int:
    """The bits of memory of the program. 0, or -EACCES where these are too few."""
    need = (_cpus(env) + 63) // 64 * 8
    if length < need:
        return -EACCES & _U32
    if _is_there(mask, size, env):
        memcpy(mask, src, min(need, size))
    return 0
