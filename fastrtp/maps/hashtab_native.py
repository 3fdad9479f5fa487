"""BPF_MAP_TYPE_HASH, LRU_HASH and their per-CPU forms: chains of elements that never move.

An element is {u32 state, key, value}; where it lies is what a program holds as a value pointer. Links of a chain stand apart
from the elements, each with bits of the hash of the key that it leads to, so a lookup touches no element but the key's: its
cache line stays with the CPU that writes the value. There are at least twice as many buckets as elements, so most chains
have one. Values of per-CPU maps stand apart, too, a block a CPU. LRU maps evict with a clock's hand over the elements: a
lookup from a program sets the referenced bit, the hand clears it and takes the first element without.

Several CPUs at a time: a lookup takes no lock and writes nothing. It may walk on a chain that is being changed, or on one
that its element has meanwhile been moved to, so one that finds nothing is believed only if the bucket's sequence number
stayed the same. Insert and delete hold their bucket by that number, never two at a time. A value is replaced under a bit of
its element's state, which whoever frees the element waits for: an update, too, writes to no line but the key's. Free
elements are in a lock-free list a CPU, and new ones go out in batches of whole cache lines, so that what one CPU inserts
lies together. As in the kernel's preallocated maps, a value pointer outlives the deletion of its key, and may then show
another key's value.

Kernel: kernel/bpf/hashtab.c, kernel/bpf/percpu_freelist.c. Differs: an update of an existing key is made in place, so a value
pointer that a program holds shows the new value; LRU evicts only when the map is full.
"""

from __future__ import annotations

from errno import E2BIG, EEXIST, EINVAL, ENOENT

from fastrtp.maps.bytes_native import bytes_equal, bytes_hash
from fastrtp.maps.field_rows_native import FIELD_LOCK, check_and_init_map_value, copy_map_value, field_offset, has_field
from fastrtp.maps.fields_native import free_fields
from fastrtp.maps.htab_chain_native import (
    htab_bucket,
    htab_find,
    htab_find_link,
    htab_link_of,
    htab_lock_bucket,
    htab_tag,
    htab_unlock_bucket,
)
from fastrtp.maps.htab_elem_native import (
    IN_USE,
    REFERENCED,
    htab_element,
    htab_hold,
    htab_in_use,
    htab_key_at,
    htab_let_go,
    htab_take_out,
    htab_value,
)
from fastrtp.maps.htab_pool_native import htab_alloc, htab_count, htab_own, htab_pool, htab_push
from fastrtp.native.intrinsics import cmpxchg32, device, load32, load64, memcpy, memset, native, nonnull, outline, smp, store32
from fastrtp.native.layout import ENV, HTAB_ELEM, MAP, at
from fastrtp.native.smp_native import copy_value, spin_lock, spin_unlock, store32_shared, wait_turn
from fastrtp.uapi import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST

_MASK = at(MAP, "slot_mask")
_ELEM_SIZE = at(MAP, "elem_size")
_VALUE_AT = at(MAP, "value_at")
_STRIDE = at(MAP, "value_stride")
_PERCPU = at(MAP, "percpu")
_MAX_ENTRIES = at(MAP, "max_entries")
_KEY_SIZE = at(MAP, "key_size")
_VALUE_SIZE = at(MAP, "value_size")
_FRESH = at(MAP, "fresh")
_CPUS = at(MAP, "cpus")
_FIELDS = at(MAP, "fields")
_MAP_MACHINE = at(MAP, "machine")
_CPU = at(ENV, "cpu")
_STATE = at(HTAB_ELEM, "state")

_alloc_slow = outline("htab_alloc_slow", 3)
_write_fields = outline("htab_write_fields", 6)


# update


@device
def _write(map: int, target: int, value: int, size: int, fields: int, fresh: bool) -> None:
    if fields == 0:
        copy_value(target, value, size)
    else:
        _write_fields(map, target, value, size, 1 if fresh else 0, 0)


@native()
def htab_write_fields(map: int, target: int, value: int, size: int, fresh: int, env: int) -> int:
    """Write a value that has special fields. Kernel: copy_map_value, check_and_init_map_value."""
    if fresh != 0:
        check_and_init_map_value(map, target)
    copy_map_value(map, target, value, size)
    return 0


@device
def _write_value(
    map: int,
    number: int,
    element: int,
    value: int,
    value_size: int,
    value_at: int,
    stride: int,
    cpus: int,
    cpu: int,
    fields: int,
    fresh: bool,
) -> None:
    """`cpu` < 0: a plain value, or all CPUs' at `value`; else that CPU's (in a fresh element the others are zeroed).

    `fields`: the values may have special fields, which are left alone (in a fresh element: zeroed).
    """
    if stride == 0:
        _write(map, element + value_at, value, value_size, fields, fresh)
        return
    size = (value_size + 7) & ~7
    first = load64(map + _PERCPU) - size + number * size
    for other in range(cpus):
        if cpu < 0:
            _write(map, first + other * stride, value + other * size, size, fields, fresh)
        elif other == cpu:
            _write(map, first + other * stride, value, value_size, fields, fresh)
        elif fresh:
            memset(first + other * stride, 0, size)


@device
def _update(
    map: int,
    key: int,
    value: int,
    flags: int,
    key_size: int,
    value_size: int,
    elem_size: int,
    value_at: int,
    mask: int,
    max_entries: int,
    lru: int,
    stride: int,
    cpus: int,
    cpu: int,
    own: int,
    fields: int,
) -> int:
    """See `_write_value` for `cpu` and `fields`; `own`: whose pool."""
    lock = 0
    if fields != 0 and flags & BPF_F_LOCK and has_field(map, FIELD_LOCK):
        flags -= BPF_F_LOCK
        lock = value_at + field_offset(map, FIELD_LOCK)
    if flags < 0 or flags > BPF_EXIST:
        return -EINVAL
    used = REFERENCED if lru != 0 else 0
    number = 0
    if smp() != 0 and fields == 0 and flags != BPF_NOEXIST:
        number = htab_find(map, key, key_size, elem_size, mask)
        element = htab_element(map, number, elem_size)
        if number != 0 and htab_hold(element):
            same = bytes_equal(element + htab_key_at(key_size), key, key_size)
            if same:
                _write_value(map, number, element, value, value_size, value_at, stride, cpus, cpu, 0, False)
            htab_let_go(element, used if same else 0)
            if same:
                return 0
        number = 0
    hash = bytes_hash(key, key_size)
    bucket = htab_bucket(map, hash, mask)
    htab_lock_bucket(bucket)
    link = htab_find_link(map, hash, key, key_size, elem_size, mask)
    if link == 0 and flags != BPF_EXIST:
        number = htab_alloc(map, elem_size, max_entries, own)
        if number == 0:
            htab_unlock_bucket(bucket)  # an eviction takes another bucket
            number = _alloc_slow(map, own, 0)
            if number == 0:
                return -E2BIG
            htab_lock_bucket(bucket)
            if smp() != 0:
                link = htab_find_link(map, hash, key, key_size, elem_size, mask)
    status = 0
    if link != 0:
        if number != 0:  # another CPU was faster
            htab_push(map, htab_pool(map, own), number, elem_size)
        number = load32(link) & mask
        element = htab_element(map, number, elem_size)
        if flags == BPF_NOEXIST:
            status = -EEXIST
        else:
            spins = 0
            while smp() != 0 and not htab_hold(element):
                wait_turn(spins)
                spins += 1
            if lock != 0:
                spin_lock(element + lock)
            _write_value(map, number, element, value, value_size, value_at, stride, cpus, cpu, fields, False)
            if lock != 0:
                spin_unlock(element + lock)
            if smp() != 0:
                htab_let_go(element, used)
            elif lru != 0:
                store32(element + _STATE, IN_USE | REFERENCED)
    elif number == 0:
        status = -ENOENT
    else:
        element = htab_element(map, number, elem_size)
        memcpy(element + htab_key_at(key_size), key, key_size)
        _write_value(map, number, element, value, value_size, value_at, stride, cpus, cpu, fields, True)
        store32(htab_link_of(map, number), load32(bucket))
        store32_shared(element + _STATE, IN_USE)
        store32_shared(bucket, number | htab_tag(hash, mask))
        htab_count(map, own, 1)
    htab_unlock_bucket(bucket)
    return status


# what programs call


@native(inline=True)
def htab_map_lookup_elem(map: int, key: int, env: int, key_size: int, elem_size: int, value_at: int, mask: int) -> int:
    """Address of the value, or 0."""
    number = htab_find(map, key, key_size, elem_size, mask)
    return nonnull(htab_element(map, number, elem_size) + value_at) if number != 0 else 0


@device
def _touch(map: int, number: int, elem_size: int) -> None:
    """Mark an LRU map's element as used, unless it is on its way out."""
    state = htab_element(map, number, elem_size) + _STATE
    if load32(state) == IN_USE:
        if smp() == 0:
            store32(state, IN_USE | REFERENCED)
        else:
            cmpxchg32(state, IN_USE, IN_USE | REFERENCED)


@native(inline=True)
def htab_lru_map_lookup_elem(map: int, key: int, env: int, key_size: int, elem_size: int, value_at: int, mask: int) -> int:
    """The same for LRU maps: the element is marked as used."""
    number = htab_find(map, key, key_size, elem_size, mask)
    if number == 0:
        return 0
    _touch(map, number, elem_size)
    return nonnull(htab_element(map, number, elem_size) + value_at)


@native(inline=True)
def htab_percpu_map_lookup_elem(
    map: int, key: int, env: int, key_size: int, elem_size: int, percpu_size: int, mask: int, stride: int
) -> int:
    """Address of this CPU's value, or 0."""
    number = htab_find(map, key, key_size, elem_size, mask)
    if number == 0:
        return 0
    return nonnull(load64(map + _PERCPU) - percpu_size + number * percpu_size + load64(env + _CPU) * stride)


@native(inline=True)
def htab_lru_percpu_map_lookup_elem(
    map: int, key: int, env: int, key_size: int, elem_size: int, percpu_size: int, mask: int, stride: int
) -> int:
    """Address of this CPU's value, or 0; the element is marked as used."""
    number = htab_find(map, key, key_size, elem_size, mask)
    if number == 0:
        return 0
    _touch(map, number, elem_size)
    return nonnull(load64(map + _PERCPU) - percpu_size + number * percpu_size + load64(env + _CPU) * stride)


@native(inline=True)
def htab_map_update_elem(
    map: int,
    key: int,
    value: int,
    flags: int,
    env: int,
    key_size: int,
    value_size: int,
    elem_size: int,
    value_at: int,
    mask: int,
    max_entries: int,
    lru: int,
    stride: int,
    cpus: int,
) -> int:
    """Update from a program, of a map without special fields in its values. 0, -EINVAL, -EEXIST, -ENOENT or -E2BIG."""
    cpu, own = load64(env + _CPU), htab_own(env)
    return _update(
        map, key, value, flags, key_size, value_size, elem_size, value_at, mask, max_entries, lru, stride, cpus, cpu, own, 0
    )


@device
def _delete(map: int, key: int, key_size: int, elem_size: int, mask: int, own: int, fields: int) -> int:
    hash = bytes_hash(key, key_size)
    bucket = htab_bucket(map, hash, mask)
    htab_lock_bucket(bucket)
    link = htab_find_link(map, hash, key, key_size, elem_size, mask)
    if link == 0:
        htab_unlock_bucket(bucket)
        return -ENOENT
    number = load32(link) & mask
    store32_shared(link, load32(htab_link_of(map, number)))
    htab_take_out(htab_element(map, number, elem_size))
    htab_unlock_bucket(bucket)
    if fields != 0:
        free_fields(load64(map + _MAP_MACHINE), map, htab_value(map, number), 0)
    htab_push(map, htab_pool(map, own), number, elem_size)
    htab_count(map, own, -1)
    return 0


@native(inline=True)
def htab_map_delete_elem(map: int, key: int, env: int, key_size: int, elem_size: int, mask: int) -> int:
    """Delete from a map without special fields in its values. 0, or -ENOENT."""
    return _delete(map, key, key_size, elem_size, mask, htab_own(env), 0)


# by the descriptor alone


@device
def htab_next(map: int, key: int) -> int:
    """Element after the key's (0: the first), or 0 at the end; a key that is not there starts over, as in the kernel."""
    elem_size = load64(map + _ELEM_SIZE)
    number = 0
    if key != 0:
        number = htab_find(map, key, load64(map + _KEY_SIZE), elem_size, load64(map + _MASK))
    while number < load64(map + _FRESH):
        number += 1
        element = htab_element(map, number, elem_size)
        if htab_in_use(element):
            return element
    return 0


@device
def htab_lookup_any(map: int, key: int, touch: bool) -> int:
    """Address of the (first CPU's) value, or 0. `touch`: it counts as used by an LRU map."""
    elem_size = load64(map + _ELEM_SIZE)
    number = htab_find(map, key, load64(map + _KEY_SIZE), elem_size, load64(map + _MASK))
    if number == 0:
        return 0
    if touch:
        _touch(map, number, elem_size)
    return htab_value(map, number)


@device
def htab_update_any(map: int, key: int, value: int, flags: int, lru: int, cpu: int, env: int) -> int:
    """Update; see `_write_value` for `cpu`. `env` 0: from a system call."""
    own = htab_own(env) if env != 0 else 0
    return _update(
        map, key, value, flags, load64(map + _KEY_SIZE), load64(map + _VALUE_SIZE), load64(map + _ELEM_SIZE),
        load64(map + _VALUE_AT), load64(map + _MASK), load64(map + _MAX_ENTRIES), lru,
        load64(map + _STRIDE), load64(map + _CPUS), cpu, own, load64(map + _FIELDS),
    )  # fmt: skip


@device
def htab_delete_any(map: int, key: int, env: int) -> int:
    """Delete, and give back what special fields hold. `env` 0: from a system call."""
    own = htab_own(env) if env != 0 else 0
    return _delete(map, key, load64(map + _KEY_SIZE), load64(map + _ELEM_SIZE), load64(map + _MASK), own, load64(map + _FIELDS))
