"""Helpers and system calls of maps without keys: queues, stacks and bloom filters."""

from __future__ import annotations

from errno import EINVAL, EOPNOTSUPP

from fastrtp.maps.bloom_filter_native import bloom_map_peek_elem, bloom_map_push_elem
from fastrtp.maps.queue_stack_native import queue_stack_map_get, queue_stack_map_push_elem
from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import device, native
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import Env, Machine
from fastrtp.uapi import BpfMapType

_BLOOM = int(BpfMapType.BPF_MAP_TYPE_BLOOM_FILTER)
_QUEUE, _STACK = int(BpfMapType.BPF_MAP_TYPE_QUEUE), int(BpfMapType.BPF_MAP_TYPE_STACK)


@device
def _push(map: MapRecord, value: int, flags: int) -> int:
    kind = map.map_type
    if kind == _BLOOM:
        return bloom_map_push_elem(map, value, flags)
    return queue_stack_map_push_elem(map, value, flags) if kind == _QUEUE or kind == _STACK else -EINVAL


@device
def _get(map: MapRecord, value: int, delete: bool) -> int:
    kind = map.map_type
    if kind == _BLOOM:
        return -EOPNOTSUPP if delete else bloom_map_peek_elem(map, value)
    return queue_stack_map_get(map, value, delete) if kind == _QUEUE or kind == _STACK else -EINVAL


@native()
def bpf_map_push_elem(map: MapRecord, value: int, flags: int, env: Env) -> int:
    """Put a value in. 0, -EINVAL or -E2BIG."""
    return _push(map, value, flags)


@native()
def bpf_map_pop_elem(map: MapRecord, value: int, env: Env) -> int:
    """Take a value out. 0, or -ENOENT and zeros."""
    return _get(map, value, True)


@native()
def bpf_map_peek_elem(map: MapRecord, value: int, env: Env) -> int:
    """Look at the value that would be taken out; of a bloom filter: whether `value` may be in it. 0 or -ENOENT."""
    return _get(map, value, False)


@native()
def map_push(machine: Machine, map: MapRecord, value: int, flags: int) -> int:
    """bpf_map_push_elem from a system call."""
    enter(machine)
    status = _push(map, value, flags)
    leave(machine)
    return status


@native()
def map_get(machine: Machine, map: MapRecord, value: int, delete: int) -> int:
    """bpf_map_pop_elem (`delete`) or bpf_map_peek_elem from a system call."""
    enter(machine)
    status = _get(map, value, delete != 0)
    leave(machine)
    return status
