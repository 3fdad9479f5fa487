"""BPF_MAP_TYPE_QUEUE and STACK: a ring of max_entries + 1 values, head and tail, under the map's lock.

Kernel: kernel/bpf/queue_stack_maps.c.
"""

from __future__ import annotations

from errno import E2BIG, EINVAL, ENOENT

from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import device, memcpy, memset
from fastrtp.native.smp_native import spin_lock, spin_unlock
from fastrtp.uapi import BPF_EXIST, BPF_NOEXIST, BpfMapType

_LOCK = MapRecord.layout.at("lock")
_STACK = int(BpfMapType.BPF_MAP_TYPE_STACK)


@device
def _after(map: MapRecord, index: int) -> int:
    return index + 1 if index + 1 < map.limit else 0


@device
def _value(map: MapRecord, index: int) -> int:
    return map.values + index * map.value_size


@device
def queue_stack_map_push_elem(map: MapRecord, value: int, flags: int) -> int:
    """0, -EINVAL for other flags than BPF_EXIST (which lets the oldest go), -E2BIG when full."""
    if flags & BPF_NOEXIST or flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    status = 0
    spin_lock(int(map) + _LOCK)
    head, tail = map.fresh, map.count
    full = _after(map, head) == tail
    if full and flags & BPF_EXIST == 0:
        status = -E2BIG
    else:
        if full:
            map.count = _after(map, tail)
        memcpy(_value(map, head), value, map.value_size)
        map.fresh = _after(map, head)
    spin_unlock(int(map) + _LOCK)
    return status


@device
def queue_stack_map_get(map: MapRecord, out: int, delete: bool) -> int:
    """Copy the first value (of a stack: the last one put in) to `out`; -ENOENT and zeros where there is none."""
    size = map.value_size
    status = 0
    spin_lock(int(map) + _LOCK)
    head, tail = map.fresh, map.count
    if head == tail:
        memset(out, 0, size)
        status = -ENOENT
    elif map.map_type == _STACK:
        index = head - 1 if head > 0 else map.limit - 1
        memcpy(out, _value(map, index), size)
        if delete:
            map.fresh = index
    else:
        memcpy(out, _value(map, tail), size)
        if delete:
            map.count = _after(map, tail)
    spin_unlock(int(map) + _LOCK)
    return status
