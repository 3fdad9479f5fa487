"""BPF_MAP_TYPE_QUEUE and STACK: a ring of max_entries + 1 values, head and tail, under the map's lock.

Kernel: kernel/bpf/queue_stack_maps.c.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOENT

from fastrtp.native.intrinsics import device, load64, memcpy, memset, store64
from fastrtp.native.layout import MAP, at
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_EXIST, BPF_NOEXIST, BpfMapType

_TYPE = at(MAP, "map_type")
_VALUE_SIZE = at(MAP, "value_size")
_VALUES = at(MAP, "values")
_SIZE = at(MAP, "limit")
_HEAD = at(MAP, "fresh")
_TAIL = at(MAP, "count")
_LOCK = at(MAP, "lock")
_STACK = int(BpfMapType.BPF_MAP_TYPE_STACK)


@device
def _after(map: int, index: int) -> int:
    return index + 1 if index + 1 < load64(map + _SIZE) else 0


@device
def _value(map: int, index: int) -> int:
    return load64(map + _VALUES) + index * load64(map + _VALUE_SIZE)


@device
def queue_stack_map_push_elem(map: int, value: int, flags: int) -> int:
    """0, -EINVAL for other flags than BPF_EXIST (which lets the oldest go), -E2BIG when full."""
    if flags & BPF_NOEXIST or flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    status = 0
    spin_lock(map + _LOCK)
    head, tail = load64(map + _HEAD), load64(map + _TAIL)
    full = _after(map, head) == tail
    if full and flags & BPF_EXIST == 0:
        status = -E2BIG
    else:
        if full:
            store64(map + _TAIL, _after(map, tail))
        memcpy(_value(map, head), value, load64(map + _VALUE_SIZE))
        store64(map + _HEAD, _after(map, head))
    spin_unlock(map + _LOCK)
    return status


@device
def queue_stack_map_get(map: int, out: int, delete: bool) -> int:
    """Copy the first value (of a stack: the last one put in) to `out`; -ENOENT and zeros where there is none."""
    size = load64(map + _VALUE_SIZE)
    status = 0
    spin_lock(map + _LOCK)
    head, tail = load64(map + _HEAD), load64(map + _TAIL)
    if head == tail:
        memset(out, 0, size)
        status = -ENOENT
    elif load64(map + _TYPE) == _STACK:
        index = head - 1 if head > 0 else load64(map + _SIZE) - 1
        memcpy(out, _value(map, index), size)
        if delete:
            store64(map + _HEAD, index)
    else:
        memcpy(out, _value(map, tail), size)
        if delete:
            store64(map + _TAIL, _after(map, tail))
    spin_unlock(map + _LOCK)
    return status
