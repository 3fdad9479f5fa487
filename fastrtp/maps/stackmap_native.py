"""BPF_MAP_TYPE_STACK_TRACE from a program: a stack goes to the bucket that its hash names. Kernel: kernel/bpf/stackmap.c.

`slots` are the buckets: the address of an element, or 0. An element is {u32 hash, u32 nr, u64 next free, u64 ip[]}; there
are `max_entries`, handed out in order and from the list of freed ones. Python's side (stackmap.py) frees them.
"""

from __future__ import annotations

from errno import EEXIST, EFAULT, EINVAL, ENOMEM, EOPNOTSUPP

from fastrtp.maps.bytes_native import bytes_equal
from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import device, load32, load64, lshr, memcpy, memset, native, store32, store64
from fastrtp.native.records import Env
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_F_FAST_STACK_CMP, BPF_F_REUSE_STACKID, BPF_F_SKIP_FIELD_MASK, BPF_F_USER_STACK

_LOCK = MapRecord.layout.at("lock")
_KERNEL_STACK = Env.layout.at("kernel_stack")
_USER_STACK = Env.layout.at("user_stack")

_NR = 4
_NEXT = 8
_IPS = 16
_MAX_DEPTH = 127
_JHASH_INITVAL = 0xDEADBEEF
_U32 = 0xFFFFFFFF


@device
def _rol(word: int, shift: int) -> int:
    return ((word << shift) | lshr(word, 32 - shift)) & _U32


@device
def jhash2(words: int, count: int) -> int:
    """32-bit hash of `count` u32 words. Kernel: include/linux/jhash.h:jhash2 with initval 0."""
    a = (_JHASH_INITVAL + (count << 2)) & _U32
    b = a
    c = a
    while count > 3:
        a = (a + load32(words)) & _U32
        b = (b + load32(words + 4)) & _U32
        c = (c + load32(words + 8)) & _U32
        a = ((a - c) & _U32) ^ _rol(c, 4)
        c = (c + b) & _U32
        b = ((b - a) & _U32) ^ _rol(a, 6)
        a = (a + c) & _U32
        c = ((c - b) & _U32) ^ _rol(b, 8)
        b = (b + a) & _U32
        a = ((a - c) & _U32) ^ _rol(c, 16)
        c = (c + b) & _U32
        b = ((b - a) & _U32) ^ _rol(a, 19)
        a = (a + c) & _U32
        c = ((c - b) & _U32) ^ _rol(b, 4)
        b = (b + a) & _U32
        count -= 3
        words += 12
    if count == 0:
        return c
    if count == 3:
        c = (c + load32(words + 8)) & _U32
    if count >= 2:
        b = (b + load32(words + 4)) & _U32
    a = (a + load32(words)) & _U32
    c = ((c ^ b) - _rol(b, 14)) & _U32
    a = ((a ^ c) - _rol(c, 11)) & _U32
    b = ((b ^ a) - _rol(a, 25)) & _U32
    c = ((c ^ b) - _rol(b, 16)) & _U32
    a = ((a ^ c) - _rol(c, 4)) & _U32
    b = ((b ^ a) - _rol(a, 14)) & _U32
    return ((c ^ b) - _rol(b, 24)) & _U32


@device
def _frames(trace: int, wanted: int) -> int:
    """Frames of a recorded stack, at most `wanted` and the kernel's limit."""
    count = load64(trace)
    if count > wanted:
        count = wanted
    return count if count < _MAX_DEPTH else _MAX_DEPTH


@device
def _take(map: MapRecord) -> int:
    """An element to fill, or 0 when all are in use."""
    free = map.free
    if free != 0:
        map.free = load64(free + _NEXT)
        return free
    fresh = map.fresh
    if fresh == map.max_entries:
        return 0
    map.fresh = fresh + 1
    return map.values + fresh * map.elem_size


@device
def _put(map: MapRecord, ips: int, nr: int, hash: int, flags: int) -> int:
    """Id of a stack, put into the map where it is not there."""
    value_size = map.value_size
    ident = hash & map.slot_mask
    slot = map.slots + ident * 8
    bucket = load64(slot)
    if bucket != 0 and load32(bucket) == hash:
        if (flags & BPF_F_FAST_STACK_CMP) != 0:
            return ident
        if load32(bucket + _NR) == nr and bytes_equal(bucket + _IPS, ips, nr * 8):
            return ident
    if bucket != 0 and (flags & BPF_F_REUSE_STACKID) == 0:
        return -EEXIST
    fresh = _take(map)
    if fresh == 0:
        return -ENOMEM
    memcpy(fresh + _IPS, ips, nr * 8)
    memset(fresh + _IPS + nr * 8, 0, value_size - nr * 8)
    store32(fresh, hash)
    store32(fresh + _NR, nr)
    store64(slot, fresh)
    if bucket != 0:
        store64(bucket + _NEXT, map.free)
        map.free = bucket
    else:
        map.count = map.count + 1
    return ident


@native()
def bpf_get_stackid(ctx: int, map: MapRecord, flags: int, env: Env) -> int:
    """Id of the event's stack in the map; -EINVAL, -EFAULT (none was recorded, or it is shorter than what is skipped),
    -EEXIST (another one is in its bucket), -ENOMEM.
    """
    if (flags & ~(BPF_F_SKIP_FIELD_MASK | BPF_F_USER_STACK | BPF_F_FAST_STACK_CMP | BPF_F_REUSE_STACKID)) != 0:
        return -EINVAL
    trace = load64(int(env) + (_USER_STACK if (flags & BPF_F_USER_STACK) != 0 else _KERNEL_STACK))
    if trace == 0:
        return -EFAULT
    skip = flags & BPF_F_SKIP_FIELD_MASK
    value_size = map.value_size
    nr = _frames(trace, lshr(value_size, 3) + skip)
    if nr <= skip:
        return -EFAULT
    nr -= skip
    ips = trace + 8 + skip * 8
    hash = jhash2(ips, nr * 2)
    spin_lock(int(map) + _LOCK)
    ident = _put(map, ips, nr, hash, flags)
    if ident < 0:
        map.dropped = map.dropped + 1
    spin_unlock(int(map) + _LOCK)
    return ident


@device
def _copy_stack(trace: int, buf: int, size: int, flags: int) -> int:
    """Kernel: __bpf_get_stack. Bytes written, the rest is zeroed; or -EFAULT."""
    skip = flags & BPF_F_SKIP_FIELD_MASK
    nr = 0
    if trace != 0:
        nr = _frames(trace, lshr(size, 3) + skip)
    if trace == 0 or nr < skip:
        memset(buf, 0, size)
        return -EFAULT
    length = (nr - skip) * 8
    memcpy(buf, trace + 8 + skip * 8, length)
    memset(buf + length, 0, size - length)
    return length


@device
def _bad_flags(size: int, flags: int) -> bool:
    """Unknown flags; build ids, which no recording has; and room for a part of an address."""
    return (flags & ~(BPF_F_SKIP_FIELD_MASK | BPF_F_USER_STACK)) != 0 or (size & 7) != 0


@native()
def bpf_get_stack(ctx: int, buf: int, size: int, flags: int, env: Env) -> int:
    """The event's stack as u64s to `buf`: bytes written, -EINVAL, -EFAULT. BPF_F_USER_BUILD_ID is -EINVAL."""
    size &= _U32
    if _bad_flags(size, flags):
        memset(buf, 0, size)
        return -EINVAL
    return _copy_stack(load64(int(env) + (_USER_STACK if (flags & BPF_F_USER_STACK) != 0 else _KERNEL_STACK)), buf, size, flags)


@native()
def bpf_get_task_stack(task: int, buf: int, size: int, flags: int, env: Env) -> int:
    """The same for a task: the current one's is the event's, of others nothing is known: -EFAULT (user: -EOPNOTSUPP)."""
    size &= _U32
    if _bad_flags(size, flags):
        memset(buf, 0, size)
        return -EINVAL
    if task != env.current:
        memset(buf, 0, size)
        return -EOPNOTSUPP if (flags & BPF_F_USER_STACK) != 0 else -EFAULT
    return _copy_stack(load64(int(env) + (_USER_STACK if (flags & BPF_F_USER_STACK) != 0 else _KERNEL_STACK)), buf, size, flags)
