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
from fastrtp.maps.htab_elem_native import HELD, IN_USE, REFERENCED, htab_element, htab_in_use, htab_key_at, htab_value
from fastrtp.native.intrinsics import (
    cmpxchg32,
    cmpxchg64,
    device,
    load32,
    load64,
    load_acquire,
    load_acquire32,
    lshr,
    memcpy,
    memset,
    native,
    nonnull,
    opaque,
    outline,
    smp,
    store32,
    store64,
    store_release32,
)
from fastrtp.native.layout import ENV, HTAB_BUCKET, HTAB_ELEM, HTAB_POOL, MAP, at
from fastrtp.native.smp_native import copy_value, load32_shared, spin_lock, spin_unlock, store32_shared, wait_turn
from fastrtp.uapi import BPF_EXIST, BPF_F_LOCK, BPF_NOEXIST

_TYPE = at(MAP, "map_type")
_VALUES = at(MAP, "values")
_SLOTS = at(MAP, "slots")
_MASK = at(MAP, "slot_mask")
_LINKS = at(MAP, "links")
_ELEM_SIZE = at(MAP, "elem_size")
_VALUE_AT = at(MAP, "value_at")
_STRIDE = at(MAP, "value_stride")
_PERCPU = at(MAP, "percpu")
_MAX_ENTRIES = at(MAP, "max_entries")
_KEY_SIZE = at(MAP, "key_size")
_VALUE_SIZE = at(MAP, "value_size")
_POOLS = at(MAP, "pools")
_FRESH = at(MAP, "fresh")
_LOCK = at(MAP, "lock")
_CPUS = at(MAP, "cpus")
_FIELDS = at(MAP, "fields")
_MAP_MACHINE = at(MAP, "machine")
_CPU = at(ENV, "cpu")

_BUCKET_SIZE = HTAB_BUCKET.itemsize
_SEQ = at(HTAB_BUCKET, "seq")
_STATE = at(HTAB_ELEM, "state")
_POOL_SIZE = HTAB_POOL.itemsize
_POOL_COUNT = at(HTAB_POOL, "count")
_POOL_HAND = at(HTAB_POOL, "hand")
_U32 = 0xFFFFFFFF
_LINK_SIZE = 4
_REGION = 8192
_PATIENCE = 1000

_LRU_HASH, _LRU_PERCPU_HASH = 9, 10

_alloc_slow = outline("htab_alloc_slow", 3)
_write_fields = outline("htab_write_fields", 6)


# chains


@device
def _bucket(map: int, hash: int, mask: int) -> int:
    return load64(map + _SLOTS) + (hash & mask) * _BUCKET_SIZE


@device
def _tag(hash: int, mask: int) -> int:
    """What a link to a key has beside the element's number."""
    return hash & _U32 & ~mask


@device
def _link_of(map: int, number: int) -> int:
    """Address of the link from an element to the next of its chain."""
    return load64(map + _LINKS) + number * _LINK_SIZE


@device
def _find_link(map: int, hash: int, key: int, key_size: int, elem_size: int, mask: int) -> int:
    """Address of the link to the key's element, 0 when it is not in the chain."""
    link = _bucket(map, hash, mask)
    while True:
        word = load32_shared(link)
        if word == 0:
            return 0
        if (word ^ hash) & _U32 & ~mask == 0:
            element = htab_element(map, word & mask, elem_size)
            if bytes_equal(element + htab_key_at(key_size), key, key_size):
                return link
        link = _link_of(map, word & mask)


@device
def _walk(map: int, hash: int, key: int, key_size: int, elem_size: int, mask: int) -> int:
    """Number of the key's element in the chain, or 0."""
    word = load32_shared(_bucket(map, hash, mask))
    while word != 0:
        other = (word ^ hash) & _U32 & ~mask
        number = word & mask
        if smp() != 0:  # the address depends on the tag: a processor that guesses the branch would fetch another CPU's line
            number &= opaque((other - 1) >> 63)
        if other == 0:
            element = htab_element(map, number, elem_size)
            if bytes_equal(element + htab_key_at(key_size), key, key_size):
                return number
        word = load32_shared(_link_of(map, word & mask))
    return 0


@device
def htab_find(map: int, key: int, key_size: int, elem_size: int, mask: int) -> int:
    """Number of the key's element, or 0."""
    hash = bytes_hash(key, key_size)
    if smp() == 0:
        return _walk(map, hash, key, key_size, elem_size, mask)
    bucket = _bucket(map, hash, mask)
    spins = 0
    while True:
        seq = load_acquire32(bucket + _SEQ)
        number = _walk(map, hash, key, key_size, elem_size, mask)
        if number != 0:
            return number
        if seq & 1 == 0 and load_acquire32(bucket + _SEQ) == seq:
            return 0
        wait_turn(spins)
        spins += 1


@device
def _lock(bucket: int) -> None:
    if smp() == 0:
        return
    spins = 0
    while True:
        seq = load_acquire32(bucket + _SEQ)
        if seq & 1 == 0 and cmpxchg32(bucket + _SEQ, seq, seq + 1) == seq:
            return
        wait_turn(spins)
        spins += 1


@device
def _unlock(bucket: int) -> None:
    if smp() != 0:
        store_release32(bucket + _SEQ, load32(bucket + _SEQ) + 1)


# elements in use


@device
def _hold(element: int) -> bool:
    """Keep an element from being freed, and its value from being written by others."""
    state = load32(element + _STATE)
    return state & (IN_USE | HELD) == IN_USE and cmpxchg32(element + _STATE, state, state | HELD) == state


@device
def _let_go(element: int, used: int) -> None:
    """End that; `used`: REFERENCED, or 0 to leave that as it is."""
    store_release32(element + _STATE, (load32(element + _STATE) | used) & ~HELD)


@device
def _take_out(element: int) -> None:
    """Mark an element that was in the map as one that is not. Its bucket is held."""
    if smp() == 0:
        store32(element + _STATE, 0)
        return
    spins = 0
    while True:
        state = load_acquire32(element + _STATE)
        if state & HELD == 0 and cmpxchg32(element + _STATE, state, 0) == state:
            return
        wait_turn(spins)
        spins += 1


# free elements


@device
def _pool(map: int, own: int) -> int:
    return load64(map + _POOLS) + own * _POOL_SIZE


@device
def _own(env: int) -> int:
    """Whose pool a CPU uses: its own while others run, else CPU 0's, so that elements go round in a small area."""
    return 0 if smp() == 0 else load64(env + _CPU)


@device
def _push(map: int, pool: int, number: int, elem_size: int) -> None:
    """Make an element free that nothing links to."""
    state = htab_element(map, number, elem_size) + _STATE
    if smp() == 0:
        store32(state, load32(pool))
        store32(pool, number)
        return
    while True:
        head = load_acquire(pool)
        store32(state, head & _U32)
        if cmpxchg64(pool, head, ((lshr(head, 32) + 1) << 32) | number) == head:
            return


@device
def _pop(map: int, pool: int, elem_size: int) -> int:
    """A free element of a pool, or 0. The tag tells whether the list is still the one that was read."""
    if smp() == 0:
        number = load32(pool)
        if number != 0:
            store32(pool, load32(htab_element(map, number, elem_size) + _STATE))
        return number
    while True:
        head = load_acquire(pool)
        number = head & _U32
        if number == 0:
            return 0
        following = load_acquire32(htab_element(map, number, elem_size) + _STATE)
        if cmpxchg64(pool, head, ((lshr(head, 32) + 1) << 32) | following) == head:
            return number


@device
def _count(map: int, own: int, more: int) -> None:
    address = _pool(map, own) + _POOL_COUNT
    store64(address, load64(address) + more)


@device
def _alloc(map: int, elem_size: int, max_entries: int, own: int) -> int:
    """A free element, where that is a matter of a few instructions; or 0."""
    number = _pop(map, _pool(map, own), elem_size)
    if number == 0 and smp() == 0:
        fresh = load64(map + _FRESH)
        if fresh < max_entries:
            store64(map + _FRESH, fresh + 1)
            return fresh + 1
    return number


@device
def _take_fresh(map: int, own: int) -> int:
    """The first of a batch of elements that were never used; the others become the pool's.

    With several CPUs a batch is two pages: a processor fetches lines around those that it is asked for, and would take them
    from the CPU that counts in them.
    """
    number = 0
    spin_lock(map + _LOCK)  # whoever finds none left finds those of the batch in its owner's pool
    fresh = load64(map + _FRESH)
    batch = load64(map + _MAX_ENTRIES) - fresh
    if batch > 0:
        number = fresh + 1
        if smp() == 0:
            batch = 1
        else:
            share = max(_REGION // load64(map + _ELEM_SIZE), 1)
            batch = min(batch, share - fresh % share)
        store64(map + _FRESH, fresh + batch)
        while batch > 1:
            _push(map, _pool(map, own), fresh + batch, load64(map + _ELEM_SIZE))
            batch -= 1
    spin_unlock(map + _LOCK)
    return number


@device
def _evict(map: int, own: int) -> int:
    """Take the first element out that was not used since the hand last passed. 0: none could be had."""
    elem_size = load64(map + _ELEM_SIZE)
    key_size = load64(map + _KEY_SIZE)
    mask = load64(map + _MASK)
    entries = load64(map + _MAX_ENTRIES)
    pool = _pool(map, own)
    hand = load64(pool + _POOL_HAND)
    steps = 0
    while steps <= 2 * entries:
        steps += 1
        hand += 1
        if hand > entries:
            hand = 1
        element = htab_element(map, hand, elem_size)
        state = load32(element + _STATE)
        if state == IN_USE | REFERENCED:
            cmpxchg32(element + _STATE, state, IN_USE)
        elif state == IN_USE:
            # the key may change while it is read: whether the element is in the chain decides
            bucket = _bucket(map, bytes_hash(element + htab_key_at(key_size), key_size), mask)
            _lock(bucket)
            link = bucket
            number = load32(link) & mask
            while number != 0 and number != hand:
                link = _link_of(map, number)
                number = load32(link) & mask
            if number != 0:
                store32_shared(link, load32(_link_of(map, hand)))
                _take_out(element)
                _unlock(bucket)
                store64(pool + _POOL_HAND, hand)
                _count(map, own, -1)
                free_fields(load64(map + _MAP_MACHINE), map, htab_value(map, hand), 0)
                return hand
            _unlock(bucket)
    store64(pool + _POOL_HAND, hand)
    return 0


@native()
def htab_alloc_slow(map: int, own: int, env: int) -> int:
    """An element to fill: never used, freed by another CPU, or evicted. 0 when the map is full. No bucket may be held."""
    kind = load64(map + _TYPE)
    lru = kind == _LRU_HASH or kind == _LRU_PERCPU_HASH
    elem_size = load64(map + _ELEM_SIZE)
    spins = 0
    while True:
        number = _take_fresh(map, own)
        cpu = 0
        while number == 0 and cpu < load64(map + _CPUS):
            number = _pop(map, _pool(map, cpu), elem_size)
            cpu += 1
        if number == 0 and lru:
            number = _evict(map, own)
        if number != 0 or not lru or spins > _PATIENCE:
            return number
        wait_turn(spins)
        spins += 1


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
        if number != 0 and _hold(element):
            same = bytes_equal(element + htab_key_at(key_size), key, key_size)
            if same:
                _write_value(map, number, element, value, value_size, value_at, stride, cpus, cpu, 0, False)
            _let_go(element, used if same else 0)
            if same:
                return 0
        number = 0
    hash = bytes_hash(key, key_size)
    bucket = _bucket(map, hash, mask)
    _lock(bucket)
    link = _find_link(map, hash, key, key_size, elem_size, mask)
    if link == 0 and flags != BPF_EXIST:
        number = _alloc(map, elem_size, max_entries, own)
        if number == 0:
            _unlock(bucket)  # an eviction takes another bucket
            number = _alloc_slow(map, own, 0)
            if number == 0:
                return -E2BIG
            _lock(bucket)
            if smp() != 0:
                link = _find_link(map, hash, key, key_size, elem_size, mask)
    status = 0
    if link != 0:
        if number != 0:  # another CPU was faster
            _push(map, _pool(map, own), number, elem_size)
        number = load32(link) & mask
        element = htab_element(map, number, elem_size)
        if flags == BPF_NOEXIST:
            status = -EEXIST
        else:
            spins = 0
            while smp() != 0 and not _hold(element):
                wait_turn(spins)
                spins += 1
            if lock != 0:
                spin_lock(element + lock)
            _write_value(map, number, element, value, value_size, value_at, stride, cpus, cpu, fields, False)
            if lock != 0:
                spin_unlock(element + lock)
            if smp() != 0:
                _let_go(element, used)
            elif lru != 0:
                store32(element + _STATE, IN_USE | REFERENCED)
    elif number == 0:
        status = -ENOENT
    else:
        element = htab_element(map, number, elem_size)
        memcpy(element + htab_key_at(key_size), key, key_size)
        _write_value(map, number, element, value, value_size, value_at, stride, cpus, cpu, fields, True)
        store32(_link_of(map, number), load32(bucket))
        store32_shared(element + _STATE, IN_USE)
        store32_shared(bucket, number | _tag(hash, mask))
        _count(map, own, 1)
    _unlock(bucket)
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
    cpu, own = load64(env + _CPU), _own(env)
    return _update(
        map, key, value, flags, key_size, value_size, elem_size, value_at, mask, max_entries, lru, stride, cpus, cpu, own, 0
    )


@device
def _delete(map: int, key: int, key_size: int, elem_size: int, mask: int, own: int, fields: int) -> int:
    hash = bytes_hash(key, key_size)
    bucket = _bucket(map, hash, mask)
    _lock(bucket)
    link = _find_link(map, hash, key, key_size, elem_size, mask)
    if link == 0:
        _unlock(bucket)
        return -ENOENT
    number = load32(link) & mask
    store32_shared(link, load32(_link_of(map, number)))
    _take_out(htab_element(map, number, elem_size))
    _unlock(bucket)
    if fields != 0:
        free_fields(load64(map + _MAP_MACHINE), map, htab_value(map, number), 0)
    _push(map, _pool(map, own), number, elem_size)
    _count(map, own, -1)
    return 0


@native(inline=True)
def htab_map_delete_elem(map: int, key: int, env: int, key_size: int, elem_size: int, mask: int) -> int:
    """Delete from a map without special fields in its values. 0, or -ENOENT."""
    return _delete(map, key, key_size, elem_size, mask, _own(env), 0)


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
    own = _own(env) if env != 0 else 0
    return _update(
        map, key, value, flags, load64(map + _KEY_SIZE), load64(map + _VALUE_SIZE), load64(map + _ELEM_SIZE),
        load64(map + _VALUE_AT), load64(map + _MASK), load64(map + _MAX_ENTRIES), lru,
        load64(map + _STRIDE), load64(map + _CPUS), cpu, own, load64(map + _FIELDS),
    )  # fmt: skip


@device
def htab_delete_any(map: int, key: int, env: int) -> int:
    """Delete, and give back what special fields hold. `env` 0: from a system call."""
    own = _own(env) if env != 0 else 0
    return _delete(
        map, key, load64(map + _KEY_SIZE), load64(map + _ELEM_SIZE), load64(map + _MASK), own, load64(map + _FIELDS)
    )
