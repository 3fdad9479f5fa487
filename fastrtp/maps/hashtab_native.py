"""BPF_MAP_TYPE_HASH and PERCPU_HASH: chains of elements (LRU maps are made of the same: hashtab_lru_native.py).

An element is {u32 state, key, value}; where it lies is what a program holds as a value pointer. Links of a chain stand apart
from the elements, each with bits of the hash of the key that it leads to, so a lookup touches no element but the key's: its
cache line stays with the CPU that writes the value. There are at least twice as many buckets as elements, so most chains
have one. Values of per-CPU maps stand apart, too, a block a CPU.

An update of an existing key gives it another element, as in Linux, so that who holds the old value's address goes on seeing
the old value, until that element is used again: by this CPU's next replacement (extra_elems), or, without preallocation, by
whatever takes an element next. Where nobody can hold such an address over the update, the value is written in place, which is
cheaper and cannot be told from it: the verifier says so of each call (`replace`), and system calls run while no program does.

Several CPUs at a time: a lookup takes no lock and writes nothing. It may walk on a chain that is being changed, or on one
that its element has meanwhile been moved to, so one that finds nothing is believed only if the bucket's sequence number
stayed the same. Insert and delete hold their bucket by that number, never two at a time. A value is replaced under a bit of
its element's state, which whoever frees the element waits for: an update, too, writes to no line but the key's. Free
elements are in a lock-free list a CPU, and new ones go out in batches of whole cache lines, so that what one CPU inserts
lies together. As in the kernel's preallocated maps, a value pointer outlives the deletion of its key, and may then show
another key's value.

Kernel: kernel/bpf/hashtab.c, kernel/bpf/percpu_freelist.c.
"""

from __future__ import annotations

from errno import E2BIG, EEXIST, EINVAL, ENOENT

from fastrtp.maps.bytes_native import bytes_equal, bytes_hash
from fastrtp.maps.field_rows_native import FIELD_LOCK, field_offset, has_field
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
from fastrtp.maps.htab_elem_native import htab_element, htab_hold, htab_key_at, htab_let_go, htab_take_out
from fastrtp.maps.htab_pool_native import htab_alloc, htab_count, htab_own, htab_pool, htab_push, htab_swap_in, htab_swap_out
from fastrtp.maps.htab_value_native import htab_free_fields, htab_write_value
from fastrtp.maps.records import IN_PLACE, REPLACE_FREE, HtabBucket, HtabElem, MapRecord
from fastrtp.native.intrinsics import device, load32, memcpy, native, nonnull, outline, smp
from fastrtp.native.records import Env
from fastrtp.native.smp_native import spin_lock, spin_unlock, wait_turn
from fastrtp.uapi import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST

_alloc_slow = outline("htab_alloc_slow", 3)


# update


@device
def htab_update(
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
    replace: int,
) -> int:
    """See `htab_write_value` for `cpu` and `fields`; `own`: whose pool."""
    lock = 0
    if fields != 0 and flags & BPF_F_LOCK and has_field(map, FIELD_LOCK):
        flags -= BPF_F_LOCK
        lock = value_at + field_offset(map, FIELD_LOCK)
    if flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    number = 0
    if smp() != 0 and fields == 0 and replace == IN_PLACE and flags != BPF_NOEXIST:
        number = htab_find(map, key, key_size, elem_size, mask)
        element = HtabElem(htab_element(map, number, elem_size))
        if number != 0 and htab_hold(element):
            same = bytes_equal(int(element) + htab_key_at(key_size), key, key_size)
            if same:
                htab_write_value(map, number, int(element), value, value_size, value_at, stride, cpus, cpu, 0, False)
            htab_let_go(element)
            if same:
                return 0
        number = 0
    hash = bytes_hash(key, key_size)
    bucket = HtabBucket(htab_bucket(map, hash, mask))
    htab_lock_bucket(bucket)
    link = htab_find_link(map, hash, key, key_size, elem_size, mask)
    if link == 0 and flags != BPF_EXIST:
        number = htab_alloc(map, elem_size, own)
        if number == 0:
            htab_unlock_bucket(bucket)  # another CPU's pool takes a lock
            number = _alloc_slow(int(map), own, 0)
            if number == 0:
                return -E2BIG
            htab_lock_bucket(bucket)
            if smp() != 0:
                link = htab_find_link(map, hash, key, key_size, elem_size, mask)
    status = 0
    old = 0
    if link != 0:
        if number != 0:  # another CPU was faster
            htab_push(map, int(htab_pool(map, own)), number, elem_size)
        old = load32(link) & mask
        if flags == BPF_NOEXIST:
            status = -EEXIST
            old = 0
        elif replace != IN_PLACE and lock == 0:
            number = htab_swap_in(map, own, elem_size, replace == REPLACE_FREE)
            element = HtabElem(htab_element(map, number, elem_size))
            memcpy(int(element) + htab_key_at(key_size), key, key_size)
            htab_write_value(map, number, int(element), value, value_size, value_at, stride, cpus, cpu, fields, True)
            htab_replace(map, link, number, elem_size, mask, 0)
            htab_take_out(HtabElem(htab_element(map, old, elem_size)))
        else:
            element = HtabElem(htab_element(map, old, elem_size))
            spins = 0
            while smp() != 0 and not htab_hold(element):
                wait_turn(spins)
                spins += 1
            if lock != 0:
                spin_lock(int(element) + lock)
            htab_write_value(map, old, int(element), value, value_size, value_at, stride, cpus, cpu, fields, False)
            if lock != 0:
                spin_unlock(int(element) + lock)
            if smp() != 0:
                htab_let_go(element)
            if fields != 0 and lock == 0:
                htab_free_fields(map, old, cpu)
            old = 0
    elif number == 0:
        status = -ENOENT
    else:
        element = HtabElem(htab_element(map, number, elem_size))
        memcpy(int(element) + htab_key_at(key_size), key, key_size)
        htab_write_value(map, number, int(element), value, value_size, value_at, stride, cpus, cpu, fields, True)
        htab_insert(map, int(bucket), hash, number, elem_size, mask)
        htab_count(map, own, 1)
    htab_unlock_bucket(bucket)
    if old != 0:
        if fields != 0:
            htab_free_fields(map, old, -1)
        htab_swap_out(map, own, number, old, elem_size)
    return status


# what programs call


@native(inline=True)
def htab_map_lookup_elem(map: MapRecord, key: int, env: Env, key_size: int, elem_size: int, value_at: int, mask: int) -> int:
    """Address of the value, or 0."""
    number = htab_find(map, key, key_size, elem_size, mask)
    return nonnull(htab_element(map, number, elem_size) + value_at) if number != 0 else 0


@native(inline=True)
def htab_percpu_map_lookup_elem(
    map: MapRecord, key: int, env: Env, key_size: int, elem_size: int, percpu_size: int, mask: int, stride: int
) -> int:
    """Address of this CPU's value, or 0."""
    number = htab_find(map, key, key_size, elem_size, mask)
    if number == 0:
        return 0
    return nonnull(map.percpu - percpu_size + number * percpu_size + env.cpu * stride)


@native(inline=True)
def htab_map_update_elem(
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
    replace: int,
) -> int:
    """Update from a program, of a map without special fields in its values. 0, -EINVAL, -EEXIST, -ENOENT or -E2BIG."""
    cpu, own = env.cpu, htab_own(env)
    return htab_update(
        map, key, value, flags, key_size, value_size, elem_size, value_at, mask, stride, cpus, cpu, own, 0, replace
    )


@device
def htab_delete(map: MapRecord, key: int, key_size: int, elem_size: int, mask: int, own: int, fields: int) -> int:
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
    htab_push(map, int(htab_pool(map, own)), number, elem_size)
    htab_count(map, own, -1)
    return 0


@native(inline=True)
def htab_map_delete_elem(map: MapRecord, key: int, env: Env, key_size: int, elem_size: int, mask: int) -> int:
    """Delete from a map without special fields in its values. 0, or -ENOENT."""
    return htab_delete(map, key, key_size, elem_size, mask, htab_own(env), 0)
