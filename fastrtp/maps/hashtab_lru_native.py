"""BPF_MAP_TYPE_LRU_HASH and LRU_PERCPU_HASH: hash maps (hashtab_native.py) whose elements come from lists (lru_list_native.py).

An update takes an element first, at the cost of another key where none is free, and asks about the key afterwards. A lookup
from a program marks the element as used; a system call's does not.

Kernel: kernel/bpf/hashtab.c:htab_lru_map_update_elem, __htab_lru_percpu_map_update_elem, htab_lru_map_delete_elem.
"""

from __future__ import annotations

from errno import EEXIST, EINVAL, ENOENT, ENOMEM

from fastrtp.maps.bytes_native import bytes_hash
from fastrtp.maps.htab_chain_native import (
    htab_bucket,
    htab_find,
    htab_find_link,
    htab_insert,
    htab_lock_bucket,
    htab_remove,
    htab_replace,
    htab_unlock_bucket,
)
from fastrtp.maps.htab_elem_native import REFERENCED, htab_element, htab_key_at, htab_take_out, htab_touch
from fastrtp.maps.htab_pool_native import htab_count
from fastrtp.maps.htab_value_native import htab_free_fields, htab_write_value
from fastrtp.maps.records import HtabBucket, HtabElem, MapRecord
from fastrtp.native.intrinsics import device, load32, memcpy, native, nonnull, outline
from fastrtp.native.records import Env
from fastrtp.uapi import BPF_EXIST, BPF_NOEXIST

_bpf_lru_pop_free = outline("bpf_lru_pop_free", 4)
_bpf_lru_push_free = outline("bpf_lru_push_free", 3)


@native(inline=True)
def htab_lru_map_lookup_elem(map: MapRecord, key: int, env: Env, key_size: int, elem_size: int, value_at: int, mask: int) -> int:
    """Address of the value, or 0; the element is marked as used."""
    number = htab_find(map, key, key_size, elem_size, mask)
    if number == 0:
        return 0
    htab_touch(HtabElem(htab_element(map, number, elem_size)))
    return nonnull(htab_element(map, number, elem_size) + value_at)


@native(inline=True)
def htab_lru_percpu_map_lookup_elem(
    map: MapRecord, key: int, env: Env, key_size: int, elem_size: int, percpu_size: int, mask: int, stride: int
) -> int:
    """Address of this CPU's value, or 0; the element is marked as used."""
    number = htab_find(map, key, key_size, elem_size, mask)
    if number == 0:
        return 0
    htab_touch(HtabElem(htab_element(map, number, elem_size)))
    return nonnull(map.percpu - percpu_size + number * percpu_size + env.cpu * stride)


@device
def htab_lru_update(
    map: MapRecord,
    key: int,
    value: int,
    flags: int,
    key_size: int,
    value_size: int,
    elem_size: int,
    value_at: int,
    mask: int,
    stride: int,
    cpus: int,
    cpu: int,
    own: int,
    fields: int,
) -> int:
    """See `htab_write_value` for `cpu` and `fields`; `own`: the CPU whose lists are used."""
    if flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    hash = bytes_hash(key, key_size)
    number = 0
    if stride == 0 or flags != BPF_EXIST:
        number = _bpf_lru_pop_free(int(map), hash & 0xFFFFFFFF, own, 0)
        if number == 0:
            return -ENOMEM
        element = HtabElem(htab_element(map, number, elem_size))
        memcpy(int(element) + htab_key_at(key_size), key, key_size)
        if stride == 0:
            htab_write_value(map, number, int(element), value, value_size, value_at, 0, cpus, cpu, fields, True)
    bucket = HtabBucket(htab_bucket(map, hash, mask))
    htab_lock_bucket(bucket)
    link = htab_find_link(map, hash, key, key_size, elem_size, mask)
    status = 0
    freed = number
    if link == 0 and flags == BPF_EXIST:
        status = -ENOENT
    elif link != 0 and flags == BPF_NOEXIST:
        status = -EEXIST
    elif link == 0:
        if stride != 0:
            element = HtabElem(htab_element(map, number, elem_size))
            htab_write_value(map, number, int(element), value, value_size, value_at, stride, cpus, cpu, fields, True)
        htab_insert(map, int(bucket), hash, number, elem_size, mask)
        htab_count(map, own, 1)
        freed = 0
    elif stride == 0:
        freed = load32(link) & mask
        htab_replace(map, link, number, elem_size, mask, REFERENCED)
        htab_take_out(HtabElem(htab_element(map, freed, elem_size)))
    else:
        old = load32(link) & mask
        element = HtabElem(htab_element(map, old, elem_size))
        htab_touch(element)
        htab_write_value(map, old, int(element), value, value_size, value_at, stride, cpus, cpu, fields, False)
        if fields != 0:
            htab_free_fields(map, old, cpu)
    htab_unlock_bucket(bucket)
    if freed != 0:
        if fields != 0:
            htab_free_fields(map, freed, -1)
        _bpf_lru_push_free(int(map), freed, 0)
    return status


@native(inline=True)
def htab_lru_map_update_elem(
    map: MapRecord,
    key: int,
    value: int,
    flags: int,
    env: Env,
    key_size: int,
    value_size: int,
    elem_size: int,
    value_at: int,
    mask: int,
    stride: int,
    cpus: int,
) -> int:
    """Update from a program, of a map without special fields in its values. 0, -EINVAL, -EEXIST, -ENOENT or -ENOMEM."""
    cpu = env.cpu
    return htab_lru_update(map, key, value, flags, key_size, value_size, elem_size, value_at, mask, stride, cpus, cpu, cpu, 0)


@device
def htab_lru_delete(map: MapRecord, key: int, key_size: int, elem_size: int, mask: int, own: int, fields: int) -> int:
    """0, or -ENOENT."""
    hash = bytes_hash(key, key_size)
    bucket = HtabBucket(htab_bucket(map, hash, mask))
    htab_lock_bucket(bucket)
    link = htab_find_link(map, hash, key, key_size, elem_size, mask)
    if link == 0:
        htab_unlock_bucket(bucket)
        return -ENOENT
    number = htab_remove(map, link, elem_size, mask)
    htab_unlock_bucket(bucket)
    if fields != 0:
        htab_free_fields(map, number, -1)
    htab_count(map, own, -1)
    _bpf_lru_push_free(int(map), number, 0)
    return 0


@native(inline=True)
def htab_lru_map_delete_elem(map: MapRecord, key: int, env: Env, key_size: int, elem_size: int, mask: int) -> int:
    """Delete from a map without special fields in its values. 0, or -ENOENT."""
    return htab_lru_delete(map, key, key_size, elem_size, mask, env.cpu, 0)
