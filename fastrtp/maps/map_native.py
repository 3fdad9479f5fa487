"""Map operations by the descriptor alone: for programs that reach a map through a variable, and for system calls.

A system call's form takes the machine first (`map_*`), a helper's does not (`bpf_map_*`): a program's run has it already.
"""

from __future__ import annotations

from errno import E2BIG, EEXIST, EINVAL, ENOENT, EOPNOTSUPP

from fastrtp.maps.arraymap_native import array_map_lookup_elem
from fastrtp.maps.field_rows_native import FIELD_LOCK, check_and_init_map_value, copy_map_value, field_offset, has_field
from fastrtp.maps.fields_native import free_fields, free_fields_of_cpu
from fastrtp.maps.htab_any_native import htab_delete_any, htab_lookup_any, htab_next, htab_update_any
from fastrtp.maps.htab_chain_native import htab_bucket, htab_link_of
from fastrtp.maps.htab_elem_native import htab_element, htab_key, htab_value
from fastrtp.maps.lpm_trie_native import trie_delete_elem, trie_get_next_key, trie_lookup_elem, trie_update_elem
from fastrtp.maps.records import MapRecord
from fastrtp.native.intrinsics import call_subprog, device, load32, load64, memcpy, native, stack_bytes, store32, store64
from fastrtp.native.machine_native import enter, leave
from fastrtp.native.records import Env, Machine
from fastrtp.native.smp_native import load32_shared, spin_lock, spin_unlock
from fastrtp.uapi import BPF_F_LOCK, BPF_MAX_LOOPS

_HASH, _ARRAY, _PERCPU_HASH, _PERCPU_ARRAY, _LRU_HASH, _LRU_PERCPU_HASH = 1, 2, 5, 6, 9, 10
_LPM_TRIE, _ARRAY_OF_MAPS, _HASH_OF_MAPS = 11, 12, 13


@device
def _is_hash(kind: int) -> bool:
    return kind == _HASH or kind == _PERCPU_HASH or kind == _LRU_HASH or kind == _LRU_PERCPU_HASH or kind == _HASH_OF_MAPS


@native()
def bpf_map_lookup_elem(map: MapRecord, key: int, env: Env) -> int:
    """Value of the key (this CPU's), or 0."""
    kind = map.map_type
    if _is_hash(kind):
        value = htab_lookup_any(map, key, True)
        if kind == _HASH_OF_MAPS:
            return load64(value) if value != 0 else 0
        return value + env.cpu * map.value_stride if value != 0 else 0
    if kind == _ARRAY_OF_MAPS:
        value = array_map_lookup_elem(map, key, env, map.max_entries, map.elem_size)
        return load64(value) if value != 0 else 0
    if kind == _ARRAY or kind == _PERCPU_ARRAY:
        value = array_map_lookup_elem(map, key, env, map.max_entries, map.elem_size)
        return value + env.cpu * map.value_stride if value != 0 else 0
    return trie_lookup_elem(map, key) if kind == _LPM_TRIE else 0


@native()
def bpf_map_lookup_percpu_elem(map: MapRecord, key: int, cpu: int, env: Env) -> int:
    """Value of the key on another CPU, or 0."""
    if cpu < 0 or cpu >= map.cpus:
        return 0
    kind = map.map_type
    value = 0
    if kind == _PERCPU_HASH or kind == _LRU_PERCPU_HASH:
        value = htab_lookup_any(map, key, True)
    elif kind == _PERCPU_ARRAY:
        value = array_map_lookup_elem(map, key, env, map.max_entries, map.elem_size)
    return value + cpu * map.value_stride if value != 0 else 0


@device
def _array_update(map: MapRecord, key: int, value: int, flags: int, only: int) -> int:
    """`only`: the CPU whose value is given (per-CPU arrays), -1: all CPUs'. What special fields held is given back."""
    lock = 0
    if flags & BPF_F_LOCK and has_field(map, FIELD_LOCK):
        flags -= BPF_F_LOCK
        lock = 1
    if flags < 0 or flags > 2:
        return -EINVAL
    index = load32(key)
    if index >= map.max_entries:
        return -E2BIG
    if flags == 1:
        return -EEXIST
    target = map.values + index * map.elem_size
    stride = map.value_stride
    size = map.value_size
    machine = map.machine
    if stride == 0:
        if lock != 0:
            spin_lock(target + field_offset(map, FIELD_LOCK))
        copy_map_value(map, target, value, size)
        if lock != 0:
            spin_unlock(target + field_offset(map, FIELD_LOCK))
        free_fields(int(machine), map, target, 0)
        return 0
    step = (size + 7) & ~7
    for cpu in range(map.cpus):
        if only < 0:
            copy_map_value(map, target + cpu * stride, value + cpu * step, step)
        elif only == cpu:
            copy_map_value(map, target + cpu * stride, value, size)
        if only < 0 or only == cpu:
            free_fields_of_cpu(int(machine), map, target + cpu * stride)
    return 0


@native()
def bpf_map_update_elem(map: MapRecord, key: int, value: int, flags: int, env: Env) -> int:
    """Update by key from a program."""
    kind = map.map_type
    if _is_hash(kind):
        return htab_update_any(map, key, value, flags, env.cpu, env)
    if kind == _ARRAY or kind == _PERCPU_ARRAY:
        return _array_update(map, key, value, flags, env.cpu)
    return trie_update_elem(map, key, value, flags) if kind == _LPM_TRIE else -EOPNOTSUPP


@native()
def bpf_map_delete_elem(map: MapRecord, key: int, env: Env) -> int:
    """Delete by key."""
    kind = map.map_type
    if kind == _LPM_TRIE:
        return trie_delete_elem(map, key)
    return htab_delete_any(map, key, env) if _is_hash(kind) else -EINVAL


@device
def _for_each_hash_elem(map: MapRecord, callback: int, data: int, env: Env) -> int:
    """By buckets. An element that the callback takes out keeps its link, so a walk goes on; what is put in may be seen or not.

    Kernel: kernel/bpf/hashtab.c:bpf_for_each_hash_elem. Differs: a walk ends when it has met every element that there can be
    in one chain, where Linux may run in circles after a callback that moves elements to other chains.
    """
    mask, elem_size = map.slot_mask, map.elem_size
    here = env.cpu * map.value_stride
    seen = 0
    for slot in range(mask + 1):
        number = load32_shared(htab_bucket(map, slot, mask)) & mask
        steps = 0
        while number != 0 and steps < map.limit:
            following = load32_shared(htab_link_of(map, number)) & mask
            key = htab_key(map, htab_element(map, number, elem_size))
            seen += 1
            steps += 1
            if call_subprog(callback, int(map), key, htab_value(map, number) + here, data, 0, int(env)) != 0:
                return seen
            number = following
    return seen


@native()
def bpf_for_each_map_elem(map: MapRecord, callback: int, data: int, flags: int, env: Env) -> int:
    """Call back for each element; how many were seen, or -EINVAL. Kernel: kernel/bpf/bpf_iter.c:bpf_for_each_map_elem."""
    if flags != 0:
        return -EINVAL
    kind = map.map_type
    elem_size = map.elem_size
    values = map.values
    here = env.cpu * map.value_stride
    seen = 0
    if _is_hash(kind):
        return _for_each_hash_elem(map, callback, data, env)
    if kind != _ARRAY and kind != _PERCPU_ARRAY:
        return -EINVAL
    key = stack_bytes(8)
    index = 0
    while index < map.max_entries:
        store64(key, index)
        seen += 1
        if call_subprog(callback, int(map), key, values + index * elem_size + here, data, 0, int(env)) != 0:
            break
        index += 1
    return seen


@native()
def bpf_loop(count: int, callback: int, data: int, flags: int, env: Env) -> int:
    """Call back(i, data) up to `count` times; how often it ran, -EINVAL or -E2BIG. Kernel: kernel/bpf/bpf_iter.c:bpf_loop."""
    if flags != 0:
        return -EINVAL
    count &= 0xFFFFFFFF
    if count > BPF_MAX_LOOPS:
        return -E2BIG
    index = 0
    while index < count:
        index += 1
        if call_subprog(callback, index - 1, data, 0, 0, 0, int(env)) != 0:
            break
    return index


@device
def _copy_value(map: MapRecord, key: int, out: int) -> int:
    kind = map.map_type
    stride = map.value_stride
    if _is_hash(kind):
        value = htab_lookup_any(map, key, False)
    elif kind == _LPM_TRIE:
        value = trie_lookup_elem(map, key)
    else:
        value = array_map_lookup_elem(map, key, Env(0), map.max_entries, map.elem_size)
    if value == 0:
        return -ENOENT
    size = map.value_size
    if stride == 0:
        memcpy(out, value, size)
        check_and_init_map_value(map, out)
        return 0
    step = (size + 7) & ~7
    for cpu in range(map.cpus):
        memcpy(out + cpu * step, value + cpu * stride, step)
        check_and_init_map_value(map, out + cpu * step)
    return 0


@native()
def map_lookup(machine: Machine, map: MapRecord, key: int, out: int) -> int:
    """Copy the value (per-CPU: all CPUs') to `out`. 0 or -ENOENT."""
    enter(machine)
    status = _copy_value(map, key, out)
    leave(machine)
    return status


@native()
def map_update(machine: Machine, map: MapRecord, key: int, value: int, flags: int) -> int:
    """Update from a system call (per-CPU: all CPUs' values, each rounded up to 8)."""
    enter(machine)
    kind = map.map_type
    if kind == _LPM_TRIE:
        status = trie_update_elem(map, key, value, flags)
    elif _is_hash(kind):
        status = htab_update_any(map, key, value, flags, -1, Env(0))
    else:
        status = _array_update(map, key, value, flags, -1)
    leave(machine)
    return status


@native()
def map_delete(machine: Machine, map: MapRecord, key: int) -> int:
    """Delete from a system call: hash maps and tries only."""
    enter(machine)
    status = trie_delete_elem(map, key) if map.map_type == _LPM_TRIE else htab_delete_any(map, key, Env(0))
    leave(machine)
    return status


@native()
def map_lookup_and_delete(machine: Machine, map: MapRecord, key: int, out: int) -> int:
    """Copy the value and delete the key, in one step."""
    enter(machine)
    status = _copy_value(map, key, out)
    if status == 0:
        status = htab_delete_any(map, key, Env(0))
    leave(machine)
    return status


@native()
def map_next_key(machine: Machine, map: MapRecord, key: int, out: int) -> int:
    """Key after `key` (0: the first) to `out`. 0, or -ENOENT at the end."""
    enter(machine)
    status = 0
    kind = map.map_type
    if kind == _LPM_TRIE:
        status = trie_get_next_key(map, key, out)
    elif _is_hash(kind):
        number = htab_next(map, key)
        if number == 0:
            status = -ENOENT
        else:
            memcpy(out, htab_key(map, htab_element(map, number, map.elem_size)), map.key_size)
    else:
        index = load32(key) + 1 if key != 0 else 0
        entries = map.max_entries
        if index == entries:
            status = -ENOENT
        else:
            store32(out, index if index < entries else 0)
    leave(machine)
    return status
